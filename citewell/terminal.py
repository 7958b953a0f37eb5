"""The commands of the terminal: `citewell ask "question"` and `citewell serve`.

A command imports the service only when it needs it: `--help` and a question to a running service do not wait for it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from citewell import __version__
from citewell.client import AsyncClient, ServiceError
from citewell.commands import command_line
from citewell.errors import CitewellError, ConfigurationError, InvalidFilter, NotFound
from citewell.flowing import Flowing, print_indented
from citewell.settings import Settings
from citewell.wording import about

app = command_line(no_args_is_help=True)
SIGNS = {"verified": "✓ verified", "partial": "~ partial", "unsupported": "✗ unsupported"}


def _version(is_asked: bool) -> None:
    if is_asked:
        print(f"citewell {__version__}")
        raise typer.Exit


@app.callback()
def explain(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Answers from your own documents, with the passage behind every sentence."""


@app.command()
def ask(
    words: Annotated[
        list[str],
        typer.Argument(metavar="QUESTION", help="What to ask the documents; `-` reads it from standard input."),
    ],
    thread: Annotated[str, typer.Option(help="Conversation to continue.")] = "",
    model: Annotated[str, typer.Option(help="`extractive` or `provider:model`; as the settings say if left out.")] = "",
    where: Annotated[
        str, typer.Option("--filter", help='Only documents that it fits, as JSON: \'{"type": "pdf"}\'.')
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
    url: Annotated[str, typer.Option(help="Ask a running service there, with the key in CITEWELL_API_KEY.")] = "",
) -> None:
    """Answer in the terminal, streamed, with the citations below."""
    question = _piped() if words == ["-"] else " ".join(words)
    raise SystemExit(asyncio.run(_ask(question, thread, model, where, as_json, url)))


def _piped() -> str:
    try:
        # Strictly: in some locales Python reads what is no text as halves of characters.
        return sys.stdin.buffer.read().decode(sys.stdin.encoding).strip()
    except UnicodeDecodeError:
        sys.exit(f"citewell: What came from standard input is not {sys.stdin.encoding.upper()} text.")


@app.command()
def serve() -> None:
    """Start the service. Everything about it is a setting: CITEWELL_... in the environment or .env."""
    from citewell.api.serve import main

    main()


async def _ask(question: str, thread: str, model: str, where: str, as_json: bool, url: str) -> int:
    out = Console(highlight=False)
    out.soft_wrap = not out.is_terminal
    answer = Flowing(out)
    try:
        settings = Settings.load()
        options = {"chat_model": model or None, "filter": _filter(where)}
        asking = (
            _elsewhere(settings, url, question, thread, options) if url else _here(settings, question, thread, options)
        )
        async with aclosing(asking) as events:
            async for event in events:
                if as_json:
                    if not isinstance(event, str):
                        out.out(json.dumps(event, ensure_ascii=False, indent=2))
                elif isinstance(event, str):
                    answer.write(event)
                else:
                    answer.end()
                    _show(out, event)
    except (ServiceError, CitewellError) as exc:
        answer.end()
        print(f"citewell: {exc.detail}", file=sys.stderr)
        return 2 if isinstance(exc, ConfigurationError) else 1
    return 0


def _filter(given: str) -> dict[str, Any] | None:
    try:
        read = json.loads(given or "null")
    except ValueError:
        read = given
    if not isinstance(read, dict | None):
        raise InvalidFilter('--filter must be a JSON object, as \'{"type": "pdf"}\'.')
    return read


async def _here(
    settings: Settings, question: str, thread: str, options: dict[str, Any]
) -> AsyncGenerator[str | dict[str, Any], None]:
    """Ask in this process. No document is hidden: whoever runs this can read the data directory.

    Yields the answer's pieces, then the fields of `citewell.service.Result`.
    """
    from citewell.service import Result
    from citewell.telemetry.logs import configure_logging
    from citewell.wiring import open_service
    from graph.state import RunContext

    configure_logging(settings.model_copy(update={"log_level": "WARNING"}))  # the terminal is for the answer
    async with open_service(settings) as service:
        if not (await service.index.stats())["sources"]:
            raise NotFound(
                f"There are no documents in {settings.data_dir.absolute()}: add some with `python ingest.py DOCS/`, or set "
                "CITEWELL_DATA_DIR to where they were added."
            )
        turn = service.prepare(question, thread_id=thread, context=RunContext(**options))
        async with aclosing(service.stream(turn)) as events:
            async for event in events:
                yield asdict(event) if isinstance(event, Result) else event


async def _elsewhere(
    settings: Settings, url: str, question: str, thread: str, options: dict[str, Any]
) -> AsyncGenerator[str | dict[str, Any], None]:
    """Ask a running service. Yields the same as `_here`."""
    key = settings.api_key.get_secret_value() if settings.api_key else None
    async with (
        AsyncClient(url, key=key) as client,
        aclosing(client.stream(question, thread_id=thread or None, **options)) as events,
    ):
        async for event in events:
            if isinstance(event, str):
                yield event
                continue
            whole = asdict(event)
            for citation in whole["citations"]:
                if not citation["also_in"]:  # the service names copies only where there are any
                    del citation["also_in"]
            yield {"answer": whole.pop("text")} | whole


def _show(out: Console, result: Mapping[str, Any]) -> None:
    shown = set()
    for citation in result["citations"]:
        page = f", page {citation['page']}" if citation["page"] else ""
        style = {"verified": "green", "partial": "yellow"}.get(citation["status"], "red")
        head = Text.assemble(
            (f"[{citation['marker']}] ", "bold"), (SIGNS[citation["status"]], style),
            f"  {citation['title']} ({citation['source']}{page}, characters {citation['start']}-{citation['end']})",
        )  # fmt: skip
        if head.plain in shown:  # one passage behind several sentences
            continue
        shown.add(head.plain)
        out.print()
        out.print(head)
        print_indented(out, f"“{citation['quote']}”", "dim")
        if also := citation.get("also_in"):
            print_indented(out, f"also in {', '.join(also)}", "dim")
    for sentence in result["metadata"].get("unmarked", []):
        out.print(Text.assemble(("\nWithout a source: ", "yellow"), f"“{sentence}”"))
    out.print()
    out.print(Text(about(result["metadata"]), style="dim"))
    out.print(Text(f"thread {result['thread_id']}", style="dim"))
