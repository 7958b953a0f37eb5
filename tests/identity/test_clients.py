"""The clients that ship, and those that people have, with a key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest
from langserve import RemoteRunnable
from mcp.client import Client as McpClient
from mcp.client.streamable_http import streamable_http_client

from citewell.client import Client, Ingested, ServiceError
from tests.identity.conftest import World
from tests.service import environment

TOWER = "How high is the tower of the lighthouse?"


def test_citewells_client_takes_its_key_from_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CITEWELL_API_KEY", raising=False)
    with Client(world.live.url) as client, pytest.raises(ServiceError) as caught:
        client.ask(TOWER)
    assert (caught.value.status, caught.value.code) == (401, "not_authenticated")
    monkeypatch.setenv("CITEWELL_API_KEY", world.keys["alice"])
    with Client(world.live.url) as client:
        assert "42 metres" in client.ask(TOWER).text
        *_, done = client.upload("client.txt", b"A note of the board.", access=["board"])
        assert isinstance(done, Ingested)
        assert done.uri in {source.uri for source in client.sources()}
        with Client(world.live.url, key=world.keys["bob"]) as other:
            assert done.uri not in {source.uri for source in other.sources()}
        client.remove_upload("client.txt")


def test_the_command_line_asks_a_service_with_a_key(world: World, tmp_path: Path) -> None:
    citewell = str(Path(sys.executable).with_name("citewell"))

    def ask(**settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [citewell, "ask", TOWER, "--url", world.live.url], env=environment(tmp_path / "none", **settings),
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
        )  # fmt: skip

    done = ask(CITEWELL_API_KEY=world.keys["alice"])
    assert done.returncode == 0, done.stderr
    assert "42 metres" in done.stdout
    assert "✓ verified" in done.stdout
    refused = ask()
    assert (refused.returncode, refused.stdout.strip()) == (1, "")
    assert "Send a key or token" in refused.stderr
    assert not (tmp_path / "none").exists(), "nothing is opened here to ask elsewhere"


async def test_langserves_openais_and_mcps_clients_send_a_token(world: World) -> None:
    token = world.issuer.token()
    headers = {"authorization": f"Bearer {token}"}
    rag = RemoteRunnable(f"{world.live.url}/rag", headers=headers)
    assert "42 metres" in (await rag.ainvoke({"question": TOWER}))["answer"]
    await rag.async_client.aclose()
    async with openai.AsyncOpenAI(base_url=f"{world.live.url}/v1", api_key=token) as client:
        reply = await client.chat.completions.create(model="citewell", messages=[{"role": "user", "content": TOWER}])
        assert "42 metres" in (reply.choices[0].message.content or "")
    async with openai.AsyncOpenAI(base_url=f"{world.live.url}/v1", api_key="sk-wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()

    async with (
        httpx.AsyncClient(headers=headers) as http,
        McpClient(streamable_http_client(f"{world.live.url}/mcp", http_client=http)) as client,
    ):
        assert "42 metres" in str((await client.call_tool("ask", {"question": TOWER})).content)
