"""`citewell.client` over a connection that breaks off, and when somebody stops the answer."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from citewell.client import Answer, AsyncClient, Client, ServiceError
from tests.models.paced_server import Paced
from tests.service import Live, copied, running

TOWER = "How high is the tower of the lighthouse?"


@pytest.fixture(scope="module", params=["continue", "cancel"])
def kept(
    request: pytest.FixtureRequest, paced: Paced, indexed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    with running(
        copied(indexed, tmp_path_factory.mktemp("kept")), CITEWELL_ON_DISCONNECT=request.param,
        CITEWELL_CHAT_MODELS='["openai:endless"]', **paced.model(6),
    ) as live:  # fmt: skip
        yield live


@asynccontextmanager
async def cutting(url: str, after_bytes: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A way to the service on which every connection but the third breaks off after some bytes of its reply.

    Of fewer than it has when all words come at once.
    """
    carried: list[int] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(carried)
        carried.append(0)
        inner, outer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        asking = asyncio.create_task(pump(reader, outer))
        while data := await inner.read(200):
            if number < 2 and carried[number] + len(data) > after_bytes:
                break
            carried[number] += len(data)
            writer.write(data)
            await writer.drain()
        asking.cancel()
        outer.transport.abort()
        writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", carried
    finally:
        server.close()


async def whole(url: str) -> tuple[list[str], Answer | None]:
    pieces: list[str] = []
    async with AsyncClient(url) as client:
        async for event in client.stream(TOWER):
            if isinstance(event, Answer):
                return pieces, event
            pieces.append(event)
    return pieces, None


def whole_blocking(url: str) -> tuple[list[str], Answer | None]:
    with Client(url) as client:
        *pieces, answer = client.stream(TOWER)
    assert isinstance(answer, Answer)
    return [str(piece) for piece in pieces], answer


@pytest.mark.parametrize("blocking", [False, True], ids=["awaited", "blocking"])
@pytest.mark.parametrize("kept", ["continue"], indirect=True)
async def test_a_connection_that_breaks_off_twice_costs_no_word(kept: Live, blocking: bool) -> None:
    async with cutting(kept.url, after_bytes=900) as (url, carried):
        pieces, answer = await (asyncio.to_thread(whole_blocking, url) if blocking else whole(url))
        assert answer is not None
        assert "".join(pieces) == answer.text
        assert len(carried) == 3
    async with AsyncClient(kept.url) as client:
        assert (await client.history(answer.thread_id)).messages[1].content == answer.text


@pytest.mark.parametrize("kept", ["cancel"], indirect=True)
async def test_where_streams_are_not_kept_a_broken_one_is_a_fault(kept: Live) -> None:
    async with cutting(kept.url, after_bytes=900) as (url, carried):
        with pytest.raises(ServiceError) as caught:
            await whole(url)
        assert len(carried) == 1
    assert caught.value.code in ("broken_off", "unreachable")


def test_an_answer_is_stopped(kept: Live) -> None:
    with Client(kept.url) as client, Client(kept.url) as other:
        events = client.stream(TOWER, thread_id="t", chat_model="openai:endless")
        said = str(next(events))
        stopped: list[bool] = []
        stopping = threading.Thread(target=lambda: stopped.append(other.stop("t")))
        stopping.start()
        *pieces, answer = events
        stopping.join()
        assert stopped == [True]
        assert isinstance(answer, Answer)
        assert (answer.text, answer.metadata["stopped"]) == (said + "".join(map(str, pieces)), True)
        assert client.history("t").messages[-1].content == answer.text
        assert not client.stop("t")
        client.delete("t")
