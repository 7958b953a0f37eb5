"""Workers that die at random under many conversations: no turn lost, torn, doubled or out of order."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from citewell.settings import Settings
from citewell.threads import open_threads
from tests.threads.echo_graph import transcript

ROOT = Path(__file__).parents[2]
SERVE = ("-m", "tests.threads.worker", "--serve")


class Worker:
    """A process that answers `thread question` lines with the same line when the turn is done."""

    def __init__(self, environment: dict[str, str], program: tuple[str, ...] = SERVE) -> None:
        self._environment = environment
        self._program = program
        self._waiting: dict[bytes, asyncio.Future[bool]] = {}
        self._alive = False

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *self._program,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment, cwd=ROOT,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert await asyncio.wait_for(self._process.stdout.readline(), 90) == b"ready\n"
        self._alive = True
        self._reading = asyncio.create_task(self._read(self._process.stdout))

    async def _read(self, answers: asyncio.StreamReader) -> None:
        while (line := await answers.readline()).endswith(b"\n"):  # the last one may be cut off
            self._waiting.pop(line).set_result(True)
        self._alive = False  # who asks from now on would write to nobody
        for answer in self._waiting.values():
            answer.set_result(False)
        self._waiting.clear()

    async def ask(self, thread: str, question: str) -> bool:
        """Whether the turn was done; False when the worker is dead, and nobody knows how far it got."""
        if not self._alive:
            return False
        line = f"{thread} {question}\n".encode()
        assert self._process.stdin is not None
        answer = self._waiting[line] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(line)
        async with asyncio.timeout(60):
            return await answer

    async def kill(self) -> None:
        assert self._process.returncode is None, "it died by itself"
        self._process.kill()
        await self._process.wait()
        await self._reading


async def test_whoever_asks_a_worker_that_dies_is_told() -> None:
    worker = Worker({}, ("-c", "print('ready', flush=True); input(); print('t ', end='', flush=True); input()"))
    await worker.start()
    asked = asyncio.create_task(worker.ask("t", "cut off"))
    await asyncio.sleep(0.2)
    await worker.kill()
    async with asyncio.timeout(5):
        assert not await asked
        assert not await worker.ask("t", "after its death")
        await worker.start()
        again = asyncio.create_task(worker.ask("t", "again"))
        await asyncio.sleep(0)
        await worker.kill()
        assert not await again


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
            said = await transcript(kept, name)
            questions = [text for text in said if not text.startswith("re: ")]
            assert questions == [str(number) for number in range(turns)], "each question once, in order"
            for number in range(turns):
                assert said.index(f"re: {number}") > said.index(str(number))
                assert said.count(f"re: {number}") == 1


async def test_workers_die_and_no_turn_is_lost_or_out_of_order(kept_in: dict[str, Any]) -> None:
    await soak(kept_in, workers=2, threads=4, turns=15, kills=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_workers_die_often_and_no_turn_is_lost_or_out_of_order(kept_in: dict[str, Any]) -> None:
    await soak(kept_in, workers=3, threads=8, turns=40, kills=10)
