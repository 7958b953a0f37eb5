"""`python ingest.py PATH...`: the command line over `ingest`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from citewell.commands import command_line
from citewell.errors import CitewellError, ConfigurationError, IndexMismatch, SourceNotFound
from citewell.guards.injection import open_scanner
from citewell.ingestion.load import TYPES
from citewell.ingestion.report import FileReport, Report, Status
from citewell.ingestion.sync import forget, ingest
from citewell.models import open_embedder
from citewell.retrieval import open_index
from citewell.settings import Settings
from citewell.wording import count

if TYPE_CHECKING:
    from citewell.ingestion.bar import Bar

_STYLES: dict[Status, str] = {"new": "green", "changed": "yellow", "failed": "bold red", "removed": "magenta"}
_MOST_ROWS = 40
"""Files the table shows one by one; failed ones are always shown."""
app = command_line()


@app.command()
def command(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders. None: all that were ever ingested.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and report, but store no document.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build anew beside the live index, then swap.")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="A folder that is empty now, or gone, is meant to be.")] = False,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="Drop a source, or a folder, from the index. Files stay.")] = None,
    remove_all: Annotated[bool, typer.Option("--remove-all", help="Drop everything from the index. Files stay.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON on standard output.")] = False,
) -> None:  # fmt: skip
    """Bring the index up to date with files and folders: txt, md, pdf, html, docx.

    Only what changed is embedded; what is gone is removed. Exit code 1: a file failed; 2: bad settings or paths.
    """
    how = {"dry_run": dry_run, "rebuild": rebuild, "allow_empty": allow_empty}
    if (remove or remove_all) and (paths or any(how.values()) or (remove and remove_all)):
        _complain("--remove and --remove-all stand alone: no paths, no other option but --json")
        raise typer.Exit(2)
    try:
        report = asyncio.run(_run(paths or [], how, remove=remove or [], remove_all=remove_all))
    except (ConfigurationError, IndexMismatch, SourceNotFound) as exc:
        _complain(exc.detail)
        raise typer.Exit(2) from None
    except CitewellError as exc:
        _complain(exc.detail)
        raise typer.Exit(1) from None
    except OSError as exc:
        _complain(f"The data directory cannot be written: {exc.strerror}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _complain("Stopped. What is done is done; the next run goes on from here.", colour="yellow")
        raise typer.Exit(130) from None
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(report.as_dict(), option=orjson.OPT_INDENT_2) + b"\n")
    else:
        if not (report.files or remove or remove_all):
            typer.echo(f"no file is there; files named {' '.join(TYPES)} are read")
        print_report(report)
    raise typer.Exit(report.exit_code)


async def _run(paths: list[Path], how: dict[str, bool], *, remove: list[str], remove_all: bool) -> Report:
    settings = Settings.load()
    for path in paths:
        if not path.exists():
            raise ConfigurationError(f"{path} does not exist")
    embedder = await asyncio.to_thread(open_embedder, settings)
    async with open_index(settings, embedder, guard=open_scanner(settings, embedder)) as index:
        if remove or remove_all:
            return await forget(index, None if remove_all else remove, settings)
        with _watch() as watch:
            return await ingest(index, paths, settings, **how, progress=watch)


def _complain(text: str, colour: str = "red") -> None:
    typer.secho(text, fg=colour, err=True)


def _watch() -> Bar | _Lines:
    if not sys.stderr.isatty():
        return _Lines()
    # Late, here and where a table is printed: to load Rich is a tenth of a run that finds nothing changed.
    from citewell.ingestion.bar import Bar

    return Bar()


def print_report(report: Report) -> None:
    """Print the table: every file when they are few, else the failed ones, and the sums."""
    touched = [file for file in report.files if file.status not in ("unchanged", "skipped")]
    shown = touched if len(touched) <= _MOST_ROWS else [file for file in touched if file.status == "failed"]
    if rows := [*shown, *_folded_skips(report)]:
        _print_table(rows)
    counts = ", ".join(
        f"{number:,} {status}" for status, number in report.counts().items() if number or status != "skipped"
    )
    would = " (dry run: no document was stored)" if report.dry_run else ""
    typer.echo(f"{counts}; {count(report.chunks, 'chunk')} in {report.elapsed_s:.1f} s{would}")
    if report.is_worn:
        typer.echo("The index has changed so much that `--rebuild` would make it smaller and faster.")


def _print_table(rows: list[FileReport]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", overflow="fold")
    table.add_column("status")
    table.add_column("chunks", justify="right")
    table.add_column("reason", overflow="fold")
    for file in rows:
        chunks = f"{file.chunks:,}" if file.chunks else ""
        table.add_row(
            _escape(file.uri), f"[{_STYLES.get(file.status, 'dim')}]{file.status}[/]", chunks, _escape(file.reason)
        )
    console = Console()
    console.print(table)
    console.print()


def _folded_skips(report: Report) -> list[FileReport]:
    """Skipped files, those of one reason as one line."""
    by_reason: dict[str, list[FileReport]] = {}
    for file in report.files:
        if file.status == "skipped":
            by_reason.setdefault(file.reason, []).append(file)
    return [
        files[0] if len(files) == 1 else FileReport(uri=f"{files[0].uri} and {len(files) - 1} more", status="skipped", reason=reason)
        for reason, files in by_reason.items()
    ]  # fmt: skip


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


class _Lines:
    """Elsewhere (a log, a pipe): a line for each file that is not as it was."""

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def started(self, total: int) -> None:
        typer.echo(count(total, "file"), err=True)

    def embedded(self, chunks: int, total: int) -> None:
        """Not worth a line."""

    def finished(self, file: FileReport) -> None:
        if file.status != "unchanged":
            chunks = f" {count(file.chunks, 'chunk')}" if file.chunks else ""
            reason = f" ({file.reason})" if file.reason else ""
            typer.echo(f"{file.status:>8} {file.uri}{chunks}{reason}", err=True)
