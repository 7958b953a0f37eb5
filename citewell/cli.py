"""Where the `citewell` command begins."""

from __future__ import annotations

from citewell.loading import loading


def main() -> None:
    """Entry point of the `citewell` command."""
    with loading():
        from citewell.terminal import app  # within it: this loads much of what stays

        app()
