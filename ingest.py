"""Front door of ingestion: `python ingest.py PATH...`."""

from citewell.ingestion.command import main

if __name__ == "__main__":
    main()
