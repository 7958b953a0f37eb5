"""`python -m citewell.threads du | prune | export | forget-ratings`: what conversations cost, trimming and archiving them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from citewell.commands import command_line
from citewell.errors import CitewellError
from citewell.feedback import open_feedback
from citewell.settings import Settings
from citewell.threads import ThreadInfo, Threads, open_threads
from citewell.threads.archive import Outcome, export
from citewell.wording import count

T = TypeVar("T")

app = command_line(no_args_is_help=True, help="What conversations cost, trimming and archiving them.")


@app.command()
def du(top: Annotated[int, typer.Option(min=1, help="Show this many threads, the largest first.")] = 20) -> None:
    """Show the size of each thread and of all together."""
    found = asyncio.run(_with_threads(_all))
    table = Table(box=None, pad_edge=False)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("thread, title", overflow="fold")  # a name is what other commands take: none is cut
    table.add_column("owner", overflow="fold")
    table.add_column("last used (UTC)", no_wrap=True)
    for info in sorted(found, key=lambda info: -info.size_bytes)[:top]:
        used = f"{info.updated:%Y-%m-%d %H:%M}" if info.updated.timestamp() else ""
        named = Text.assemble(info.thread_id, (f"\n{info.title}", "dim"))  # whose brackets are no markup
        table.add_row(f"{info.size_bytes:,}", named, Text(info.owner), used)
    console = Console()
    console.print(table)
    console.print(f"{count(len(found), 'thread')}, {count(sum(info.size_bytes for info in found), 'byte')}")


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

    trimmed, before, after = asyncio.run(_with_threads(work))
    Console().print(f"{count(trimmed, 'thread')} trimmed: {count(before, 'byte')} before, {after:,} after")


@app.command(name="export")
def export_command(
    file: Annotated[Path, typer.Argument(help="The file to make: JSON lines, one a conversation.")],
    idle_days: Annotated[float, typer.Option(min=0, help="Only threads last used at least this long ago.")] = 0,
    needs_review: Annotated[
        bool, typer.Option("--needs-review", help="Only threads with an answer marked so.")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete each, once the file is on disk.")] = False,
) -> None:
    """Write conversations to a file: messages, citations, summary, ratings. Exit code 1: some could not be read."""
    outcome = asyncio.run(_export(file, timedelta(days=idle_days), needs_review=needs_review, delete=delete))
    console = Console()
    console.print(
        f"{count(outcome.exported, 'thread')} written to {file}, {outcome.deleted} deleted",
        markup=False,
        soft_wrap=True,
    )
    for thread, why in outcome.kept.items():
        console.print(f"not deleted, {why} meanwhile: {thread}", markup=False, soft_wrap=True)
    for thread in outcome.torn:
        console.print(f"not written, part of it is gone: {thread}", markup=False, soft_wrap=True)
    if outcome.torn:
        raise typer.Exit(1)


@app.command(name="forget-ratings")
def forget_ratings(
    days: Annotated[float, typer.Option(min=0, help="Only ratings given at least this long ago.")],
) -> None:
    """Delete the ratings of conversations that are gone. A rating outlives its conversation: nothing else deletes it then."""
    forgotten = asyncio.run(_forget_ratings(datetime.now(UTC) - timedelta(days=days)))
    Console().print(f"ratings of {count(forgotten, 'conversation')} deleted")


async def _forget_ratings(until: datetime) -> int:
    settings = Settings.load()
    async with open_threads(settings) as threads, open_feedback(settings) as feedback:
        newest: dict[str, datetime] = {}
        async for row in feedback.walk():
            given = datetime.fromisoformat(row["created"])
            newest[row["thread_id"]] = max(given, newest.get(row["thread_id"], given))
        gone = [thread for thread, given in newest.items() if given <= until and await threads.info(thread) is None]
        for thread in gone:
            await feedback.forget(thread)
    return len(gone)


async def _export(file: Path, idle: timedelta, *, needs_review: bool, delete: bool) -> Outcome:
    settings = Settings.load()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    async with open_threads(settings) as threads, open_feedback(settings) as feedback:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            tasks = {name: bar.add_task(name, total=None, visible=False) for name in ("export", "delete")}

            def show(name: str, done: int, total: int) -> None:
                bar.update(tasks[name], completed=done, total=total, visible=True)

            until = datetime.now(UTC) - idle
            return await export(
                threads, feedback, file, until=until, needs_review=needs_review, delete=delete, progress=show
            )


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
