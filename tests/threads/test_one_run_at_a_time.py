"""Turns: queued, rejected, replacing; nothing lost or out of order, whatever dies; stale holders write nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from citewell.errors import RunReplaced, ThreadBusy, ThreadNotFound
from citewell.settings import Settings
from citewell.threads import Threads, open_threads
from tests.service import ROOT
from tests.threads.echo_graph import ask, config, talk, transcript


async def turn(
    threads: Threads,
    thread: str,
    text: str,
    pause_s: float = 0.02,
    *,
    policy: Any = None,
    ticket: str | None = None,
    meanwhile: Any = None,
) -> None:
    async with threads.turn(thread, policy, ticket) as held:
        app = talk(pause_s, meanwhile).compile(checkpointer=threads.checkpointer)
        await app.ainvoke(ask(text), {"configurable": held.config}, durability="sync")


async def begin(threads: Threads, thread: str, text: str, pause_s: float = 0.02) -> asyncio.Task[None]:
    """A turn that holds its thread or has its place in line."""
    ticket = f"ticket{text}"
    begun = asyncio.create_task(turn(threads, thread, text, pause_s, ticket=ticket))
    while not begun.done() and not await threads.lives(thread, ticket):
        await asyncio.sleep(0.01)
    return begun


def spoken(*texts: str) -> list[str]:
    return [said for text in texts for said in (text, f"re: {text}")]


def stop_heartbeats() -> None:
    """As in a process that hangs."""
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__qualname__", "") == "Turns._keep":
            task.cancel()


async def test_messages_to_a_busy_thread_are_answered_in_the_order_they_came(threads: Threads) -> None:
    texts = [str(number) for number in range(8)]
    await asyncio.gather(*(turn(threads, "t", text) for text in texts))
    assert await transcript(threads, "t") == spoken(*texts)


async def test_two_workers_keep_the_order_too(kept_in: dict[str, Any]) -> None:
    settings = Settings(**kept_in)
    async with open_threads(settings) as one, open_threads(settings) as other:
        await asyncio.gather(*[await begin((one, other)[number % 2], "t", str(number), 0.1) for number in range(8)])
        assert await transcript(one, "t") == spoken(*map(str, range(8)))


async def test_different_threads_do_not_wait_for_each_other(threads: Threads) -> None:
    all_there = asyncio.Barrier(10)
    await asyncio.gather(*(turn(threads, f"t{number}", "a", meanwhile=all_there.wait) for number in range(10)))


async def test_a_second_message_can_be_rejected(threads: Threads) -> None:
    async with threads.turn("t"):
        with pytest.raises(ThreadBusy):
            await turn(threads, "t", "a", policy="reject")
    await turn(threads, "t", "b", policy="reject")
    assert await transcript(threads, "t") == spoken("b")


async def test_the_setting_is_the_policy_of_calls_that_name_none(kept_in: dict[str, Any]) -> None:
    async with open_threads(Settings(**kept_in, thread_policy="reject")) as threads, threads.turn("t"):
        with pytest.raises(ThreadBusy):
            await turn(threads, "t", "a")


async def test_a_queued_message_gives_up_after_its_time(kept_in: dict[str, Any]) -> None:
    async with open_threads(Settings(**kept_in | {"thread_wait_s": 0.3})) as threads:
        async with threads.turn("t"):
            began = time.monotonic()
            with pytest.raises(ThreadBusy, match=r"0\.3 s"):
                await turn(threads, "t", "a")
            assert time.monotonic() - began > 0.25
        await turn(threads, "t", "b")
        assert await transcript(threads, "t") == spoken("b")


async def test_a_replacing_message_takes_the_place_of_the_one_being_answered(kept_in: dict[str, Any]) -> None:
    settings = Settings(**kept_in)
    async with open_threads(settings) as one, open_threads(settings) as other:
        async with one.turn("t") as old:
            replaced = talk(meanwhile=lambda: turn(other, "t", "b", policy="replace"))
            with pytest.raises(RunReplaced):
                await replaced.compile(checkpointer=one.checkpointer).ainvoke(
                    ask("a"), {"configurable": old.config}, durability="sync"
                )
            await old.lost.wait()  # told within a heartbeat, though it lives elsewhere
        assert await transcript(one, "t") == ["a", *spoken("b")]
        await turn(one, "t", "c")
        assert await transcript(other, "t") == ["a", *spoken("b"), *spoken("c")]


async def test_in_the_same_process_the_replaced_run_knows_at_once(threads: Threads) -> None:
    async with threads.turn("t") as old, threads.turn("t", "replace"):
        assert old.lost.is_set()


async def test_a_holder_that_stopped_breathing_loses_its_thread_and_cannot_write(kept_in: dict[str, Any]) -> None:
    settings = Settings(**kept_in)
    async with open_threads(settings, lease_s=1) as sleeper, open_threads(settings) as other:
        async with sleeper.turn("t") as stale:
            await (
                talk()
                .compile(checkpointer=sleeper.checkpointer)
                .ainvoke(ask("a"), {"configurable": stale.config}, durability="sync")
            )
            stop_heartbeats()
            await turn(other, "t", "b")  # a silent holder frees its thread before another gives up waiting
            with pytest.raises(RunReplaced):
                await (
                    talk()
                    .compile(checkpointer=sleeper.checkpointer)
                    .ainvoke(ask("late"), {"configurable": stale.config}, durability="sync")
                )
            with pytest.raises(RunReplaced):
                await sleeper.checkpointer.aput_writes(
                    config(**stale.config, checkpoint_ns="", checkpoint_id="x"), [("messages", "late")], "task"
                )
        assert await transcript(other, "t") == spoken("a", "b")


async def test_a_long_answer_keeps_its_thread(kept_in: dict[str, Any]) -> None:
    settings = Settings(**kept_in)
    async with open_threads(settings, lease_s=3) as one, open_threads(settings) as other:
        first = await begin(one, "t", "a", pause_s=4)  # longer than the lease
        await turn(other, "t", "b")
        await first
        assert await transcript(one, "t") == spoken("a", "b")


async def test_many_waiting_messages_of_one_conversation_do_not_keep_the_store_busy(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1,000 of them on Redis, everybody else's turn took a second more."""
    asked: Counter[str] = Counter()
    claim = threads._store.claim

    async def counted(thread: str, ticket: str, *args: Any) -> bool:
        asked[ticket] += 1
        return await claim(thread, ticket, *args)

    monkeypatch.setattr(threads._store, "claim", counted)
    async with threads.turn("t"):
        waiting = [asyncio.create_task(turn(threads, "t", str(number))) for number in range(40)]
        while max(asked.values(), default=0) < 30:
            await asyncio.sleep(0.05)
        assert len(asked) == 41
        assert sorted(asked.values())[-2] < 15, "only the first asks as often"
        waiting += [asyncio.create_task(turn(threads, "t", str(number))) for number in range(40, 60)]
        refused = await asyncio.gather(*waiting[50:], return_exceptions=True)
        assert [type(fault) for fault in refused] == [ThreadBusy] * 10
    await asyncio.gather(*waiting[:50])
    assert await transcript(threads, "t") == spoken(*map(str, range(50)))


@pytest.fixture
async def patient(kept_in: dict[str, Any]) -> AsyncIterator[Threads]:
    """Threads that nobody gets before they are given up, since no lease ends as long as anybody waits."""
    async with open_threads(Settings(**kept_in), lease_s=3600) as threads:
        yield threads


async def test_a_waiting_message_that_is_cancelled_does_not_hold_up_the_queue(patient: Threads) -> None:
    async with patient.turn("t"):
        gone = await begin(patient, "t", "gone")
        last = await begin(patient, "t", "last")
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    await last
    assert await transcript(patient, "t") == spoken("last")


async def test_a_cancelled_run_frees_its_thread_at_once(patient: Threads) -> None:
    heard = asyncio.Event()

    async def stay() -> None:
        heard.set()
        await asyncio.sleep(3600)

    running = asyncio.create_task(turn(patient, "t", "a", meanwhile=stay))
    await heard.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await turn(patient, "t", "b")
    assert await transcript(patient, "t") == ["a", *spoken("b")]


async def test_deleting_a_thread_stops_the_run_that_holds_it(threads: Threads) -> None:
    async with threads.turn("t") as held:
        deleted = talk(meanwhile=lambda: threads.delete("t")).compile(checkpointer=threads.checkpointer)
        with pytest.raises(ThreadNotFound):
            await deleted.ainvoke(ask("a"), {"configurable": held.config}, durability="sync")
        assert held.lost.is_set()
    assert await transcript(threads, "t") == []
    assert not await threads.delete("t")


async def test_a_run_that_wakes_up_late_enters_no_thread_that_is_not_its_own(threads: Threads) -> None:
    async with threads.turn("t") as held:
        await threads.delete("t")
        with pytest.raises(ThreadNotFound):
            await threads.record("t", "me", "How high is the tower?", ticket=held.ticket)
        async with threads.turn("t", "replace"):
            with pytest.raises(RunReplaced):
                await threads.record("t", "me", "How high is the tower?", ticket=held.ticket)
    assert await threads.info("t") is None
    assert await threads.list("me") == []


async def test_a_killed_worker_leaves_its_question_and_frees_its_thread(
    kept_in: dict[str, Any], redis_url: str
) -> None:
    environment = os.environ | {"CITEWELL_DATA_DIR": str(kept_in["data_dir"]), "PYTHONPATH": str(ROOT)}
    environment.pop("CITEWELL_REDIS_URL", None)
    if "redis_url" in kept_in:
        environment["CITEWELL_REDIS_URL"] = kept_in["redis_url"]
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.threads.worker", "t", "a", "60",
        stdout=subprocess.PIPE, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"hear\n"
    worker.kill()
    await worker.wait()
    async with open_threads(Settings(**kept_in)) as threads:
        await turn(threads, "t", "b")
        assert await transcript(threads, "t") == ["a", *spoken("b")]
