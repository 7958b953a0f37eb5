"""`langgraph dev` runs the same graph, offline and without a key."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from langgraph_sdk import get_client

from tests.service import ROOT, copied, environment, free_port

START_WITHIN_S = 150


@pytest.fixture(scope="module")
def studio(indexed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("studio")
    data_dir = copied(indexed, home)
    # The development server keeps its own files where it is started, so that is not the repository.
    config = home / "langgraph.json"
    config.write_text((ROOT / "langgraph.json").read_text().replace('"dependencies": ["."]', f'"dependencies": ["{ROOT}"]').replace('"env": ".env"', '"env": {}'))  # fmt: skip
    port = free_port()
    quiet = {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGGRAPH_NO_VERSION_CHECK": "true", "LANGSMITH_TRACING": "false"}
    log = (home / "log").open("wb")
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("langgraph")), "dev", "--no-browser", "--no-reload", "--port", str(port), "--config", str(config)],
        cwd=home, env=environment(data_dir, **quiet), stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            assert process.poll() is None, (home / "log").read_text()
            try:
                if httpx.get(f"{url}/ok", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        log.close()


async def test_a_thread_a_streamed_run_its_state_and_its_history(studio: str) -> None:
    client = get_client(url=studio)
    thread = await client.threads.create()
    seen: dict[str, list[object]] = {}
    async for part in client.runs.stream(
        thread["thread_id"], "citewell", input={"question": "How high is the tower of the lighthouse?"},
        stream_mode=["custom", "updates"],
    ):  # fmt: skip
        seen.setdefault(part.event, []).append(part.data)
    assert "error" not in seen, seen["error"]
    tokens = [data["token"] for data in seen["custom"] if "token" in data]  # type: ignore[operator,index]
    assert "42 metres" in "".join(tokens)
    steps = [step for data in seen["updates"] for step in data]  # type: ignore[attr-defined]
    assert [step for step in steps if not step.startswith("__")] == ["screen", "retrieve", "rerank", "generate", "verify"]  # fmt: skip
    state = await client.threads.get_state(thread["thread_id"])
    assert [message["type"] for message in state["values"]["messages"]] == ["human", "ai"]
    await client.runs.wait(thread["thread_id"], "citewell", input={"question": "And when was it first lit?"})
    state = await client.threads.get_state(thread["thread_id"])
    assert "14 March 1871" in state["values"]["messages"][-1]["content"]
    history = await client.threads.get_history(thread["thread_id"], limit=50)
    assert len(history) > 8


@pytest.mark.parametrize(
    ("given", "context"), [({}, {}), *(({"question": "Why?"}, {"top_k": k}) for k in (-1, 0, "2", True))]
)
async def test_what_no_door_takes_is_not_taken_here(
    studio: str, given: dict[str, object], context: dict[str, object]
) -> None:
    client = get_client(url=studio)
    thread = await client.threads.create()
    with pytest.raises(Exception, match="InvalidRequest"):
        await client.runs.wait(thread["thread_id"], "citewell", input=given, context=context)
