"""What it costs to write a run down for clients that may come back: CPU per run, with and without.

`python -m benchmarks.streams [--rounds 8]`. Runs of 60 pieces over 350 ms that do nothing else, on a Redis of its own.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from citewell.citations import Citation
from citewell.runs import Result, Run, Runs
from citewell.settings import Settings
from citewell.threads import Threads, open_threads
from citewell.threads.journal import new_run_id
from tests.redis_servers import server

PIECES = 60
CITATION: Citation = {
    "marker": 1, "sentence": "s" * 100, "quote": "q" * 100, "status": "verified", "score": 0.9, "source": "a.md",
    "title": "A", "page": None, "start": 0, "end": 100, "chunk_id": "c" * 32,
}  # fmt: skip


async def answer(run: Run) -> Result:
    await asyncio.sleep(0.05)
    for _ in range(PIECES):
        run.say(" said")
        await asyncio.sleep(0.3 / PIECES)
    return Result(answer=" said" * PIECES, citations=[CITATION] * 3, thread_id=run.thread_id, usage={}, metadata={})


async def one(runs: Runs, thread_id: str, is_kept: bool) -> None:
    run = Run(new_run_id(thread_id), thread_id, "local", is_kept=is_kept)
    runs.start(run, answer(run))
    async with runs.following(run) as events:
        async for _ in events:
            pass


async def cpu_ms(threads: Threads, clients: int, is_kept: bool) -> float:
    """CPU of this process per run."""
    runs = Runs(threads, keep_s=1, longest_s=1)
    begun = time.process_time()
    await asyncio.gather(*(one(runs, f"thread {n}", is_kept) for n in range(clients)))
    await runs.drain(5)
    return 1000 * (time.process_time() - begun) / clients


async def main(rounds: int) -> None:
    with server() as redis, tempfile.TemporaryDirectory() as folder:
        async with open_threads(Settings(data_dir=Path(folder), redis_url=redis.url)) as threads:
            for clients in (16, 64):
                found: dict[bool, list[float]] = {False: [], True: []}
                for _ in range(rounds):
                    for is_kept, values in found.items():
                        values.append(await cpu_ms(threads, clients, is_kept))
                plain, kept = (statistics.median(values) for values in found.values())
                print(f"{clients} runs at once: {plain:.2f} ms a run, {kept:.2f} ms written down")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    asyncio.run(main(parser.parse_args().rounds))
