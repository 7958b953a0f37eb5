"""`python -m citewell.identity new --caller alice --access staff`: make an API key."""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from citewell.commands import command_line
from citewell.errors import CitewellError
from citewell.identity.keys import new_key

app = command_line(no_args_is_help=True)


@app.callback()
def about() -> None:
    """API keys."""


@app.command()
def new(
    caller: Annotated[str, typer.Option(help="Whose key it is: letters, digits and _.@+-")],
    access: Annotated[
        list[str] | None, typer.Option(help="An access label the caller holds; may be repeated. `*`: everything.")
    ] = None,
    expires: Annotated[str, typer.Option(help="Last day the key is good, as 2027-12-31 (UTC).")] = "",
    file: Annotated[Path | None, typer.Option(help="Append the line to this file instead of printing it.")] = None,
) -> None:
    """Print a fresh key, once, and the line to store in CITEWELL_API_KEYS_FILE. The line holds no secret."""
    try:
        last = date.fromisoformat(expires) if expires else None
    except ValueError:
        raise typer.BadParameter("not a date, as 2027-12-31", param_hint="--expires") from None
    key, entry = new_key(caller, tuple(access or ()), last)
    if file is not None:
        with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as lines:
            lines.write(entry.line() + "\n")
    print(key)
    if file is None:
        print(entry.line())


def main() -> None:
    try:
        app()
    except CitewellError as exc:
        print(f"citewell.identity: {exc.detail}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
