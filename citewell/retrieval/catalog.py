"""The catalog: the index's single source of truth, in one SQLite file.

It holds the sources with their extracted text, the chunks, and where each chunk's token vectors lie. A chunk gets a `key`, a number
that is never used twice. The vector store, the keyword index and the token file are filled under that key *before* the catalog
commits and emptied *after*; for a reader, a key that is not in the catalog does not exist. So one SQLite commit makes a source appear
whole, and what a killed writer left behind stays invisible until the next writer finds it in the tables `reserved` and `garbage` and
removes it.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, LifoQueue

from citewell.documents import Source
from citewell.retrieval.filters import access_set
from citewell.retrieval.snapshot import Entry, Snapshot
from citewell.retrieval.tokens import Room

SCHEMA_VERSION = 3
"""Part of an index's fingerprint: to change it requires a rebuild."""

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
CREATE TABLE verdicts (key INTEGER PRIMARY KEY, guard TEXT NOT NULL, score REAL NOT NULL);
CREATE TABLE reserved (first INTEGER PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE garbage (key INTEGER PRIMARY KEY);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """One source's new state, ready to become visible."""

    source: Source
    text: str
    page_starts: Sequence[int]
    entries: Sequence[Entry]


class Catalog:
    """Blocking; call it from threads. Any number of readers, one writer (which the index's lock ensures)."""

    def __init__(self, path: Path) -> None:
        """Open a catalog that `Catalog.create` made."""
        self._path = path
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()

    @classmethod
    def create(cls, path: Path, fingerprint: Mapping[str, object]) -> Catalog:
        """Make an empty catalog in one transaction, so that nothing can be read of one that was left unfinished."""
        counters = dict.fromkeys(("revision", "cleanings", "token_end", "chunks"), 0)
        values = {"fingerprint": json.dumps(fingerprint), "next_key": 1, **counters}
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN;{_SCHEMA}")
            connection.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
            connection.execute("COMMIT")
        return cls(path)

    def close(self) -> None:
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """The catalog as it is now; inside the block nothing of it changes."""
        snapshot = self.take()
        try:
            yield snapshot
        finally:
            self.give_back(snapshot)

    @contextmanager
    def glance(self) -> Iterator[Snapshot]:
        """The catalog for a single statement, which needs no transaction to see one state."""
        connection = self._connection()
        try:
            yield Snapshot(connection)
        finally:
            self._idle.put(connection)

    def take(self) -> Snapshot:
        """Like `reading`, for callers that cannot use a block: they must `give_back` what this returns."""
        connection = self._connection()
        connection.execute("BEGIN")
        snapshot = Snapshot(connection)
        snapshot.revision()  # SQLite takes the snapshot at the first read
        return snapshot

    def give_back(self, snapshot: Snapshot) -> None:
        snapshot.end()
        self._idle.put(snapshot.connection)

    # --- writing --------------------------------------------------------------------------------

    def room(self) -> Room:
        """Where token vectors may be written now."""
        with self._transaction() as connection:
            # Made here and not with the tables, so that indexes get it that were built before there was one.
            connection.execute("CREATE INDEX IF NOT EXISTS chunks_by_place ON chunks (token_start, token_bytes)")
            snapshot = Snapshot(connection)
            return Room(snapshot.token_gaps(), snapshot.token_end())

    def reserve(self, count: int) -> int:
        """Take `count` new keys and record them, so that whatever is stored under them can be found again. Returns the first."""
        with self._transaction(lasting=True) as connection:
            first = Snapshot(connection).next_key()
            connection.execute("UPDATE meta SET value = ? WHERE name = 'next_key'", (first + count,))
            connection.execute("INSERT INTO reserved VALUES (?, ?)", (first, count))
        return first

    def replace(self, replacements: Sequence[Replacement], *, token_end: int, first_key: int | None) -> list[int]:
        """Make the new states visible, all in one commit.

        Args:
            replacements: Each replaces whatever is there under its source's uri.
            token_end: How many bytes of the token file are in use from now on.
            first_key: What `reserve` returned; None where no key was needed.

        Returns:
            The keys that nothing refers to any more. They stay in `garbage` until `forget`.
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
        """Make sources disappear, all in one commit. Returns the keys that nothing refers to any more."""
        with self._transaction() as connection:
            stale = [key for uri in uris for key in self._drop(connection, uri)]
            self._publish(connection, stale, added=0, token_end=Snapshot(connection).token_end())
        return stale

    def judge(self, guard: str, scores: Mapping[int, float]) -> None:
        """Keep a guard's scores of chunks, by key; those of chunks that are gone are dropped.

        This makes no new revision: a search that finds such a chunk would come to the same verdict.
        """
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO verdicts SELECT key, ?, ? FROM chunks WHERE key = ?",
                ((guard, score, key) for key, score in scores.items()),
            )

    def begin_cleaning(self) -> list[int]:
        """Record that the stores are about to be emptied of leftovers, if there are any. Returns their keys.

        A reader with an older snapshot may miss what is removed; it can tell by `Snapshot.cleanings`.
        """
        with self._transaction(lasting=True) as connection:
            leftovers = Snapshot(connection).leftovers()
            if leftovers:
                connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'cleanings'")
            return leftovers

    def forget(self, keys: Sequence[int]) -> None:
        """Delete the record of keys under which the stores hold nothing any more, and the removed text from SQLite's log."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM garbage WHERE key = ?", ((key,) for key in keys))
            connection.executemany("DELETE FROM reserved WHERE first = ?", ((key,) for key in keys))
        with self.glance() as now:  # SQLite's log ends by itself only when no process has the file open
            now.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _drop(self, connection: sqlite3.Connection, uri: str) -> list[int]:
        row = connection.execute("SELECT number FROM sources WHERE uri = ?", (uri,)).fetchone()
        if row is None:
            return []
        stale = [key for (key,) in connection.execute("SELECT key FROM chunks WHERE source = ?", row)]
        connection.executemany("DELETE FROM verdicts WHERE key = ?", ((key,) for key in stale))
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
        try:
            return self._idle.get_nowait()
        except Empty:
            # A connection is used by one thread at a time, but not always by the same one.
            opened = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            opened.execute("PRAGMA secure_delete = ON")
            opened.execute("PRAGMA mmap_size = 268435456")
            return opened

    @contextmanager
    def _transaction(self, *, lasting: bool = False) -> Iterator[sqlite3.Connection]:
        """Commits at the end of the block. A power cut may undo the last commits, but no `lasting` one and none before it; such a one stands
        before anything that an older state needs is overwritten or deleted."""
        connection = self._connection()
        try:
            connection.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            self._idle.put(connection)
