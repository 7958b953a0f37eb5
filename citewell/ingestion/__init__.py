"""Files in, chunks out. `sync.ingest` brings an index up to date, `upload.ingest_upload` takes one document.

Nothing is imported here: the worker process starts through this package and must start fast.
"""
