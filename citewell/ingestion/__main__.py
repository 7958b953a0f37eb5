"""Where `ingest.py` begins: `python -m citewell.ingestion PATH...` is the same."""

from __future__ import annotations

from citewell.garbage import seldom_collected


def main() -> None:
    with seldom_collected():
        from citewell.ingestion.command import app  # within it: this loads much of what stays

        app()


if __name__ == "__main__":
    main()
