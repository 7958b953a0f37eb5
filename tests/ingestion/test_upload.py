import asyncio
import errno
import io
import os
import shutil
import threading
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from citewell.errors import InvalidRequest, SourceNotFound, SourceUnsupported, StoreError
from citewell.ingestion import upload as upload_module
from citewell.ingestion.sync import ingest
from citewell.ingestion.upload import Upload, ingest_upload, remove_upload, safe_name
from citewell.retrieval import Index
from citewell.settings import Settings
from tests.ingestion.conftest import MemoryIndex


async def test_an_upload_is_a_source_and_can_be_replaced(index: MemoryIndex, settings: Settings) -> None:
    first = await ingest_upload(index, settings, Upload("tides.md"), BytesIO(b"# Tides\n\nHigh water."))
    assert (first.uri, first.status, first.chunks) == ("uploads/tides.md", "new", 1)
    again = await ingest_upload(index, settings, Upload("C:\\papers\\tides.md"), BytesIO(b"# Tides\n\nLow water."))
    assert (again.uri, again.status) == ("uploads/tides.md", "changed")
    assert index.held["uploads/tides.md"].text == "# Tides\n\nLow water."
    assert index.held["uploads/tides.md"].source.title == "Tides"


async def test_an_upload_that_cannot_be_read_changes_nothing(index: MemoryIndex, settings: Settings) -> None:
    await ingest_upload(index, settings, Upload("tides.txt"), BytesIO(b"High water."))
    with pytest.raises(SourceUnsupported, match="empty"):
        await ingest_upload(index, settings, Upload("tides.txt"), BytesIO(b""))
    assert index.held["uploads/tides.txt"].text == "High water."
    assert [path.name for path in (settings.data_dir / "uploads").iterdir()] == ["tides.txt"]


async def test_an_upload_that_cannot_be_stored_changes_nothing(index: MemoryIndex, settings: Settings) -> None:
    uploads = settings.data_dir / "uploads"
    index.fail_at = "uploads/tides.txt"
    with pytest.raises(RuntimeError, match="the store is gone"):
        await ingest_upload(index, settings, Upload("tides.txt", access=["staff"]), BytesIO(b"High water."))
    assert list(uploads.iterdir()) == []
    index.fail_at = None
    await ingest_upload(index, settings, Upload("tides.txt", access=["staff"]), BytesIO(b"High water."))
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in uploads.iterdir()}
    index.fail_at = "uploads/tides.txt"
    with pytest.raises(RuntimeError, match="the store is gone"):
        await ingest_upload(index, settings, Upload("tides.txt", access=["guests"]), BytesIO(b"Low water."))
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in uploads.iterdir()} == before
    assert set(before) == {"tides.txt", "tides.txt.access"}


async def test_an_upload_for_which_the_earlier_one_cannot_be_kept_changes_nothing(
    index: MemoryIndex, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = settings.data_dir / "uploads"
    await ingest_upload(index, settings, Upload("tides.txt", access=["staff"]), BytesIO(b"High water."))
    copy = shutil.copy2

    def full(source: Path, to: Path) -> None:
        copy(source, to)
        if source.suffix == ".access":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(StoreError, match="No space"):
        await ingest_upload(index, settings, Upload("tides.txt"), BytesIO(b"Low water."))
    assert {path.name for path in uploads.iterdir()} == {"tides.txt", "tides.txt.access"}
    assert (uploads / "tides.txt").read_bytes() == b"High water."


async def test_uploads_survive_other_ingestions_and_rebuilds(
    index: MemoryIndex, settings: Settings, library: Path
) -> None:
    await ingest_upload(index, settings, Upload("tides.txt"), BytesIO(b"High water."))
    await ingest(index, [library], settings)
    assert "uploads/tides.txt" in index.held
    await ingest(index, [], settings, rebuild=True)
    assert len(index.held) == 4
    assert index.held["uploads/tides.txt"].text == "High water."


async def test_a_removed_upload_is_gone_with_its_file(index: MemoryIndex, settings: Settings) -> None:
    await ingest_upload(index, settings, Upload("tides.txt"), BytesIO(b"High water."))
    await remove_upload(index, settings, Upload("tides.txt"))
    assert index.held == {}
    assert list((settings.data_dir / "uploads").iterdir()) == []
    with pytest.raises(SourceNotFound):
        await remove_upload(index, settings, Upload("tides.txt"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden.txt",
        "a/..",
        "a\0.txt",
        "a\n.txt",
        "con|.txt",
        "\ud800.txt",
        "\u202etxt.fdp.md",
        "x" * 300 + ".txt",
        "a.exe",
        "a",
    ],
)
def test_names_that_are_no_good_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        safe_name(name)


def test_a_name_that_is_too_long_is_told_how_long_it_may_be() -> None:
    with pytest.raises(InvalidRequest, match="has 304 bytes; at most 200"):
        safe_name("x" * 300 + ".txt")


@pytest.mark.parametrize(
    ("name", "safe"), [("../../etc/a.txt", "a.txt"), ("/tmp/a.TXT", "a.TXT"), ("Ebbe & Flut.md", "Ebbe & Flut.md")]
)
def test_folders_in_names_are_dropped(name: str, safe: str) -> None:
    assert safe_name(name) == safe


async def test_an_upload_that_is_left_while_it_is_written_leaves_no_file(
    index: MemoryIndex, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, written = threading.Event(), threading.Event(), threading.Event()
    save = upload_module._save

    def slow(folder: Path, data: BinaryIO) -> Path:
        begun.set()
        go_on.wait(60)
        try:
            return save(folder, data)
        finally:
            written.set()

    monkeypatch.setattr(upload_module, "_save", slow)
    sending = asyncio.create_task(ingest_upload(index, settings, Upload("tides.txt"), BytesIO(b"High water.")))
    await asyncio.to_thread(begun.wait, 60)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    go_on.set()
    assert await asyncio.to_thread(written.wait, 60)
    async with asyncio.timeout(60):
        while list((settings.data_dir / "uploads").iterdir()):
            await asyncio.sleep(0.01)


async def test_an_upload_that_is_left_while_it_is_embedded_changes_nothing(
    real_index: Index, settings: Settings
) -> None:
    """Or else a later ingestion would bring in what nobody knows of."""
    uploads = settings.data_dir / "uploads"
    await ingest_upload(real_index, settings, Upload("old.txt"), BytesIO(b"High water."))
    before = {path.name: path.read_bytes() for path in uploads.iterdir()}
    text = b"".join(b"Low water comes %d times in a while, which is long.\n\n" % number for number in range(6_000))
    for name in ("old.txt", "new.txt"):
        begun = threading.Event()
        upload = Upload(name, access=["staff"])
        sending = asyncio.create_task(
            ingest_upload(real_index, settings, upload, BytesIO(text), embedded=lambda *_, begun=begun: begun.set())
        )
        assert await asyncio.to_thread(begun.wait, 30)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert {path.name: path.read_bytes() for path in uploads.iterdir()} == before
    assert [source.access for source in await real_index.sources()] == [("public",)]


async def test_an_upload_that_is_left_once_it_is_stored_stays(real_index: Index, settings: Settings) -> None:
    uploads = settings.data_dir / "uploads"
    sending = asyncio.create_task(ingest_upload(real_index, settings, Upload("new.txt"), BytesIO(b"High water.")))
    replace = real_index.replace_sources

    async def left(*args: Any, **kwargs: Any) -> None:
        await replace(*args, **kwargs)
        sending.cancel()
        await asyncio.sleep(0)

    real_index.replace_sources = left  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert [path.name for path in uploads.iterdir()] == ["new.txt"]
    assert [source.uri for source in await real_index.sources()] == ["uploads/new.txt"]


async def test_an_upload_whose_sender_closes_it_meanwhile_leaves_no_file(
    index: MemoryIndex, settings: Settings
) -> None:
    gone = BytesIO(b"High water.")
    gone.close()
    with pytest.raises(ValueError, match="closed"):
        await ingest_upload(index, settings, Upload("tides.txt"), gone)
    assert list((settings.data_dir / "uploads").iterdir()) == []


async def test_an_upload_that_does_not_fit_on_the_disk_leaves_no_file(
    index: MemoryIndex, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", lambda handle, _: Full(handle, "wb"))
    with pytest.raises(StoreError, match="No space"):
        await ingest_upload(index, settings, Upload("tides.txt"), BytesIO(b"High water."))
    assert list((settings.data_dir / "uploads").iterdir()) == []
