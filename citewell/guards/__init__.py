"""Guards: what may go in, what may be used, what may come out. A guard that cannot decide blocks.

`checks.Guards` are those of a turn; ingestion needs only `injection.open_scanner`, and nothing is imported here, so that it
does not wait for the others.
"""
