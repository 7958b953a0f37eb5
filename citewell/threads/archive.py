"""Exports conversations to a file, one JSON object per line (`Line`), and deletes them, where asked, once they are on disk.

The file appears when it is complete, and never replaces another.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from langchain_core.messages import AnyMessage
from langgraph.checkpoint.base import CheckpointTuple
from typing_extensions import TypedDict

from citewell.errors import InvalidRequest, ThreadBusy, TornThread
from citewell.feedback import FeedbackStore, Row
from citewell.identity import given_id
from citewell.threads import ThreadInfo, Threads
from citewell.threads.history import said

FORMAT: Final = 1
"""Incremented with every change that readers of the previous format would misread."""

Progress = Callable[[str, int, int], None]
"""Called with (`export` or `delete`, conversations done, conversations in all)."""


class Line(TypedDict):
    """One conversation."""

    format: int
    thread_id: str
    """As its caller knows it."""
    owner: str
    """The caller; empty for a thread that was never entered in a list."""
    title: str
    created: str
    """ISO 8601, UTC; so is every moment here."""
    updated: str
    summary: str
    """Running summary of the first `summarized` messages."""
    summarized: int
    messages: list[dict[str, Any]]
    """`role` (`user`, `assistant`), `content`, `created_at`, and of an answer `citations` and `metadata`."""
    ratings: list[dict[str, Any]]
    """Ratings of answers: `message` is the position among `messages`, from 0; the rest as in `citewell.feedback.Row`."""


class Exported(NamedTuple):
    """What a line was made from, to see whether it has changed since."""

    checkpoint: str | None
    ratings: list[Row]


@dataclass(slots=True)
class Outcome:
    """What became of an export."""

    exported: int = 0
    deleted: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    """Conversations that are in the file but were not deleted -> why: `busy` or `changed`."""
    torn: list[str] = field(default_factory=list)
    """Conversations that are not in the file because part of them is gone."""


async def export(
    threads: Threads, feedback: FeedbackStore, path: Path, *, until: datetime, needs_review: bool = False,
    delete: bool = False, progress: Progress = lambda *_: None,
) -> Outcome:  # fmt: skip
    """Write conversations to a file.

    To be read here does not restart their time to live. Old checkpoints are not written.

    Args:
        threads: Where they are.
        feedback: Where their ratings are.
        path: The file to make.
        until: Only conversations last used at this moment or before.
        needs_review: Only those with an answer that is marked for review.
        delete: Once the file is on disk, delete each conversation in it that has not changed since, with its ratings.
        progress: Called with how far it is.

    Raises:
        InvalidRequest: The file exists, or cannot be written; then nothing is deleted.
        CheckpointError: The store cannot be read; the file exists if that happened during deletion.
    """
    outcome = Outcome()
    written: dict[str, Exported] = {}
    chosen = [info async for info in threads.walk() if info.updated <= until]
    with _Draft(path) as draft:
        for done, info in enumerate(chosen, 1):
            progress("export", done - 1, len(chosen))
            try:
                found = await threads.peek(info.thread_id)
            except TornThread:
                outcome.torn.append(info.thread_id)
                continue
            if needs_review and not _needs_review(found):
                continue
            if found is not None or await threads.info(info.thread_id) is not None:  # else it has expired
                ratings = await feedback.of_thread(info.thread_id)
                draft.add(_line(info, found, ratings))
                written[info.thread_id] = Exported(_checkpoint(found), ratings)
        draft.publish()
    progress("export", len(chosen), len(chosen))
    outcome.exported = len(written)
    if delete:
        for done, (thread_id, mark) in enumerate(written.items(), 1):
            if (why := await _delete(threads, feedback, thread_id, mark)) is None:
                outcome.deleted += 1
            else:
                outcome.kept[thread_id] = why
            progress("delete", done, len(written))
    return outcome


async def _delete(threads: Threads, feedback: FeedbackStore, thread_id: str, mark: Exported) -> str | None:
    """Delete a conversation that has not changed since it was written; otherwise return why not."""
    try:
        async with threads.turn(thread_id, "reject"):  # so that nobody continues it in between
            found = await threads.peek(thread_id)
            if Exported(_checkpoint(found), await feedback.of_thread(thread_id)) != mark:
                return "changed"
            await threads.delete(thread_id)
            if threads.journal is not None:
                await threads.journal.drop(thread_id)
            await feedback.forget(thread_id)
    except ThreadBusy:
        return "busy"
    return None


def _needs_review(found: CheckpointTuple | None) -> bool:
    messages = found.checkpoint["channel_values"].get("messages", []) if found else []
    return any(message.additional_kwargs.get("metadata", {}).get("needs_review") for message in messages)


def _line(info: ThreadInfo, found: CheckpointTuple | None, ratings: Sequence[Row]) -> Line:
    values: dict[str, Any] = found.checkpoint["channel_values"] if found else {}
    return Line(
        format=FORMAT, thread_id=given_id(info.thread_id), owner=info.owner, title=info.title,
        created=info.created.isoformat(timespec="milliseconds"), updated=info.updated.isoformat(timespec="milliseconds"),
        summary=values.get("summary", ""), summarized=values.get("summarized", 0),
        messages=[_message(message) for message in values.get("messages", [])],
        ratings=[{key: value for key, value in row.items() if key not in ("thread_id", "caller")} for row in ratings],
    )  # fmt: skip


def _message(message: AnyMessage) -> dict[str, Any]:
    about = said(message)
    if about["role"] == "user":
        return {key: about[key] for key in ("role", "content", "created_at")}
    return {**about}


def _checkpoint(found: CheckpointTuple | None) -> str | None:
    return found.checkpoint["id"] if found else None


class _Draft:
    """A file being written, readable by its owner alone. `publish` gives it its name; without that it leaves nothing behind."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Draft:
        if self._path.exists():
            raise self._exists()
        try:
            file, self._name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        except OSError as exc:
            raise self._failed(exc) from exc
        self._file = os.fdopen(file, "wb")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk says so once more
            self._file.close()
        Path(self._name).unlink()

    def add(self, line: Line) -> None:
        try:
            self._file.write(json.dumps(line, default=str).encode() + b"\n")
        except OSError as exc:
            raise self._failed(exc) from exc

    def publish(self) -> None:
        """Put the file under its name, on disk. Until the block ends it has both names."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            os.link(self._name, self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError:
            raise self._exists() from None
        except OSError as exc:
            raise self._failed(exc) from exc

    def _exists(self) -> InvalidRequest:
        return InvalidRequest(f"{self._path} exists, and no archive is written over; give another name.")

    def _failed(self, exc: OSError) -> InvalidRequest:
        return InvalidRequest(f"{self._path} cannot be written: {exc.strerror}.")
