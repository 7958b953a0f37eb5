"""Labels beside files that cannot name any: never lost by another run, never opened by a fault."""

from __future__ import annotations

import asyncio
import os
from io import BytesIO
from pathlib import Path

import pytest

from citewell.errors import InvalidRequest, NotAuthorized, SourceNotFound, SourceUnreadable
from citewell.identity import Identity
from citewell.ingestion.access import MOST_LABELS, AccessFiles, check_labels
from citewell.ingestion.sync import ingest
from citewell.ingestion.upload import Upload, ingest_upload, remove_upload
from citewell.settings import Settings
from tests.ingestion.conftest import MemoryIndex

ALICE = Identity(caller="alice", access=frozenset({"public", "staff"}))
BOB = Identity(caller="bob", access=frozenset({"public"}))


async def labels(index: MemoryIndex) -> dict[str, tuple[str, ...]]:
    return {source.uri: source.access for source in await index.sources()}


async def test_the_nearest_word_counts(tmp_path: Path, index: MemoryIndex, settings: Settings) -> None:
    docs = tmp_path / "docs"
    (docs / "private" / "deep").mkdir(parents=True)
    (docs / "a.txt").write_text("Everybody's.")
    (docs / "b.txt").write_text("The board's.")
    (docs / "b.txt.access").write_text("board, audit  # who keeps the books\n")
    (docs / "private" / ".access").write_text("# personnel\nhr\n")
    (docs / "private" / "deep" / "c.txt").write_text("Personnel's.")
    (docs / "private" / "d.md").write_text("---\naccess: staff\n---\nThe staff's.")
    (docs / "link.txt").symlink_to(docs / "private" / "deep" / "c.txt")
    report = await ingest(index, [docs], settings)
    assert report.exit_code == 0
    assert not any(".access" in file.uri for file in report.files)
    assert await labels(index) == {
        "docs/a.txt": ("public",), "docs/b.txt": ("board", "audit"), "docs/private/deep/c.txt": ("hr",),
        "docs/private/d.md": ("staff",), "docs/link.txt": ("hr",),
    }  # fmt: skip


def test_a_byte_order_mark_belongs_to_no_label(tmp_path: Path) -> None:
    (tmp_path / ".access").write_text("staff\n", encoding="utf-8-sig")
    assert AccessFiles().labels(tmp_path / "a.txt") == ("staff",)


async def test_another_run_neither_loses_nor_misses_labels(
    tmp_path: Path, index: MemoryIndex, settings: Settings
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("The board's.")
    (docs / ".access").write_text("board")
    await ingest(index, [docs / "a.txt"], settings)  # by its own name: the folder's word counts all the same
    assert await labels(index) == {"a.txt": ("board",)}
    assert (await ingest(index, [], settings)).counts()["unchanged"] == 1
    (settings.data_dir / "ingestion.json").unlink()  # what was remembered is lost
    await ingest(index, [docs / "a.txt"], settings)
    assert await labels(index) == {"a.txt": ("board",)}
    (docs / ".access").write_text("staff")
    assert (await ingest(index, [], settings)).counts()["changed"] == 1
    assert await labels(index) == {"a.txt": ("staff",)}
    await ingest(index, [], settings, rebuild=True)
    assert await labels(index) == {"a.txt": ("staff",)}
    (docs / ".access").unlink()
    await ingest(index, [], settings)
    assert await labels(index) == {"a.txt": ("public",)}


@pytest.mark.parametrize("content", [b"", b"# nobody\n", b"no-such-label!", b"\xff\xfe", b"*"])
async def test_what_cannot_be_understood_opens_nothing(
    tmp_path: Path, index: MemoryIndex, settings: Settings, content: bytes
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("Whose?")
    (docs / ".access").write_bytes(content)
    report = await ingest(index, [docs], settings)
    assert [(file.uri, file.status) for file in report.files] == [("docs/a.txt", "failed")]
    assert "who may read it" in report.files[0].reason
    assert await labels(index) == {}
    with pytest.raises(SourceUnreadable):
        AccessFiles().labels(docs / "a.txt")


async def test_nothing_waits_for_a_pipe_where_labels_or_patterns_should_stand(
    tmp_path: Path, index: MemoryIndex, settings: Settings
) -> None:
    docs = tmp_path / "docs"
    for name in ("one/.access", "two/a.txt.access", "three/.citewellignore"):
        folder = (docs / name).parent
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("Whose?")
        os.mkfifo(docs / name)
    async with asyncio.timeout(20):
        report = await ingest(index, [docs], settings)
    failed = {file.uri for file in report.files if file.status == "failed"}
    assert failed == {"docs/one/a.txt", "docs/two/a.txt", "docs/three/.citewellignore"}
    assert index.held == {}


async def test_uploads_are_their_owners(index: MemoryIndex, settings: Settings) -> None:
    mine = await ingest_upload(index, settings, Upload("note.txt", owner=ALICE), BytesIO(b"Alice's."))
    theirs = await ingest_upload(index, settings, Upload("note.txt", owner=BOB), BytesIO(b"Bob's."))
    assert mine.uri != theirs.uri
    assert (mine.status, theirs.status) == ("new", "new")
    assert await labels(index) == {mine.uri: (ALICE.own_label,), theirs.uri: (BOB.own_label,)}
    assert not (ALICE.readable or frozenset()) & {BOB.own_label}
    with pytest.raises(SourceNotFound):
        await remove_upload(index, settings, Upload("note.txt"))
    await remove_upload(index, settings, Upload("note.txt", owner=BOB))
    assert await labels(index) == {mine.uri: (ALICE.own_label,)}


async def test_an_upload_is_given_labels_that_its_sender_holds(index: MemoryIndex, settings: Settings) -> None:
    uri = (await ingest_upload(index, settings, Upload("a.txt", owner=ALICE, access=["staff"]), BytesIO(b"One."))).uri
    assert await labels(index) == {uri: ("staff",)}
    await ingest_upload(index, settings, Upload("a.txt", owner=ALICE), BytesIO(b"Two."))
    assert await labels(index) == {uri: ("staff",)}, "without a word about it, labels stay"
    await ingest(index, [], settings, rebuild=True)
    assert await labels(index) == {uri: ("staff",)}
    for owner, asked in ((ALICE, ["board"]), (BOB, ["staff"]), (BOB, [ALICE.own_label])):
        with pytest.raises(NotAuthorized):
            Upload("a.txt", owner=owner, access=asked)
    with pytest.raises(InvalidRequest):
        Upload("a.txt", owner=ALICE, access=["no label!"])
    matter = b"---\naccess: [board]\n---\nMinutes."
    with pytest.raises(NotAuthorized):
        await ingest_upload(index, settings, Upload("m.md", owner=ALICE), BytesIO(matter))
    with pytest.raises(InvalidRequest):
        await ingest_upload(index, settings, Upload("m.md", access=["staff"]), BytesIO(matter))
    assert await labels(index) == {uri: ("staff",)}
    assert [path.name for path in (settings.data_dir / "uploads").rglob("*.md*")] == []


def test_a_document_has_so_many_labels_and_no_more() -> None:
    names = [f"team-{number}" for number in range(MOST_LABELS)]
    assert check_labels([*names, *names]) == tuple(names)
    with pytest.raises(SourceUnreadable, match="65 labels"):
        check_labels([*names, "one-more"])
