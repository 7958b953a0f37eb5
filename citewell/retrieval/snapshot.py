"""The catalog as it was at one moment, for reading."""

from __future__ import annotations

import codecs
import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import orjson

from citewell.documents import Chunk, Source
from citewell.errors import SourceNotFound

_CHUNK = """chunks.key, chunks.id, sources.uri, sources.title, chunks.text, chunks.start, chunks."end",
    chunks.position, chunks.page, chunks.headings, sources.type, sources.date, sources.tags, sources.access,
    hex(chunks.digest), chunks.token_start, chunks.token_bytes"""
_OF_SOURCES = "FROM chunks JOIN sources ON sources.number = chunks.source "

_PACKED_BYTES = 4096
"""Bytes of a packed text that are unpacked in one go, to a thousand times as many at most."""

_SOURCE = "SELECT uri, title, type, sha256, size_bytes, date, tags, access, pages FROM sources "


@dataclass(frozen=True, slots=True)
class Entry:
    """A chunk as the catalog holds it."""

    key: int
    chunk: Chunk
    digest: bytes
    """See `digest`."""
    token_start: int
    """Offset in the token file, in bytes."""
    token_bytes: int
    """0 where the embedding model gives no token vectors."""


def digest(text: str) -> bytes:
    """8 bytes that are equal for two texts that differ in white space only."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=8).digest()


class Snapshot:
    """What one SQLite read transaction sees. Blocking; for one thread at a time. Made by `Catalog`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._values: dict[str, object] | None = None

    def end(self) -> None:
        self.connection.execute("COMMIT")

    def fingerprint(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(str(self._meta("fingerprint")))
        return found

    def revision(self) -> int:
        """Goes up by one with every change that readers can see."""
        return int(str(self._meta("revision")))

    def token_end(self) -> int:
        """Bytes of the token file that have ever been in use."""
        return int(str(self._meta("token_end")))

    def token_gaps(self) -> list[tuple[int, int]]:
        """(length, start) of the stretches before `token_end` that no chunk owns, in bytes."""
        owned = "SELECT token_start, token_bytes FROM chunks WHERE token_bytes > 0 ORDER BY token_start"
        gaps, end = [], 0
        for start, length in [*self.connection.execute(owned), (self.token_end(), 0)]:
            if start > end:
                gaps.append((start - end, end))
            end = start + length
        return gaps

    def cleanings(self) -> int:
        """How often a writer has begun to empty the stores of what no reader can see."""
        return int(str(self._meta("cleanings")))

    def next_key(self) -> int:
        return int(str(self._meta("next_key")))

    def entries(self, keys: Iterable[int]) -> dict[int, Entry]:
        """The entries by key; keys that do not exist are left out."""
        rows = _all(self.connection, _CHUNK, _OF_SOURCES + "WHERE chunks.key IN", list(keys))
        return {row[0]: _entry(row) for row in rows}

    def entries_by_id(self, ids: Sequence[str]) -> dict[str, Entry]:
        found = map(_entry, _all(self.connection, _CHUNK, _OF_SOURCES + "WHERE chunks.id IN", ids))
        return {entry.chunk.id: entry for entry in found}

    def token_spans(self, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """By chunk id, where its token vectors are in the token file: offset and length, in bytes. Chunks without any are left out."""
        rows = _all(self.connection, "id, token_start, token_bytes", "FROM chunks WHERE token_bytes > 0 AND id IN", ids)
        return {id_: (start, length) for id_, start, length in rows}

    def verdicts(self, ids: Sequence[str], guard: str) -> dict[str, float]:
        """By chunk id, the score that this guard gave; chunks that it has not judged are left out."""
        verdict = "chunks.id, verdicts.score, verdicts.guard"
        where = "FROM chunks JOIN verdicts ON verdicts.key = chunks.key WHERE chunks.id IN"
        return {id_: score for id_, score, by in _all(self.connection, verdict, where, ids) if by == guard}

    def around(self, ids: Sequence[str], reach: int) -> list[tuple[Entry, str | None, float | None]]:
        """These chunks, and up to `reach` before and after each in its source, each with the guard that judged it last and the score."""
        where = f"""FROM chunks AS kept JOIN chunks ON chunks.source = kept.source
            AND chunks.position BETWEEN kept.position - {reach} AND kept.position + {reach}
            JOIN sources ON sources.number = chunks.source LEFT JOIN verdicts ON verdicts.key = chunks.key
            WHERE kept.id IN"""
        rows = _all(self.connection, f"{_CHUNK}, verdicts.guard, verdicts.score", where, ids)
        return [(_entry(row[:-2]), row[-2], row[-1]) for row in rows]

    def unjudged(self, guard: str, *, sources: Sequence[str] | None, after: int, limit: int) -> dict[int, str]:
        """By key, in order, the texts of chunks that this guard has not judged: of these sources (None: of all), with keys above
        `after`, at most `limit`."""
        sql = """SELECT chunks.key, chunks.text FROM chunks
            LEFT JOIN verdicts ON verdicts.key = chunks.key AND verdicts.guard = ?
            WHERE verdicts.key IS NULL AND chunks.key > ?"""
        values: list[object] = [guard, after]
        if sources is not None:
            sql += " AND chunks.source IN (SELECT number FROM sources WHERE uri IN (SELECT value FROM json_each(?)))"
            values.append(json.dumps(list(sources)))
        return dict(self.connection.execute(f"{sql} ORDER BY chunks.key LIMIT {limit}", values))

    def holders(self, digests: Iterable[bytes]) -> dict[bytes, list[tuple[str, tuple[str, ...]]]]:
        """By digest, the sources that hold such a chunk, ordered by uri, each with its access labels."""
        where = _OF_SOURCES + "WHERE chunks.digest IN"
        rows = _all(self.connection, "hex(chunks.digest), sources.uri, sources.access", where, list(digests))
        found: dict[bytes, list[tuple[str, tuple[str, ...]]]] = {}
        for mark, uri, access in sorted(set(map(tuple, rows))):
            found.setdefault(bytes.fromhex(mark), []).append((uri, _words(access)))
        return found

    def access_sets(self) -> list[str]:
        """Every combination of access labels that some source has, as `filters.access_set` writes it."""
        # Steps from one distinct value to the next in the index, instead of reading all sources.
        sql = """WITH RECURSIVE step(value) AS (SELECT min(access_set) FROM sources UNION ALL
            SELECT (SELECT min(access_set) FROM sources WHERE access_set > value) FROM step WHERE value IS NOT NULL)
            SELECT value FROM step WHERE value IS NOT NULL"""
        return [row[0] for row in self.connection.execute(sql)]

    def source(self, uri: str) -> Source:
        row = self.connection.execute(_SOURCE + "WHERE uri = ?", (uri,)).fetchone()
        if row is None:
            raise SourceNotFound(f"No source is called {uri!r}.")
        return _source(row)

    def sources(self) -> list[Source]:
        return [_source(row) for row in self.connection.execute(_SOURCE + "ORDER BY uri")]

    def text(self, uri: str, start: int, end: int) -> str:
        """A stretch of a source's extracted text. No more than that is held: a few kilobytes may be unpacked to hundreds of megabytes
        of white space, and be asked for by many at once."""
        row = self.connection.execute("SELECT text FROM sources WHERE uri = ?", (uri,)).fetchone()
        if row is None:
            raise SourceNotFound(f"No source is called {uri!r}.")
        (packed,) = row
        unpacker, decoder = zlib.decompressobj(), codecs.getincrementaldecoder("utf-8")("surrogatepass")
        found: list[str] = []
        at = 0
        for first in range(0, len(packed), _PACKED_BYTES):
            piece = decoder.decode(unpacker.decompress(packed[first : first + _PACKED_BYTES]))
            found.append(piece[max(0, start - at) : max(0, end - at)])
            at += len(piece)
            if at >= end:
                break
        return "".join(found)

    def page_starts(self, uri: str) -> tuple[int, ...]:
        """The offsets at which a source's pages start; empty where it has none."""
        row = self.connection.execute("SELECT page_starts FROM sources WHERE uri = ?", (uri,)).fetchone()
        if row is None:
            raise SourceNotFound(f"No source is called {uri!r}.")
        return tuple(json.loads(row[0]))

    def counts(self) -> tuple[int, int]:
        """Sources and chunks."""
        (sources,) = self.connection.execute("SELECT count(*) FROM sources").fetchone()
        return sources, int(str(self._meta("chunks")))

    def leftovers(self) -> list[int]:
        """Keys under which something may still be stored although no reader can see it."""
        keys = {row[0] for row in self.connection.execute("SELECT key FROM garbage")}
        for first, count in self.connection.execute("SELECT first, count FROM reserved"):
            keys.update(range(first, first + count))
        return sorted(keys)

    def _meta(self, name: str) -> object:
        if self._values is None:
            (values,) = self.connection.execute("SELECT json_group_object(name, value) FROM meta").fetchone()
            self._values = orjson.loads(values)
        return self._values[name]


def _all(connection: sqlite3.Connection, columns: str, where: str, values: Sequence[object]) -> Iterator[list]:  # type: ignore[type-arg]  # rows of several shapes
    """The columns of all rows that `where`, which ends in IN, finds for the values.

    SQLite returns them as one JSON text: Python's module releases the interpreter's lock between two rows, and a thread of a busy
    service waits to get it back (16 clients, 170 rows a search: most of its 40 ms).
    """
    for start in range(0, len(values), 500):  # older SQLite takes 999 parameters
        some = values[start : start + 500]
        sql = f"SELECT json_group_array(json_array({columns})) {where} ({','.join('?' * len(some))})"
        yield from orjson.loads(connection.execute(sql, some).fetchone()[0])


def _entry(row: list) -> Entry:  # type: ignore[type-arg]  # a row of _CHUNK
    (
        key,
        id_,
        uri,
        title,
        text,
        start,
        end,
        position,
        page,
        headings,
        type_,
        date,
        tags,
        access,
        mark,
        first,
        count,
    ) = row
    chunk = Chunk(
        id=id_, source=uri, title=title, text=text, start=start, end=end, index=position, page=page,
        headings=_words(headings), type=type_, date=date, tags=_words(tags), access=_words(access),
    )  # fmt: skip
    return Entry(key, chunk, bytes.fromhex(mark), first, count)


def _source(row: tuple) -> Source:  # type: ignore[type-arg]  # a row of _SOURCE
    uri, title, type_, sha256, size, date, tags, access, pages = row
    return Source(
        uri=uri, title=title, type=type_, sha256=sha256, size_bytes=size, date=date,
        tags=_words(tags), access=_words(access), pages=pages,
    )  # fmt: skip


@lru_cache(4096)
def _words(listed: str) -> tuple[str, ...]:
    """A JSON list of strings, cached: most rows have the same few."""
    return tuple(json.loads(listed))
