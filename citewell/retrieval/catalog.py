"""The catalog: what the index knows, in one SQLite file, and the point of truth for all of it.

Sources with their extracted text, chunks, and where each chunk's token vectors lie. A chunk gets a `key`, a number
never used twice. The vector store, the keyword index and the token file are filled under that key *before* the
catalog commits and emptied *after*; a key the catalog does not hold does not exist for a reader. So one SQLite
commit makes a source appear whole, and whatever a killed writer left behind is invisible until the next writer,
which finds it in the `reserved` and `garbage` tables, removes it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from citewell.documents import Chunk, Source
from citewell.errors import SourceNotFound
from citewell.retrieval.filters import access_set

SCHEMA_VERSION = 1
"""Part of an index's fingerprint: a change here asks for a rebuild."""

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE sources (
    number INTEGER PRIMARY KEY, uri TEXT UNIQUE NOT NULL, title TEXT NOT NULL, type TEXT NOT NULL,
    sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL, date TEXT, tags TEXT NOT NULL, access TEXT NOT NULL,
    access_set TEXT NOT NULL, pages INTEGER, page_starts TEXT NOT NULL, text BLOB NOT NULL);
CREATE INDEX sources_by_access ON sources (access_set);
CREATE TABLE chunks (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL, source INTEGER NOT NULL, position INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, page INTEGER, headings TEXT NOT NULL, text TEXT NOT NULL,
    digest BLOB NOT NULL, token_start INTEGER NOT NULL, token_bytes INTEGER NOT NULL);
CREATE INDEX chunks_by_id ON chunks (id);
CREATE INDEX chunks_by_source ON chunks (source, position);
CREATE INDEX chunks_by_digest ON chunks (digest);
CREATE TABLE reserved (first INTEGER PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE garbage (key INTEGER PRIMARY KEY);
"""

_CHUNK = """SELECT chunks.key, chunks.id, sources.uri, sources.title, chunks.text, chunks.start, chunks."end",
    chunks.position, chunks.page, chunks.headings, sources.type, sources.date, sources.tags, sources.access,
    chunks.digest, chunks.token_start, chunks.token_bytes
    FROM chunks JOIN sources ON sources.number = chunks.source """

_SOURCE = "SELECT uri, title, type, sha256, size_bytes, date, tags, access, pages FROM sources "


@dataclass(frozen=True, slots=True)
class Entry:
    """A chunk as the catalog holds it."""

    key: int
    chunk: Chunk
    digest: bytes
    """Of the text with its white space evened out: equal for duplicates."""
    token_start: int
    """Offset in the token file, in bytes."""
    token_bytes: int
    """0 where the embedding model gives no token vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """One source's new state, ready to become visible."""

    source: Source
    text: str
    page_starts: Sequence[int]
    entries: Sequence[Entry]


def digest(text: str) -> bytes:
    """What two chunks that hold the same text have in common: 8 bytes, white space not counted."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=8).digest()


class Catalog:
    """Blocking; call it from a thread. Any number of readers, one writer (which the writer's lock ensures)."""

    def __init__(self, path: Path) -> None:
        """Open a catalog that `Catalog.create` made."""
        self._path = path
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path, fingerprint: Mapping[str, object]) -> Catalog:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA)
        values = {"fingerprint": json.dumps(fingerprint), "revision": 0, "next_key": 1, "token_end": 0, "chunks": 0}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
        connection.commit()
        connection.close()
        return cls(path)

    def close(self) -> None:
        with self._lock:
            for connection in self._opened:
                connection.close()
            self._opened.clear()

    # --- reading --------------------------------------------------------------------------------

    def fingerprint(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(str(self._meta("fingerprint")))
        return found

    def revision(self) -> int:
        """Goes up by one with every change that readers can see."""
        return int(str(self._meta("revision")))

    def token_end(self) -> int:
        """Bytes of the token file that are spoken for; what lies behind may be overwritten."""
        return int(str(self._meta("token_end")))

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Everything this thread reads inside the block is of one revision."""
        connection = self._connection()
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    def entries(self, keys: Iterable[int]) -> tuple[int, dict[int, Entry]]:
        """The revision, and those of the keys that exist in it."""
        wanted = list(keys)
        with self.snapshot() as connection:
            return self.revision(), {
                row[0]: _entry(row) for row in _in(connection, _CHUNK + "WHERE chunks.key IN", wanted)
            }

    def entries_by_id(self, ids: Sequence[str]) -> dict[str, Entry]:
        found = (_entry(row) for row in _in(self._connection(), _CHUNK + "WHERE chunks.id IN", ids))
        return {entry.chunk.id: entry for entry in found}

    def neighbours(self, source: str, first: int, last: int) -> list[Entry]:
        """Chunks of a source from position `first` to `last`, in order."""
        sql = _CHUNK + "WHERE sources.uri = ? AND chunks.position BETWEEN ? AND ? ORDER BY chunks.position"
        return [_entry(row) for row in self._connection().execute(sql, (source, first, last))]

    def holders(self, digests: Iterable[bytes]) -> dict[bytes, list[tuple[str, tuple[str, ...]]]]:
        """By digest, the sources that hold such a chunk, each with its access labels, in order of uri."""
        sql = """SELECT DISTINCT chunks.digest, sources.uri, sources.access
            FROM chunks JOIN sources ON sources.number = chunks.source WHERE chunks.digest IN"""
        found: dict[bytes, list[tuple[str, tuple[str, ...]]]] = {}
        for mark, uri, access in sorted(_in(self._connection(), sql, list(digests))):
            found.setdefault(mark, []).append((uri, _words(access)))
        return found

    def access_sets(self) -> list[str]:
        """Every combination of access labels that some source has, as `filters.access_set` writes it."""
        # Steps from one distinct value to the next through the index instead of reading all sources.
        sql = """WITH RECURSIVE step(value) AS (SELECT min(access_set) FROM sources UNION ALL
            SELECT (SELECT min(access_set) FROM sources WHERE access_set > value) FROM step WHERE value IS NOT NULL)
            SELECT value FROM step WHERE value IS NOT NULL"""
        return [row[0] for row in self._connection().execute(sql)]

    def source(self, uri: str) -> Source:
        row = self._connection().execute(_SOURCE + "WHERE uri = ?", (uri,)).fetchone()
        if row is None:
            raise SourceNotFound(f"No source is called {uri!r}.")
        return _source(row)

    def sources(self) -> list[Source]:
        return [_source(row) for row in self._connection().execute(_SOURCE + "ORDER BY uri")]

    def text(self, uri: str) -> tuple[str, tuple[int, ...]]:
        """A source's extracted text and the offsets at which its pages start."""
        row = self._connection().execute("SELECT text, page_starts FROM sources WHERE uri = ?", (uri,)).fetchone()
        if row is None:
            raise SourceNotFound(f"No source is called {uri!r}.")
        return zlib.decompress(row[0]).decode("utf-8", "surrogatepass"), tuple(json.loads(row[1]))

    def counts(self) -> tuple[int, int]:
        """Sources and chunks."""
        (sources,) = self._connection().execute("SELECT count(*) FROM sources").fetchone()
        return sources, int(str(self._meta("chunks")))

    # --- writing --------------------------------------------------------------------------------

    def reserve(self, count: int) -> int:
        """Take `count` new keys, on record, so that whatever is stored under them can be found again."""
        with self._transaction() as connection:
            first = int(str(self._meta("next_key")))
            connection.execute("UPDATE meta SET value = ? WHERE name = 'next_key'", (first + count,))
            connection.execute("INSERT INTO reserved VALUES (?, ?)", (first, count))
        return first

    def replace(self, replacements: Sequence[Replacement], *, token_end: int, first_key: int | None) -> list[int]:
        """Make the new states visible, all in one commit.

        Args:
            replacements: Each takes the place of what its source's uri held.
            token_end: How many bytes of the token file are spoken for from now on.
            first_key: What `reserve` returned; None where no key was needed.

        Returns:
            The keys that nothing refers to any more. They stand in `garbage` until `forget`.
        """
        with self._transaction() as connection:
            stale = [key for each in replacements for key in self._drop(connection, each.source.uri)]
            for each in replacements:
                self._insert(connection, each)
            added = sum(len(each.entries) for each in replacements)
            self._publish(connection, stale, added=added, token_end=token_end)
            if first_key is not None:
                connection.execute("DELETE FROM reserved WHERE first = ?", (first_key,))
        return stale

    def remove(self, uris: Sequence[str]) -> list[int]:
        """Make sources disappear, all in one commit; returns the keys that nothing refers to any more."""
        with self._transaction() as connection:
            stale = [key for uri in uris for key in self._drop(connection, uri)]
            self._publish(connection, stale, added=0, token_end=self.token_end())
        return stale

    def leftovers(self) -> list[int]:
        """Keys under which something may still be stored although no reader can see it."""
        connection = self._connection()
        keys = {row[0] for row in connection.execute("SELECT key FROM garbage")}
        for first, count in connection.execute("SELECT first, count FROM reserved"):
            keys.update(range(first, first + count))
        return sorted(keys)

    def forget(self, keys: Sequence[int]) -> None:
        """Take keys off the record: the stores hold nothing under them any more."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM garbage WHERE key = ?", ((key,) for key in keys))
            connection.executemany("DELETE FROM reserved WHERE first = ?", ((key,) for key in keys))

    def _drop(self, connection: sqlite3.Connection, uri: str) -> list[int]:
        row = connection.execute("SELECT number FROM sources WHERE uri = ?", (uri,)).fetchone()
        if row is None:
            return []
        stale = [key for (key,) in connection.execute("SELECT key FROM chunks WHERE source = ?", row)]
        connection.execute("DELETE FROM chunks WHERE source = ?", row)
        connection.execute("DELETE FROM sources WHERE number = ?", row)
        return stale

    def _insert(self, connection: sqlite3.Connection, new: Replacement) -> None:
        source = new.source
        number = connection.execute(
            """INSERT INTO sources (uri, title, type, sha256, size_bytes, date, tags, access, access_set, pages,
                page_starts, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (source.uri, source.title, source.type, source.sha256, source.size_bytes, source.date,
             json.dumps(source.tags), json.dumps(source.access), access_set(source.access), source.pages,
             json.dumps(list(new.page_starts)), zlib.compress(new.text.encode("utf-8", "surrogatepass"), 1)),
        ).lastrowid  # fmt: skip
        connection.executemany(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((entry.key, entry.chunk.id, number, entry.chunk.index, entry.chunk.start, entry.chunk.end,
              entry.chunk.page, json.dumps(entry.chunk.headings), entry.chunk.text, entry.digest,
              entry.token_start, entry.token_bytes) for entry in new.entries),
        )  # fmt: skip

    def _publish(self, connection: sqlite3.Connection, stale: Sequence[int], *, added: int, token_end: int) -> None:
        connection.executemany("INSERT INTO garbage VALUES (?)", ((key,) for key in stale))
        connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'revision'")
        connection.execute("UPDATE meta SET value = value + ? WHERE name = 'chunks'", (added - len(stale),))
        connection.execute("UPDATE meta SET value = ? WHERE name = 'token_end'", (token_end,))

    # --- connections ----------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        """This thread's own connection, opened on first use."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            found.execute("PRAGMA synchronous = NORMAL")  # with WAL: no corruption, only a late commit may be undone
            found.execute("PRAGMA mmap_size = 268435456")
            with self._lock:
                self._opened.append(found)
            self._local.connection = found
        return found

    def _meta(self, name: str) -> object:
        return self._connection().execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _in(connection: sqlite3.Connection, sql: str, values: Sequence[object]) -> Iterator[tuple]:  # type: ignore[type-arg]  # rows of several shapes
    for start in range(0, len(values), 500):  # SQLite's bound on parameters was 999 for long
        some = values[start : start + 500]
        yield from connection.execute(f"{sql} ({','.join('?' * len(some))})", some)


def _entry(row: tuple) -> Entry:  # type: ignore[type-arg]  # a row of _CHUNK
    (key, id_, uri, title, text, start, end, position, page, headings, type_, date, tags, access, mark, first, count) = row
    chunk = Chunk(
        id=id_, source=uri, title=title, text=text, start=start, end=end, index=position, page=page,
        headings=_words(headings), type=type_, date=date, tags=_words(tags), access=_words(access),
    )  # fmt: skip
    return Entry(key, chunk, mark, first, count)


def _source(row: tuple) -> Source:  # type: ignore[type-arg]  # a row of _SOURCE
    uri, title, type_, sha256, size, date, tags, access, pages = row
    return Source(
        uri=uri, title=title, type=type_, sha256=sha256, size_bytes=size, date=date,
        tags=_words(tags), access=_words(access), pages=pages,
    )  # fmt: skip


@lru_cache(4096)
def _words(listed: str) -> tuple[str, ...]:
    """A JSON list of strings; the same few stand in most rows."""
    return tuple(json.loads(listed))
