"""The turns of this process: started, followed, resumed, and ended in an orderly way when the process shuts down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import orjson

from citewell.errors import Draining, RunLost, RunNotFound
from citewell.runs.run import Result, Run, check_number
from citewell.runs.writing import result, revive, write
from citewell.threads import Threads

__all__ = ["Result", "Run", "Runs"]

POLL_S = 0.02
FAREWELL_S = 1.0
"""Time that listeners get to pass on that their run was cut off, in seconds."""
READ_S = 0.1
"""How often the journal of a run in another process is read, in seconds."""
SILENCE_S = 1.0
"""How long a run in another process may write nothing before it is checked whether that process is alive, in seconds."""


class Runs:
    """Starts turns as tasks and lets clients follow them.

    Args:
        keep_s: How long a run can be resumed after its end, in seconds.
        longest_s: Longest that a run can take, in seconds.
    """

    def __init__(self, threads: Threads, *, keep_s: float, longest_s: float) -> None:
        self._threads = threads
        self._journal = threads.journal
        self._keep_s = keep_s
        self._longest_s = longest_s
        self._running: set[Run] = set()
        self._kept: dict[str, Run] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._others: set[asyncio.Task[Any]] = set()
        self._is_cut_off = False
        self._followed = 0
        self.is_leaving = False
        """Whether the process is about to stop: it still works, but should get no new clients."""
        self.is_closed = False
        """Whether new turns are refused."""

    def check_open(self) -> None:
        """Raise Draining when no new turn may begin."""
        if self.is_closed:
            raise Draining("This process is shutting down and takes no new turns; another one will.")

    def start(self, run: Run, work: Coroutine[Any, Any, Result]) -> None:
        """Start a turn."""
        self._running.add(run)
        run.start(work)
        run.task.add_done_callback(lambda _: self._running.discard(run))
        if not run.is_kept:
            return
        self._kept[run.run_id] = run
        if self._journal is None:
            loop = asyncio.get_running_loop()
            run.task.add_done_callback(lambda _: loop.call_later(self._keep_s, self._kept.pop, run.run_id, None))
        else:
            writing = asyncio.create_task(write(self._journal, run, ttl_s=self._keep_s + self._longest_s))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)
            # a run whose journal failed can still be followed here until it ends
            writing.add_done_callback(lambda _: run.task.add_done_callback(lambda _: self._kept.pop(run.run_id, None)))

    @contextmanager
    def other(self) -> Iterator[None]:
        """What the current task does besides turns, such as adding a document: a shutdown waits for it as for a turn.

        Raises:
            Draining: No new work may begin, or a shutdown has cut this off.
        """
        self.check_open()
        task = asyncio.current_task()
        assert task is not None
        self._others.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._is_cut_off:
                raise
            task.uncancel()
            raise Draining("The service shut down before this was done. Send it again.") from None
        finally:
            self._others.discard(task)

    @asynccontextmanager
    async def following(self, run: Run, after: int = 0) -> AsyncIterator[AsyncGenerator[str | Result, None]]:
        """The run's events after number `after`. Leaving the block ends a run that is not kept."""
        self._followed += 1
        events = run.follow(after)
        try:
            yield events
        finally:
            await events.aclose()
            self._followed -= 1
            if not run.is_kept:
                await run.end()

    async def resume(self, caller: str, run_id: str, after: int) -> AsyncGenerator[str | Result, None]:
        """The events of a kept run after number `after`: the past ones, then the rest as they come.

        Raises:
            RunNotFound: The run is unknown, over for too long, or another caller's; the three look the same.
        """
        unknown = RunNotFound("The answer is not known, or has been over for too long; the conversation may hold it.")
        if (run := self._kept.get(run_id)) is not None:
            if run.caller != caller:
                raise unknown
            return self._local(run, after)
        if self._journal is None:
            raise unknown
        last, payloads = await self._journal.read(run_id)
        head = orjson.loads(payloads[0]) if payloads else {}
        if head.get("caller") != caller:
            raise unknown
        return self._elsewhere(run_id, head["thread"], after, last, payloads[1:])

    async def forget(self, thread_id: str) -> None:
        """Drop the thread's runs and their journal."""
        for run in [run for run in self._kept.values() if run.thread_id == thread_id]:
            del self._kept[run.run_id]
        if self._journal is not None:
            await self._journal.drop(thread_id)

    async def drain(self, within_s: float) -> None:
        """Refuse new turns and other work, and wait until those under way have ended and their listeners have got everything; cut off those
        that last longer than `within_s` seconds."""
        self.is_leaving = self.is_closed = True
        if await self._quiet(within_s):
            return
        cause = Draining("The service shut down before the answer was complete. Ask again.")
        self._is_cut_off = True
        for task in self._others:
            task.cancel()
        await asyncio.gather(*(run.end(cause) for run in self._running))
        await self._quiet(FAREWELL_S)

    async def _quiet(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while self._running or self._followed or self._writing or self._others:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def _local(self, run: Run, after: int) -> AsyncGenerator[str | Result, None]:
        async with self.following(run, after) as events:
            async for event in events:
                yield event

    async def _elsewhere(
        self, run_id: str, thread_id: str, after: int, last: bytes, payloads: Sequence[bytes]
    ) -> AsyncGenerator[str | Result, None]:
        """Follow a run of another process in its journal. Raises RunLost when that process is gone."""
        assert self._journal is not None
        heard, is_gone = time.monotonic(), False
        while True:
            for payload in payloads:
                entry = orjson.loads(payload)
                if "n" not in entry:  # the head, written twice
                    continue
                number = entry["n"]
                for piece in entry["said"]:
                    number += 1
                    if number > after:  # an entry is there twice where Redis's reply to it was lost
                        after = number
                        yield piece
                if "fault" in entry:
                    raise revive(entry["fault"])
                if "result" in entry:
                    check_number(after, number + 1)
                    if after <= number:
                        yield result(entry)
                    return
            if payloads:
                heard, is_gone = time.monotonic(), False
            elif is_gone:
                raise RunLost("The process that answered is gone, and the rest of the answer with it. Ask again.")
            elif time.monotonic() - heard > SILENCE_S:
                heard, is_gone = time.monotonic(), not await self._threads.lives(thread_id, run_id)
            if self.is_closed:
                raise Draining("This process is shutting down; resume the answer at another one.")
            await asyncio.sleep(SILENCE_S if is_gone else READ_S)  # its last entry may be on its way
            last, payloads = await self._journal.read(run_id, last)
