"""Memory over time: one service, clients that never pause, resident memory and turns sampled as they go on."""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.table import Table

from benchmarks.load.measure import Tally, client, memory_mb

SAMPLES = 120
"""In a whole run, but never more often than once a second."""
LINES = 12
BAR = 40


@dataclass(frozen=True)
class Sample:
    """What had been by `seconds` after the start."""

    seconds: float
    memory_mb: float
    turns: int
    errors: int


async def watch(
    url: str, root: psutil.Process, doors: Sequence[str], clients: int, minutes: float,
    progress: Callable[[int], None],
) -> list[Sample]:  # fmt: skip
    """Keep `clients` asking for `minutes`, shared out over the doors."""
    tally, begun = Tally(), time.monotonic()
    until = begun + 60 * minutes
    asking = asyncio.gather(
        *(client(url, doors[i % len(doors)], f"{clients} {i}", i, 10**9, until, tally) for i in range(clients))
    )
    samples = []
    while not asking.done():
        samples.append(Sample(time.monotonic() - begun, memory_mb(root), len(tally.wholes), tally.failed))
        progress(int(samples[-1].seconds))
        await asyncio.wait([asking], timeout=max(1.0, 60 * minutes / SAMPLES))
    await asking
    return [*samples, Sample(time.monotonic() - begun, memory_mb(root), len(tally.wholes), tally.failed)]


def growth(samples: Sequence[Sample]) -> float:
    """Megabytes per 1,000 turns over the second half of the run, when caches and pools are full; least squares."""
    later = [sample for sample in samples if sample.seconds >= samples[-1].seconds / 2]
    if len({sample.turns for sample in later}) < 2:
        return 0.0
    slope = statistics.linear_regression([sample.turns for sample in later], [sample.memory_mb for sample in later])[0]
    return 1000 * slope


def table(samples: Sequence[Sample], title: str) -> Table:
    shown = Table(title=title, caption=f"second half: {growth(samples):+.2f} MB per 1,000 turns")
    for name in ("minute", "turns", "errors", "MB", ""):
        shown.add_column(name, justify="left" if not name else "right")
    most = max(sample.memory_mb for sample in samples)
    for sample in samples[:: max(1, len(samples) // LINES)]:
        bar = "█" * round(BAR * sample.memory_mb / most)
        shown.add_row(
            f"{sample.seconds / 60:.1f}", str(sample.turns), str(sample.errors), f"{sample.memory_mb:.0f}", bar
        )
    return shown


def draw(samples: Sequence[Sample], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([sample.seconds / 60 for sample in samples], [sample.memory_mb for sample in samples], color="#1f5fa8")
    axes.set(title=title, xlabel="minutes", ylabel="resident memory, MB", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
