#!/bin/sh
# Write the lock files anew (make lock). One resolution serves all, so that they agree.
#   run.txt    what the service needs
#   test.txt   that, every extra, and what the tests and checks use
#   image.txt  what the container image holds: run.txt and the extras a server may need
#   bench.txt  that, and the checkpointers measured beside ours
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
# shellcheck disable=SC2086  # one word per flag
compile $heavy --all-extras --group test --group check --group bench -o requirements/bench.txt "$@"
compile $heavy --all-extras --group test --group check -c requirements/bench.txt -o requirements/test.txt "$@"
compile -c requirements/bench.txt -o requirements/run.txt "$@"
# Chroma names the Kubernetes client, for a distributed server that nothing here starts: 126 of the image's MB.
compile --no-emit-package kubernetes --extra anthropic --extra mcp --extra ollama --extra otel --extra pinecone --extra weaviate \
    -c requirements/bench.txt -o requirements/image.txt "$@"
