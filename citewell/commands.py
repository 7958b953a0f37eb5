"""What all command lines have in common."""

from __future__ import annotations

from typing import Any

import typer


def command_line(**options: Any) -> typer.Typer:
    """A Typer app that takes `-h` as well as `--help` and leaves tracebacks to Python.

    Args:
        options: Further options of `typer.Typer`.
    """
    return typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )  # fmt: skip
