"""Clients that ask in turn, and what their turns cost the service."""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from benchmarks.load.doors import DOORS
from benchmarks.load.services import Running

QUESTIONS = [
    "At what wind speed are the domes closed",
    "What happens if it is cloudy on an observing evening",
    "Who was Ada Thornley",
    "How was the observatory saved after it closed",
    "What must I do before pointing a telescope at the Sun",
    "Which tender for the roof was accepted",
    "How much is paid for a hotel in London",
    "Why is Algol variable",
    "What was the lowest temperature ever measured on the fell",
    "When was the observatory founded",
    "How long does everyone wait after thunder",
    "What does a reflector use to gather light",
    "Who chairs the meeting of the trustees",
]
"""What the sample documents answer. A question that they do not answer would never reach the model."""
OPENINGS = ["", "Please: ", "So: ", "Tell me: ", "Tell us: ", "And: ", "Well: ", "Now: "]
CLOSINGS = ["", ", please", ", then", ", though", ", if you can", ", or not", ", and so on"]
"""With these a question can be put in 56 ways, so that no cache of whole questions answers for the service."""


def question(number: int) -> str:
    number, which = divmod(number, len(QUESTIONS))
    number, opening = divmod(number, len(OPENINGS))
    return f"{OPENINGS[opening]}{QUESTIONS[which]}{CLOSINGS[number % len(CLOSINGS)]}?"


@dataclass(frozen=True)
class Row:
    """One service at one door under one number of clients. Times in milliseconds."""

    service: str
    door: str
    clients: int
    turns: int
    errors: int
    model_calls: float
    """Calls to the model per turn: 1, or the service answered without it and its times say nothing."""
    redis_trips: float
    """Requests to Redis per turn."""
    cpu_ms: float
    """CPU time of the service's processes per turn."""
    first_p50_ms: float | None
    """None where the answer comes whole."""
    first_p95_ms: float | None
    turn_p50_ms: float
    turn_p95_ms: float
    turns_per_s: float
    memory_mb: float
    """Resident memory of the service's processes at the end."""


@dataclass
class Tally:
    """What the clients of one row saw, in seconds."""

    firsts: list[float] = field(default_factory=list)
    wholes: list[float] = field(default_factory=list)
    failed: int = 0


def family(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def cpu_s(root: psutil.Process) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in family(root))


def memory_mb(root: psutil.Process) -> float:
    return sum(each.memory_info().rss for each in family(root)) / 2**20


async def client(
    url: str, door: str, name: str, first: int, turns: int, until: float, tally: Tally, wait_s: float = 0
) -> None:  # fmt: skip
    """After `wait_s` ask `turns` questions, from number `first` on, each in a new thread, none after `until` (monotonic seconds).

    In one thread every question after the first would be rewritten by the upstream, whose words mean nothing.
    """
    done = 0
    try:
        async with DOORS[door](url) as ask:
            await asyncio.sleep(wait_s)
            while done < turns and time.monotonic() < until:
                asked = question(first + done)
                done += 1
                timing = await ask(asked, f"{door} {name} {done}")
                tally.wholes.append(timing.whole)
                if timing.first is not None:
                    tally.firsts.append(timing.first)
    except Exception:
        tally.failed += 1  # and this client asks no more: whoever is refused would otherwise be the quickest


async def measure(
    service: Running, door: str, clients: int, turns: int, limit_s: float, over_s: float,
    model_calls: Callable[[], int], progress: Callable[[int], None],
) -> Row:  # fmt: skip
    """Warm the service up, then let `clients` ask `turns` questions each.

    Args:
        service: What is measured.
        door: One of `DOORS`.
        clients: That ask at the same time.
        turns: Of each client.
        limit_s: No turn is begun after so many seconds; those under way are waited for.
        over_s: Seconds over which the clients begin, one after the other. 0: all at once, and since their turns take equally
            long, they stay in step.
        model_calls: Counts those that the upstream has had.
        progress: Hears every second how many turns are done.
    """
    # Long enough that every chunk has been read: the guards judge each once, when it is first found.
    end = time.monotonic() + limit_s
    await asyncio.gather(
        *(client(service.url, door, f"warm {clients} {i}", i, len(QUESTIONS), end, Tally()) for i in range(4))
    )
    tally = Tally()
    watching = asyncio.create_task(_watch(tally, progress))
    calls, trips, cpu, begun = model_calls(), service.round_trips(), cpu_s(service.root), time.perf_counter()
    end = time.monotonic() + limit_s
    asking = (
        client(service.url, door, f"{clients} {i}", i * turns, turns, end, tally, over_s * i / clients)
        for i in range(clients)
    )
    await asyncio.gather(*asking)
    took, cpu, trips = time.perf_counter() - begun, cpu_s(service.root) - cpu, service.round_trips() - trips
    watching.cancel()
    done = len(tally.wholes)
    return Row(
        service=service.name, door=door, clients=clients, turns=done, errors=tally.failed,
        model_calls=(model_calls() - calls) / max(done, 1), redis_trips=trips / max(done, 1),
        cpu_ms=1000 * cpu / max(done, 1),
        first_p50_ms=_percentile(tally.firsts, 50) if tally.firsts else None,
        first_p95_ms=_percentile(tally.firsts, 95) if tally.firsts else None,
        turn_p50_ms=_percentile(tally.wholes, 50), turn_p95_ms=_percentile(tally.wholes, 95),
        turns_per_s=done / took, memory_mb=memory_mb(service.root),
    )  # fmt: skip


async def _watch(tally: Tally, progress: Callable[[int], None]) -> None:
    while True:
        await asyncio.sleep(1)
        progress(len(tally.wholes))


def _percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return 1000 * sum(values)
    return 1000 * statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
