"""Nothing half-written is ever seen: writers are killed with kill -9, and readers look on from another process."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from citewell.retrieval import Index, open_index
from tests.retrieval.samples import HashedWords, settings
from tests.retrieval.writers import STEPS, replace, version
from tests.service import ROOT

WHOLE = [sorted(chunk.text for new in version(number) for chunk in new.chunks) for number in (0, 1, 2)]


def writer(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.retrieval.writers", *arguments]


async def seen(index: Index) -> list[str]:
    return sorted(one.chunk.text for one in await index.search("marker says part of this text"))


def stored(index: Index) -> tuple[set[int], set[int], set[int]]:
    """Keys in the vector store, the keyword index and the catalog."""
    generation = index._current.seen
    assert generation is not None
    vector = HashedWords().encode(["marker"]).vectors[0]
    with generation.catalog.reading() as snapshot:
        known = {key for (key,) in snapshot.connection.execute("SELECT key FROM chunks")}
    return (
        {key for key, _ in generation.store.search(vector, 1000)},
        {key for key, _ in generation.keywords.search("marker", 1000)},
        known,
    )


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By step, an index whose writer died there while it replaced version 1 by version 2."""
    folder = tmp_path_factory.mktemp("killed")
    places = {step: folder / str(number) for number, step in enumerate(STEPS)}
    asyncio.run(replace(folder / "first", 1))
    for place in places.values():
        shutil.copytree(folder / "first", place)
    done = subprocess.run(writer("die", str(folder), *STEPS), cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.stdout.splitlines() == [f"{step} | 9" for step in STEPS], done.stderr
    return places


@pytest.mark.parametrize("step", STEPS)
async def test_after_kill_9_a_reader_sees_the_old_state_or_the_new_whole(killed: dict[str, Path], step: str) -> None:
    committed = list(STEPS).index(step) >= list(STEPS).index("after the catalog's commit")
    async with open_index(settings(killed[step]), HashedWords()) as index:
        assert await seen(index) == WHOLE[2 if committed else 1]
        for new in version(2 if committed else 1):
            assert await index.text(new.source.uri) == new.text
            assert await index.source(new.source.uri) == new.source
        found = await index.search("marker version1 version2 part3")
        assert len(await index.rerank("marker version1 version2 part3", found, top_k=50)) == 10

        async with index.writing():  # the next writer removes what was left behind
            assert await seen(index) == WHOLE[2 if committed else 1]
        assert await seen(index) == WHOLE[2 if committed else 1]
        in_store, in_keywords, known = stored(index)
        assert in_store == in_keywords == known
        assert len(known) == 10

        async with index.writing():  # and writing goes on
            await index.replace_sources(version(0))
        assert await seen(index) == WHOLE[0]


async def test_a_reader_beside_a_writing_process_sees_each_source_whole_always(tmp_path: Path) -> None:
    await replace(tmp_path, 1)
    process = subprocess.Popen(writer("keep", str(tmp_path)), cwd=ROOT)
    versions: set[str] = set()
    try:
        async with open_index(settings(tmp_path), HashedWords()) as index:
            deadline = time.monotonic() + 60
            while len(versions) < 8 and time.monotonic() < deadline:
                found = Counter((text.split()[0], text.split()[3]) for text in await seen(index))
                assert sorted(name for name, _ in found) == ["first", "second"], found
                assert set(found.values()) == {5}, found
                assert len({number for _, number in found}) == 1, "both were committed together"
                versions |= {number for _, number in found}
    finally:
        process.kill()
        process.wait()
    assert len(versions) >= 8, "the writer did not get on"


async def test_a_search_that_starts_after_a_commit_elsewhere_finds_it_by_meaning(tmp_path: Path) -> None:
    """Embedded Chroma does not see another process's writes by itself."""
    await replace(tmp_path, 1)
    async with open_index(settings(tmp_path), HashedWords()) as index:
        assert await seen(index) == WHOLE[1]
        subprocess.run(
            [sys.executable, "-c", "import asyncio, sys; from pathlib import Path; from tests.retrieval.writers import "
             "replace; asyncio.run(replace(Path(sys.argv[1]), 2))", str(tmp_path)], cwd=ROOT, check=True, timeout=200,
        )  # fmt: skip
        found = await index.search("marker says part of this text")
        assert sorted(one.chunk.text for one in found) == WHOLE[2]
        assert all("dense" in one.evidence for one in found)


def test_where_nothing_can_be_written_any_more_it_says_so_and_goes_on_when_it_can(tmp_path: Path) -> None:
    """As on a disk that was full: in the same process, whatever could not be written first."""
    limits = ["30", "60", "120", "200", "260", "400"]
    done = subprocess.run(
        writer("fill", str(tmp_path), *limits), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines() == [f"store_error {limit} 10" for limit in limits], done.stderr
