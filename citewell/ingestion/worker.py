"""The process that loads and splits files; `parser.py` starts it and talks to it.

Files may be broken or hostile. Here a library may crash, hang or use up memory without harm to the ingestion or the service.
Both sides send frames: 4 bytes of length, then JSON.
"""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from citewell.errors import IngestError, SourceUnreadable, SourceUnsupported
from citewell.ingestion.load import check_size, load
from citewell.ingestion.split import split

FRAME = struct.Struct("<I")
MOST_PASSAGES = 10_000
"""Passages that any document may have. A large one may have more: twice as many as text of the largest size that is read. Without this,
one of headings and single words makes a hundred times as many, each of which is embedded and held."""


def memory_bytes(max_bytes: int) -> int:
    """Largest address space of the process, for files of this size; a file that needs more is refused. A hostile one of a kilobyte can
    need any amount."""
    return min((3 << 29) + 24 * max_bytes, 6 << 30)


def main(most_memory_bytes: int) -> None:
    """Answer requests from standard input until it ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the frames
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us
    _limit_memory(most_memory_bytes)
    while head := requests.read(FRAME.size):
        request = orjson.loads(requests.read(FRAME.unpack(head)[0]))
        # The parent keeps the deadline. If it is killed, this timer ends the process, even in an endless loop of a library.
        signal.setitimer(signal.ITIMER_REAL, request.pop("timeout_s") + 1)
        answer = _answer(request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, answer)


def _answer(request: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(_parse(**request))
    except IngestError as exc:
        return orjson.dumps({"code": exc.code, "detail": exc.detail})
    except MemoryError:
        return orjson.dumps(
            {"code": SourceUnsupported.code, "detail": "reading the file takes more memory than allowed"}
        )
    except Exception as exc:  # noqa: BLE001  # one file must not end the run; the class is reported
        detail = f"the file cannot be read ({type(exc).__name__})"
        return orjson.dumps({"code": SourceUnreadable.code, "detail": detail})


def _parse(path: str, uri: str, chunk_size: int, chunk_overlap: int, max_bytes: int) -> dict[str, Any]:
    data, size, mtime_ns = _read(Path(path), max_bytes)
    # A refusal has these too, so that an unchanged file need not be read again to be refused.
    stat = {"size": size, "mtime_ns": mtime_ns, "sha256": hashlib.sha256(data).hexdigest()}
    try:
        document = load(data, Path(uri).name, max_bytes=max_bytes)
        chunks = split(document, uri, chunk_size=chunk_size, chunk_overlap=chunk_overlap)
        if len(chunks) > (most := max(MOST_PASSAGES, 2 * max_bytes // chunk_size)):
            raise SourceUnsupported(f"it makes {len(chunks):,} passages; at most {most:,} are kept of one document")
    except IngestError as exc:
        return {"code": exc.code, "detail": exc.detail, **stat}
    return {
        **stat,
        "text": document.text,
        "type": document.type,
        "title": document.title,
        "date": document.date,
        "tags": document.tags,
        "access": document.access,
        "page_starts": document.page_starts,
        "notes": document.notes,
        "chunks": [(chunk.id, chunk.start, chunk.end, chunk.page, chunk.headings) for chunk in chunks],
    }


def _read(path: Path, max_bytes: int) -> tuple[bytes, int, int]:
    try:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            check_size(stat.st_size, max_bytes)
            return file.read(), stat.st_size, stat.st_mtime_ns
    except FileNotFoundError as exc:
        raise SourceUnreadable("the file is gone") from exc
    except PermissionError as exc:
        raise SourceUnreadable("no permission to read the file") from exc
    except OSError as exc:
        raise SourceUnreadable(f"the file cannot be read ({os.strerror(exc.errno or 0)})") from exc


def _limit_memory(most: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _send(answers: BinaryIO, body: bytes) -> None:
    answers.write(FRAME.pack(len(body)) + body)
    answers.flush()
