"""Front door of ingestion: `python ingest.py PATH...`."""

from citewell.ingestion.__main__ import main

if __name__ == "__main__":
    main()
