"""Guards judge questions, retrieved chunks and answers. A guard that cannot decide blocks.

`checks.Guards` has those of a turn. Ingestion needs only `injection.open_scanner`; nothing is imported here, so that it does
not wait for the others.
"""
