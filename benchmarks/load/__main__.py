"""Turns under load, against a paced upstream (60 tokens over 350 ms).

    python -m benchmarks.load                         every service, every door, 1 to 256 clients
    python -m benchmarks.load --services Redis one-node --doors websocket --clients 16
    python -m benchmarks.load --minutes 10 --plot memory.png

Load client, upstream, databases and service share this machine's cores; compare the rows of one run with each other,
not with another day's. CPU and memory are those of the service's own processes: not Redis, not the Chroma server.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.load import memory
from benchmarks.load.doors import DOORS
from benchmarks.load.measure import Row, measure
from benchmarks.load.services import FLOOR, REDIS, TUTORIAL, running, services, upstream


def show(rows: Sequence[Row], console: Console) -> None:
    table = Table(
        title="Turns against a paced upstream (60 tokens over 350 ms)",
        caption=f"× floor: CPU beside {FLOOR}, × tutorial: turns per second beside the {TUTORIAL}, both at as many clients",
    )
    for name in ("service", "door", "clients", "turns", "errors", "model calls", "Redis trips", "CPU ms/turn", "× floor", "first token p50 / p95 ms", "turn p50 / p95 ms", "turns/s", "× tutorial", "MB"):  # fmt: skip
        table.add_column(name, justify="left" if name in ("service", "door") else "right")
    floor = {row.clients: row.cpu_ms for row in rows if row.service == FLOOR}
    slow = {row.clients: row.turns_per_s for row in rows if row.service == TUTORIAL}
    for row in rows:
        table.add_row(
            row.service, row.door, str(row.clients), str(row.turns), str(row.errors), f"{row.model_calls:.2f}",
            f"{row.redis_trips:.1f}" if row.redis_trips else "", f"{row.cpu_ms:.1f}",
            _times(row.cpu_ms, floor.get(row.clients)),
            "" if row.first_p50_ms is None else f"{row.first_p50_ms:.0f} / {row.first_p95_ms:.0f}",
            f"{row.turn_p50_ms:.0f} / {row.turn_p95_ms:.0f}", f"{row.turns_per_s:.1f}",
            _times(row.turns_per_s, slow.get(row.clients)), f"{row.memory_mb:.0f}",
        )  # fmt: skip
    console.print(table)


def _times(value: float, base: float | None) -> str:
    return f"{value / base:.2f}" if base else ""


def compare(arguments: argparse.Namespace, progress: Progress) -> list[Row]:
    rows = []
    with upstream() as model:
        for service in services(arguments.workers):
            doors = [door for door in service.doors if door in arguments.doors]
            if not doors or not any(part in service.name for part in arguments.services):
                continue
            with running(service, model, arguments.redis_url) as started:
                for door in doors:
                    for clients in arguments.clients:
                        bar = progress.add_task(f"{service.name}, {door}, {clients}", total=clients * arguments.turns)
                        rows += [
                            asyncio.run(measure(
                                started, door, clients, arguments.turns, arguments.seconds, arguments.over, model.calls,
                                lambda done, bar=bar: progress.update(bar, completed=done),
                            ))
                        ]  # fmt: skip
                        progress.remove_task(bar)
                        progress.console.print(f"{service.name}, {door}, {clients}: {rows[-1].turns_per_s:.1f} turns/s, {rows[-1].errors} errors")  # fmt: skip
    return rows


def watch(arguments: argparse.Namespace, progress: Progress) -> tuple[str, list[memory.Sample]]:
    clients = max(arguments.clients)
    service = next(each for each in services([]) if each.name == REDIS)
    title = f"{service.name}: {clients} clients at {', '.join(arguments.doors)}"
    bar = progress.add_task(title, total=int(60 * arguments.minutes))
    with upstream() as model, running(service, model, arguments.redis_url) as started:
        return title, asyncio.run(
            memory.watch(
                started.url, started.root, arguments.doors, clients, arguments.minutes,
                lambda done: progress.update(bar, completed=done),
            )
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--turns", type=int, default=8, help="turns per client")
    parser.add_argument("--seconds", type=float, default=120, help="no row begins a turn after this long")
    parser.add_argument("--over", type=float, default=0, help="seconds over which the clients begin: 0 for all at once, who then stay in step")  # fmt: skip
    parser.add_argument("--doors", nargs="+", choices=DOORS, default=list(DOORS))
    parser.add_argument("--services", nargs="+", default=[""], metavar="PART", help="only those named so, in part")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="one more service for each, on a Chroma server")  # fmt: skip
    parser.add_argument("--minutes", type=float, help=f"instead: memory over time, {REDIS}, at the most clients")
    parser.add_argument("--plot", type=Path, help="with --minutes: a picture of it")
    parser.add_argument("--redis-url", help="a Redis of your own, instead of one started for the run")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=1)
    console = Console(width=190)
    if arguments.minutes:
        with progress:
            title, samples = watch(arguments, progress)
        if arguments.plot:
            memory.draw(samples, title, arguments.plot)
        if arguments.json:
            print(json.dumps([asdict(sample) for sample in samples], indent=2))
        else:
            console.print(memory.table(samples, title))
        return
    with progress:
        rows = compare(arguments, progress)
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        show(rows, console)


if __name__ == "__main__":
    main()
