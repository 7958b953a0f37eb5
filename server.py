"""Front door: the service."""

import typer

from citewell.cli import serve
from citewell.garbage import seldom_collected

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)
app.command()(serve)


def main() -> None:
    """Entry point of the `citewell-server` command."""
    with seldom_collected():
        app()


if __name__ == "__main__":
    main()
