"""Front door: the service."""

from citewell.loading import loading


def main() -> None:
    """Entry point of the `citewell-server` command."""
    with loading():
        from citewell.commands import command_line
        from citewell.terminal import serve

        app = command_line()
        app.command()(serve)
        app()


if __name__ == "__main__":
    main()
