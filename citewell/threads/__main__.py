"""`python -m citewell.threads du | prune`: what conversations cost where they are kept, and trimming them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from citewell.errors import CitewellError
from citewell.settings import Settings
from citewell.threads import ThreadInfo, Threads, open_threads

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False, help="What conversations cost, and trimming them.")


@app.command()
def du(top: Annotated[int, typer.Option(min=1, help="Show this many threads, the largest first.")] = 20) -> None:
    """Show the size of each thread and of all together."""
    found = asyncio.run(_with_threads(_all))
    table = Table("bytes", "thread", "owner", "last used (UTC)", "title")
    for info in sorted(found, key=lambda info: -info.size_bytes)[:top]:
        used = f"{info.updated:%Y-%m-%d %H:%M}" if info.updated.timestamp() else ""
        table.add_row(f"{info.size_bytes:,}", info.thread_id, info.owner, used, info.title)
    console = Console()
    console.print(table)
    console.print(f"{len(found)} threads, {sum(info.size_bytes for info in found):,} bytes")


@app.command()
def prune(
    threads: Annotated[list[str] | None, typer.Argument(help="Threads to trim; none: all.")] = None,
    idle_days: Annotated[float, typer.Option(min=0, help="Only threads last used at least this long ago.")] = 0,
) -> None:
    """Drop the old checkpoints of threads. Transcripts stay; going back in time is over."""

    async def work(kept: Threads) -> tuple[int, int, int]:
        until = datetime.now(UTC) - timedelta(days=idle_days)
        chosen = [
            info for info in await _all(kept) if (not threads or info.thread_id in threads) and info.updated <= until
        ]
        for info in chosen:
            await kept.prune(info.thread_id)
        names = {info.thread_id for info in chosen}
        after = sum(info.size_bytes for info in await _all(kept) if info.thread_id in names)
        return len(chosen), sum(info.size_bytes for info in chosen), after

    count, before, after = asyncio.run(_with_threads(work))
    Console().print(f"{count} threads trimmed: {before:,} bytes before, {after:,} after")


async def _all(threads: Threads) -> list[ThreadInfo]:
    return [info async for info in threads.walk()]


async def _with_threads(work: Callable[[Threads], Awaitable[T]]) -> T:
    async with open_threads(Settings.load()) as threads:
        return await work(threads)


def main() -> None:
    """Run a command; a fault of ours ends it with a sentence and exit code 2."""
    try:
        app()
    except CitewellError as exc:
        Console(stderr=True).print(str(exc), markup=False)
        raise SystemExit(2) from exc


if __name__ == "__main__":
    main()
