"""How every command line is made."""

from __future__ import annotations

from typing import Any

import typer


def command_line(**options: Any) -> typer.Typer:
    """One that explains itself to `-h` too, and leaves a fault's traceback to Python.

    Args:
        options: More of `typer.Typer`'s.
    """
    return typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )  # fmt: skip
