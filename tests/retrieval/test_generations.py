import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from citewell.errors import IndexMismatch, IngestBusy
from citewell.retrieval import Index, open_index
from citewell.retrieval.generation import Generation
from tests.retrieval.samples import HashedWords, made, settings
from tests.service import ROOT

OTHER = "another model"


async def fill(index: Index, *names: str) -> None:
    await index.replace_sources([made(name, [f"text {name}"]) for name in names])


async def names(index: Index) -> list[str]:
    return [source.uri for source in await index.sources()]


async def broken_rebuild(index: Index) -> None:
    async with index.rebuilding() as fresh:
        await fill(fresh, "b.txt")
        raise ZeroDivisionError


def folders(folder: Path) -> list[Path]:
    return [each for each in (folder / "index" / "citewell").iterdir() if each.is_dir()]


@pytest.mark.parametrize(
    ("changed", "model", "named"),
    [
        ({"chunk_size": 700}, "hashed-words", "chunk_size"),
        ({"chunk_overlap": 60}, "hashed-words", "chunk_overlap"),
        ({}, OTHER, "embedding"),
        ({"language": "german"}, "hashed-words", "language"),
    ],
)
async def test_an_index_built_otherwise_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, changed: dict[str, object], model: str, named: str
) -> None:
    async with open_index(settings(tmp_path), HashedWords()) as index, index.writing():
        await fill(index, "a.txt")
    async with open_index(settings(tmp_path, **changed), HashedWords(model)) as index:
        for attempt in (index.search("text"), index.sources(), index.stats()):
            with pytest.raises(IndexMismatch) as caught:
                await attempt
            assert "python ingest.py --rebuild" in caught.value.detail
            assert f"({named})" in caught.value.detail
        with pytest.raises(IndexMismatch):
            async with index.writing():
                pass
        async with index.rebuilding() as fresh:
            await fill(fresh, "b.txt")
        assert await names(index) == ["b.txt"]


async def test_readers_go_on_during_a_rebuild_and_notice_its_end(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    async with open_index(chosen, HashedWords()) as reader, open_index(chosen, HashedWords()) as rebuilder:
        async with reader.writing():
            await fill(reader, "old.txt")
        before = reader.generation
        async with rebuilder.rebuilding() as fresh:
            await fill(fresh, "new.txt")
            assert await names(fresh) == ["new.txt"]
            assert await names(reader) == ["old.txt"]
            assert {one.chunk.source for one in await reader.search("text")} == {"old.txt"}
            assert reader.generation == before
        assert {one.chunk.source for one in await reader.search("text")} == {"new.txt"}
        assert reader.generation != before


async def test_searches_during_the_change_see_one_generation_or_the_other(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    async with open_index(chosen, HashedWords()) as index:
        async with index.writing():
            await fill(index, "a1.txt", "a2.txt")
        seen: set[frozenset[str]] = set()
        done = asyncio.Event()

        async def look() -> None:
            while not done.is_set():
                seen.add(frozenset(one.chunk.source for one in await index.search("text")))

        looking = [asyncio.create_task(look()) for _ in range(4)]
        for name in "bcd":
            async with index.rebuilding() as fresh:
                await fill(fresh, f"{name}1.txt", f"{name}2.txt")
        done.set()
        await asyncio.gather(*looking)
    assert seen <= {frozenset({f"{name}1.txt", f"{name}2.txt"}) for name in "abcd"}


async def test_a_generation_no_one_reads_is_removed_and_one_in_use_is_not(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    async with open_index(chosen, HashedWords()) as index:
        async with index.writing():
            await fill(index, "a.txt")
        async with open_index(chosen, HashedWords()) as reader:
            await names(reader)
            async with index.rebuilding() as fresh:
                await fill(fresh, "b.txt")
            assert len(folders(tmp_path)) == 2
        async with index.writing():
            pass
        assert len(folders(tmp_path)) == 1


async def test_a_rebuild_that_fails_changes_nothing_and_is_taken_up_again(tmp_path: Path) -> None:
    async with open_index(settings(tmp_path), HashedWords()) as index:
        async with index.writing():
            await fill(index, "a.txt")
        with pytest.raises(ZeroDivisionError):
            await broken_rebuild(index)
        assert await names(index) == ["a.txt"]
        async with index.rebuilding() as fresh:
            assert await names(fresh) == ["b.txt"]
            await fill(fresh, "c.txt")
        assert await names(index) == ["b.txt", "c.txt"]


async def test_a_rebuild_killed_half_way_is_taken_up_again_by_the_next(tmp_path: Path) -> None:
    async with open_index(settings(tmp_path), HashedWords()) as index, index.writing():
        await fill(index, "old.txt")
    command = [sys.executable, "-m", "tests.retrieval.writers", "rebuild", str(tmp_path), "3"]
    done = subprocess.run(command, cwd=ROOT, timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL
    async with open_index(settings(tmp_path), HashedWords()) as index:
        assert await names(index) == ["old.txt"]
    async with open_index(settings(tmp_path), HashedWords(OTHER)) as index:
        async with index.rebuilding() as fresh:
            assert await names(fresh) == ["0.txt", "1.txt", "2.txt"]
            await fill(fresh, "3.txt")
        assert await names(index) == ["0.txt", "1.txt", "2.txt", "3.txt"]
        assert len(await index.search("text number2")) == 4


async def test_what_a_rebuild_with_other_settings_left_behind_is_not_taken_up(tmp_path: Path) -> None:
    async with open_index(settings(tmp_path), HashedWords(OTHER)) as index:
        with pytest.raises(ZeroDivisionError):
            await broken_rebuild(index)
    async with open_index(settings(tmp_path), HashedWords()) as index:
        async with index.rebuilding() as fresh:
            assert await names(fresh) == []
            await fill(fresh, "c.txt")
        assert await names(index) == ["c.txt"]
        assert len(folders(tmp_path)) == 1


async def test_a_generation_that_could_not_be_made_whole_is_none_and_goes(tmp_path: Path) -> None:
    """The disk is full after so many KB, or the process is killed then."""
    chosen = settings(tmp_path)
    index_folder = chosen.data_dir / "index" / chosen.namespace
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    unfinished = 0
    for kilobytes in range(4, 120, 4):
        (folder := index_folder / f"g{kilobytes}").mkdir(parents=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, most))
        try:
            Generation.create(folder, {"store": "chroma"})
        except sqlite3.OperationalError:
            assert Generation.fingerprint_of(folder) is None
            unfinished += 1
        else:
            assert Generation.fingerprint_of(folder) == {"store": "chroma"}
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert 5 < unfinished < 29
    async with open_index(chosen, HashedWords()) as index, index.writing():
        await fill(index, "a.txt")
        assert await names(index) == ["a.txt"]
    assert len(folders(tmp_path)) == 1


async def test_an_empty_catalog_of_an_older_version_goes(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    (folder := chosen.data_dir / "index" / chosen.namespace / "g1").mkdir(parents=True)
    Generation.create(folder, {"store": "chroma"})
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as connection, connection:
        connection.execute("DELETE FROM meta")
    async with open_index(chosen, HashedWords()) as index, index.writing():
        await fill(index, "a.txt")
    assert len(folders(tmp_path)) == 1


async def test_a_second_ingestion_is_refused_and_told_who_holds_the_index(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    async with open_index(chosen, HashedWords()) as one, open_index(chosen, HashedWords()) as other, one.writing():
        for attempt in (other.writing(), other.rebuilding(), one.rebuilding()):
            with pytest.raises(IngestBusy, match=f"process {os.getpid()}"):
                async with attempt:
                    pass


async def test_a_second_ingestion_may_wait_for_the_first(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    async with open_index(chosen, HashedWords()) as one, open_index(chosen, HashedWords()) as other:

        async def later() -> float:
            async with other.writing(wait_s=20):
                return time.monotonic()

        async with one.writing():
            waiting = asyncio.create_task(later())
            await asyncio.sleep(0.3)
            await fill(one, "a.txt")
            ended = time.monotonic()
        assert await waiting >= ended
        assert await names(other) == ["a.txt"]


async def test_several_processes_opening_a_new_index_at_once_share_one(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    stats = await asyncio.gather(*(_stats(chosen) for _ in range(4)))
    assert len({str(one["generation"]) for one in stats}) == 1
    assert len(folders(tmp_path)) == 1


async def _stats(chosen: object) -> dict[str, object]:
    async with open_index(chosen, HashedWords()) as index:  # type: ignore[arg-type]
        return await index.stats()
