"""Conversations written to a file: what a line holds, and that nothing is deleted that is not in it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from citewell.errors import InvalidRequest
from citewell.feedback import FeedbackStore, Row, open_feedback
from citewell.identity import bind
from citewell.settings import Settings
from citewell.threads import Threads, open_threads
from citewell.threads.archive import Outcome, export
from citewell.wiring import open_service
from graph.state import RunContext
from tests.threads.echo_graph import transcript
from tests.threads.maintenance import maintain
from tests.threads.test_lists_and_life import _everything, converse

TOWER = "How high is the tower of the lighthouse?"


@pytest.fixture
async def feedback(kept_in: dict[str, Any]) -> AsyncIterator[FeedbackStore]:
    async with open_feedback(Settings(**kept_in)) as store:
        yield store


def now() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


def lines(path: Path) -> dict[str, dict[str, Any]]:
    return {line["thread_id"]: line for line in map(json.loads, path.read_text("utf-8").splitlines())}


def rated(thread_id: str, message: int = 1, rating: str = "up") -> Row:
    return Row(
        thread_id=thread_id, message=message, caller="me", rating=rating, reason="", comment="Thanks, Zoë",  # type: ignore[typeddict-item]
        created="2025-01-01T00:00:00.000+00:00", question="0", standalone="0", answer="re: 0", citations=[], model="m",
    )  # fmt: skip


async def test_a_line_holds_what_was_said_and_what_it_rests_on(
    kept_in: dict[str, Any], indexed: Path, tmp_path: Path
) -> None:
    shutil.copytree(indexed, kept_in["data_dir"])
    settings = Settings(_env_file=None, **kept_in)
    path = tmp_path / "archive.jsonl"
    async with open_service(settings) as service, open_feedback(settings) as feedback:
        turn = service.prepare(TOWER, thread_id="tür 7", context=RunContext(caller="ada"))
        result = await service.ask(turn)
        await service.ask(
            service.prepare(
                "Which club won the football cup in Lisbon in 1998?",
                thread_id="tür 7",
                context=RunContext(caller="ada"),
            )
        )
        await feedback.put(rated(bind("ada", "tür 7")))
        outcome = await export(service.threads, feedback, path, until=now(), delete=True)
        assert await service.transcript("ada", "tür 7") is None
        assert await feedback.of_thread(bind("ada", "tür 7")) == []
    assert (outcome.kept, outcome.torn) == ({}, [])
    line = lines(path)["tür 7"]
    assert (line["format"], line["owner"], line["title"]) == (1, "ada", TOWER)
    assert line["created"] <= line["updated"]
    assert line["created"].endswith("+00:00")
    asked, answer, _, refusal = line["messages"]
    assert (asked["role"], asked["content"]) == ("user", TOWER)
    assert asked["created_at"].startswith("20")
    assert (answer["role"], answer["content"]) == ("assistant", result.answer)
    assert answer["citations"] == result.citations
    assert answer["metadata"]["confidence"] > 0
    assert refusal["metadata"]["answerer"] == "none"
    assert (line["summary"], line["summarized"]) == ("", 0)
    assert line["ratings"][0] | {"rating": "up", "comment": "Thanks, Zoë", "message": 1} == line["ratings"][0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_is_written_is_deleted_and_nothing_of_it_is_left(
    threads: Threads, feedback: FeedbackStore, kept_in: dict[str, Any], tmp_path: Path
) -> None:
    for number in range(3):
        await converse(threads, f"t{number}", number + 1)
    await threads.record("empty", "me", "a turn that never began")
    await feedback.put(rated("t1"))
    told: list[tuple[str, int, int]] = []
    path = tmp_path / "a.jsonl"
    outcome = await export(
        threads, feedback, path, until=now(), delete=True, progress=lambda *each: told.append(each)
    )  # fmt: skip
    assert outcome == Outcome(exported=4, deleted=4)
    assert {name: len(line["messages"]) for name, line in lines(path).items()} == {
        "t0": 2,
        "t1": 4,
        "t2": 6,
        "empty": 0,
    }
    assert _everything(kept_in) == {}
    assert await feedback.of_thread("t1") == []
    assert told[-1] == ("delete", 4, 4)
    assert ("export", 4, 4) in told
    assert [each.name for each in tmp_path.glob(".a.jsonl*")] == []


async def test_only_what_has_not_been_used_for_so_long(
    threads: Threads, feedback: FeedbackStore, tmp_path: Path
) -> None:
    await converse(threads, "old")
    await asyncio.sleep(0.05)
    until = datetime.now(UTC)
    await asyncio.sleep(0.05)
    await converse(threads, "new")
    outcome = await export(threads, feedback, tmp_path / "a.jsonl", until=until, delete=True)
    assert outcome == Outcome(exported=1, deleted=1)
    assert set(lines(tmp_path / "a.jsonl")) == {"old"}
    assert len(await transcript(threads, "new")) == 2


class Meanwhile:
    """A store of ratings beside which something happens to a thread, right after it has been read for the file."""

    def __init__(self, store: FeedbackStore, deed: Any) -> None:
        self._store, self._deed = store, deed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def of_thread(self, thread_id: str) -> list[Row]:
        found = await self._store.of_thread(thread_id)
        deed, self._deed = self._deed, None
        if deed is not None:
            await deed()
        return found


@pytest.mark.parametrize("what", ["message", "rating"])
async def test_what_has_changed_since_it_was_written_is_not_deleted(
    threads: Threads, feedback: FeedbackStore, tmp_path: Path, what: str
) -> None:
    await converse(threads, "t")

    async def deed() -> None:
        await (converse(threads, "t", first=1) if what == "message" else feedback.put(rated("t")))

    store: Any = Meanwhile(feedback, deed)
    outcome = await export(threads, store, tmp_path / "a.jsonl", until=now(), delete=True)
    assert outcome == Outcome(exported=1, kept={"t": "changed"})
    assert len(lines(tmp_path / "a.jsonl")["t"]["messages"]) == 2
    assert len(await transcript(threads, "t")) == (4 if what == "message" else 2)
    assert len(await feedback.of_thread("t")) == (what == "rating")


async def test_a_thread_that_is_being_answered_is_not_deleted(
    threads: Threads, feedback: FeedbackStore, kept_in: dict[str, Any], tmp_path: Path
) -> None:
    await converse(threads, "t")
    async with open_threads(Settings(**kept_in)) as elsewhere, elsewhere.turn("t"):
        outcome = await export(threads, feedback, tmp_path / "a.jsonl", until=now(), delete=True)
    assert outcome == Outcome(exported=1, kept={"t": "busy"})
    assert len(await transcript(threads, "t")) == 2


async def test_what_cannot_be_written_deletes_nothing_and_leaves_nothing(
    threads: Threads, feedback: FeedbackStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await converse(threads, "t")
    path = tmp_path / "out" / "a.jsonl"
    with pytest.raises(InvalidRequest, match="No such file"):
        await export(threads, feedback, path, until=now(), delete=True)
    path.parent.mkdir()
    path.write_text("of last month")
    with pytest.raises(InvalidRequest, match="no archive is written over"):
        await export(threads, feedback, path, until=now(), delete=True)
    assert path.read_text() == "of last month"
    path.unlink()

    def appears(name: str, done: int, _total: int) -> None:
        if (name, done) == ("export", 0):
            path.write_text("somebody else's")

    with pytest.raises(InvalidRequest, match="no archive is written over"):
        await export(threads, feedback, path, until=now(), delete=True, progress=appears)
    assert path.read_text() == "somebody else's"
    path.unlink()

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(InvalidRequest, match="No space left"):
            await export(threads, feedback, path, until=now(), delete=True)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await export(threads, feedback, path, until=now(), delete=True, progress=interrupted)
    assert list(path.parent.iterdir()) == []
    assert len(await transcript(threads, "t")) == 2


async def test_an_archive_is_no_use_of_a_thread(kept_in: dict[str, Any], tmp_path: Path) -> None:
    settings = Settings(**kept_in, thread_ttl_s=3)
    async with open_threads(settings) as threads, open_feedback(settings) as feedback:
        await converse(threads, "t")
        number = 0
        while (await export(threads, feedback, tmp_path / f"{number}.jsonl", until=now())).exported:
            number += 1
            await asyncio.sleep(0.1)
        assert set(lines(tmp_path / "0.jsonl")) == {"t"}


async def test_a_torn_thread_is_left_where_it_is_and_told(redis_url: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_url, data_dir=tmp_path)  # type: ignore[arg-type]  # made a secret
    async with open_threads(settings) as threads:
        await converse(threads, "torn")
        await converse(threads, "whole")
    with redis.Redis.from_url(redis_url) as client:
        client.hdel("citewell:thread:torn", "m0")
    code, said = await command({"redis_url": redis_url, "data_dir": tmp_path}, "a.jsonl", "--delete")
    assert code == 1
    assert "1 thread written to a.jsonl, 1 deleted" in said
    assert "part of it is gone: torn" in said
    assert set(lines(tmp_path.parent / "a.jsonl")) == {"whole"}
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("*thread*") == [b"citewell:thread:torn"]


async def command(kept_in: dict[str, Any], *arguments: str) -> tuple[int | None, str]:
    code, out, errors = await maintain(kept_in, "export", *arguments)
    return code, out + errors


async def test_the_command_writes_deletes_and_says_so(kept_in: dict[str, Any]) -> None:
    async with open_threads(Settings(**kept_in)) as threads:
        await converse(threads, "t", 2)
    folder = kept_in["data_dir"].parent
    assert await command(kept_in, "a.jsonl") == (
        0,
        (await command(kept_in, "b.jsonl"))[1].replace("b.jsonl", "a.jsonl"),
    )
    code, said = await command(kept_in, "a.jsonl", "--delete")
    assert code == 2
    assert "a.jsonl exists" in said
    code, said = await command(kept_in, "c.jsonl", "--idle-days", "1", "--delete")
    assert (code, (folder / "c.jsonl").read_text()) == (0, "")
    assert "0 threads written" in said
    code, said = await command(kept_in, "d.jsonl", "--delete")
    assert (code, set(lines(folder / "d.jsonl"))) == (0, {"t"})
    assert "1 thread written to d.jsonl, 1 deleted" in said
    assert "delete" in said
    assert "1/1" in said
    assert _everything(kept_in) == {}


async def test_old_ratings_go_whose_conversations_are_gone(
    threads: Threads, feedback: FeedbackStore, kept_in: dict[str, Any]
) -> None:
    await converse(threads, "there")
    given = now().isoformat(timespec="milliseconds")
    for row in (rated("there"), rated("gone"), rated("new"), rated("both"), rated("both", 3)):
        await feedback.put(row if row["thread_id"] != "new" and row["message"] == 1 else {**row, "created": given})
    code, out, errors = await maintain(kept_in, "forget-ratings", "--days", "30")
    assert (code, out.strip()) == (0, "ratings of 1 conversation deleted"), errors
    assert {row["thread_id"] async for row in feedback.walk()} == {"there", "new", "both"}
