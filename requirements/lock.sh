#!/bin/sh
# Write the lock files anew (make lock). One resolution serves all, so that they agree. Each begins with the one before it (`-r`)
# and adds to it:
#   run.txt    what the service needs
#   image.txt  the extras a server may need: with them, what the container image holds
#   test.txt   every other extra, and what the tests and checks use
#   bench.txt  the checkpointers measured beside ours
# torch is left out: its CUDA libraries weigh gigabytes, and where a CPU build is offered pip should
# take it, so the Makefile installs the one version below with pip, which knows the machine's own
# sources of packages.
set -eu
cd "$(dirname "$0")/.."
compile() { "${UV:-uv}" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-annotate --custom-compile-command "make lock" pyproject.toml "$@"; }
heavy=$(for name in torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas \
    nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft \
    nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 \
    nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx; do
        echo "--no-emit-package $name"; done)
# Chroma names the Kubernetes client, for a distributed server that nothing here starts: 75 MB.
unused="--no-emit-package kubernetes"
# uv keeps the versions that stand in the file it writes, but follows no -r in it.
sed '/^-r/d' requirements/run.txt requirements/image.txt requirements/test.txt requirements/bench.txt > requirements/new
mv requirements/new requirements/bench.txt
# shellcheck disable=SC2086  # one word per flag
compile $heavy --all-extras --group test --group check --group bench -o requirements/bench.txt "$@"
# shellcheck disable=SC2086
compile $heavy --all-extras --group test --group check -c requirements/bench.txt -o requirements/test.txt "$@"
# shellcheck disable=SC2086
compile $unused --extra anthropic --extra mcp --extra ollama --extra otel --extra pinecone --extra weaviate \
    -c requirements/bench.txt -o requirements/image.txt "$@"
# shellcheck disable=SC2086
compile $unused -c requirements/bench.txt -o requirements/run.txt "$@"

# uv writes each file whole. A package is a line with its version and below it, indented, the hashes.
put_upon() { # BASE FILE: keep of FILE what is not in BASE
    awk -v base="$1" 'NR == FNR { held[$0]; next } /^[^# ]/ { new = !($0 in held) } /^#/ || new { print } FNR == 2 { print "-r " base }' \
        "requirements/$1" "requirements/$2" > requirements/new
    mv requirements/new "requirements/$2"
}
put_upon test.txt bench.txt
put_upon image.txt test.txt
put_upon run.txt image.txt
