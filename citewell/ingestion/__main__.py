"""Where `ingest.py` begins: `python -m citewell.ingestion PATH...` is the same."""

from __future__ import annotations

from citewell.loading import loading


def main() -> None:
    with loading():
        from citewell.ingestion.command import app  # within it: this loads much of what stays

        app()


if __name__ == "__main__":
    main()
