"""Where `ingest.py` begins: `python -m citewell.ingestion PATH...` is the same."""

from __future__ import annotations

import gc

GC_AFTER = 100_000
"""Objects made before the interpreter looks for garbage. Packages are half a million that stay: to look through them again and
again took .2 of the 1.4 s in which Chroma and LangChain's part of it load, and once more .2 s on the way out."""


def main() -> None:
    gc.set_threshold(GC_AFTER)
    from citewell.ingestion.command import app  # after that: it loads much of what stays

    try:
        app()
    finally:
        gc.freeze()  # or the interpreter, on its way out, looks through all of it once more


if __name__ == "__main__":
    main()
