"""`python -m citewell.ui`: start the chat page over a running service.

Where the service is, and with which key it is called, are settings: CITEWELL_UI_... in the environment or .env.
Options are Streamlit's: --server.port=8501, for example; `streamlit run --help` lists them all.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from citewell.errors import ConfigurationError, MissingExtra
from citewell.settings import Settings

OPTIONS = (
    "--server.address=127.0.0.1",  # Streamlit's own is every address, and whoever opens the page acts with its key
    "--browser.gatherUsageStats=false",
    "--client.toolbarMode=minimal",
    "--client.showErrorDetails=none",
    "--server.headless=true",
    "--server.fileWatcherType=none",
    "--theme.light.primaryColor=#0b5cad",
    "--theme.dark.primaryColor=#1f6feb",  # dark enough for white words on a button
)


def main(arguments: list[str]) -> None:
    """Hand over to Streamlit; further options are its own, as `--server.port=8501`, and of two the last one counts."""
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(str(__doc__))
        return
    if find_spec("streamlit") is None:
        missing = MissingExtra("ui", "The chat page")
        sys.exit(f"citewell.ui: {missing.detail}")
    try:
        Settings.load()  # now, and not when the first person opens the page
    except ConfigurationError as exc:
        sys.stderr.write(f"citewell.ui: {exc.detail}\n")
        sys.exit(2)
    page = Path(__file__).with_name("app.py")
    command = [sys.executable, "-m", "streamlit", "run", str(page), *OPTIONS, *arguments]
    os.execv(sys.executable, command)  # noqa: S606  # the same Python, arguments of our own


if __name__ == "__main__":
    main(sys.argv[1:])
