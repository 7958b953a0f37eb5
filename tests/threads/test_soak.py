"""Workers that die at random under many conversations: no turn lost, torn, doubled or out of order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from citewell.settings import Settings
from citewell.threads import open_threads

ROOT = Path(__file__).parents[2]


class Worker:
    """A process that answers `thread question` lines with the same line when the turn is done."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.waiting: dict[bytes, asyncio.Future[bool]] = {}

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.threads.worker", "--serve",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert await asyncio.wait_for(self.process.stdout.readline(), 90) == b"ready\n"
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.waiting.pop(line).set_result(True)
        for answer in self.waiting.values():  # it is dead
            answer.set_result(False)
        self.waiting.clear()

    async def ask(self, thread: str, question: str) -> bool:
        """Whether the turn was done; False when the worker died first, and nobody knows how far it got."""
        line = f"{thread} {question}\n".encode()
        assert self.process.stdin is not None
        self.waiting[line] = asyncio.get_running_loop().create_future()
        with contextlib.suppress(OSError):
            self.process.stdin.write(line)
            await self.process.stdin.drain()
        return await self.waiting[line] if line in self.waiting else False

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()
        await self._reading


async def soak(kept_in: dict[str, Any], workers: int, threads: int, turns: int, kills: int) -> None:
    environment = os.environ | {"CITEWELL_DATA_DIR": str(kept_in["data_dir"]), "PYTHONPATH": str(ROOT)}
    environment["CITEWELL_REDIS_URL"] = kept_in.get("redis_url", "")
    crew = [Worker(environment) for _ in range(workers)]
    await asyncio.gather(*(worker.start() for worker in crew))
    chance = random.Random(7)

    async def converse(thread: str) -> None:
        for number in range(turns):
            while not await chance.choice(crew).ask(thread, str(number)):  # as a client does that got no answer
                await asyncio.sleep(0.05)

    async def reap() -> None:
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.3, 1.0))
            victim = chance.choice(crew)
            await victim.kill()
            await victim.start()

    names = [f"t{number}" for number in range(threads)]
    reaping = asyncio.create_task(reap())
    await asyncio.gather(*(converse(name) for name in names))
    await reaping
    for worker in crew:
        await worker.kill()
    async with open_threads(Settings(**kept_in)) as kept:
        for name in names:
            said = [str(message.content) for message in (await kept.history(name, limit=1000)).messages]
            questions = [text for text in said if not text.startswith("re: ")]
            assert questions == [str(number) for number in range(turns)], "each question once, in order"
            for number in range(turns):
                assert said.index(f"re: {number}") > said.index(str(number))
                assert said.count(f"re: {number}") == 1


@pytest.mark.slow
async def test_workers_die_and_no_turn_is_lost_or_out_of_order(kept_in: dict[str, Any]) -> None:
    await soak(kept_in, workers=2, threads=4, turns=15, kills=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_workers_die_often_and_no_turn_is_lost_or_out_of_order(kept_in: dict[str, Any]) -> None:
    await soak(kept_in, workers=3, threads=8, turns=40, kills=10)
