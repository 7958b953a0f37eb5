"""An index that has been changed for long: it answers like a new one, and takes hardly more room."""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from citewell.errors import StoreError
from citewell.retrieval import Index, NewSource, open_index
from citewell.retrieval.tokens import TokenFile
from tests.retrieval.samples import HashedWords, made, settings
from tests.retrieval.writers import STEPS, WORDS, Held, written
from tests.service import ROOT

KILLED = -9

names = st.sampled_from(["a.txt", "b.txt", "c/d.txt", "e.md"])
held = st.tuples(st.integers(0, 11), st.sampled_from(["public", "staff"]))
changes = st.lists(st.one_of(st.dictionaries(names, held, min_size=1, max_size=3), names), max_size=4)
sessions = st.lists(
    st.fixed_dictionaries({
        "changes": changes, "anew": st.booleans(), "step": st.one_of(st.none(), st.sampled_from(list(STEPS))),
    }),
    min_size=3, max_size=6,
)  # fmt: skip
"""What whole processes do, one after the other: each changes sources one by one, may then rebuild, and may have to die at a
step. A change of label is a relabelling; a removal and the same text under another name, a renaming."""


@pytest.fixture(scope="module")
def writer() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.retrieval.writers", "churn"], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield process
        process.kill()


def states(before: Held, changes: list[Held | str]) -> list[Held]:
    """What may be held while these are being made: each change is seen whole or not at all."""
    found = [before]
    for change in changes:
        now = found[-1]
        found.append({k: v for k, v in now.items() if k != change} if isinstance(change, str) else {**now, **change})
    return found


@hypothesis_settings(max_examples=12, deadline=None)
@given(sessions)
def test_whatever_was_changed_and_killed_it_answers_like_a_new_index(
    writer: subprocess.Popen[str], sessions: list[dict[str, object]]
) -> None:
    assert writer.stdin is not None
    assert writer.stdout is not None
    now: Held = {}
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        for session in sessions:
            possible = states(now, session["changes"])  # type: ignore[arg-type]
            writer.stdin.write(json.dumps({**session, "folder": str(old), "now": possible[-1]}) + "\n")
            writer.stdin.flush()
            status = int(writer.stdout.readline())
            assert status in ((KILLED, 0) if session["step"] else (0,))
            now = asyncio.run(which(old, possible if status else possible[-1:]))
        asyncio.run(fill(new, now))
        (said, scores), (expected, expected_scores) = asyncio.run(told(old)), asyncio.run(told(new))
        assert said == expected
        assert scores == pytest.approx(expected_scores, abs=1e-5)


async def which(folder: Path, possible: list[Held]) -> Held:
    """The one of these states that the index is in; the last where several look alike."""
    async with open_index(settings(folder), HashedWords()) as index:
        sources = await index.sources()
    return next(
        state for state in reversed(possible)
        if sources == [written(name, *state[name]).source for name in sorted(state)]
    )  # fmt: skip


async def fill(folder: Path, held: Held) -> None:
    async with open_index(settings(folder), HashedWords()) as index, index.writing():
        await index.replace_sources([written(name, *each) for name, each in held.items()])


async def told(folder: Path) -> tuple[list[object], list[float]]:
    """All that an index says, and its scores: not those by words, which count removed chunks until tantivy merges its
    segments."""
    said: list[object] = []
    scores: list[float] = []
    async with open_index(settings(folder), HashedWords()) as index:
        for source in await index.sources():
            said += [source, await index.text(source.uri)]
        for question in (*WORDS[:3], " ".join(WORDS)):
            for access in (None, frozenset({"public"})):
                for where in (None, {"source": ["a.txt", "e.md"]}):
                    found = await index.search(question, access=access, where=where, candidates=500)
                    ranked = await index.rerank(question, found, top_k=500)
                    ranked.sort(key=lambda one: one.chunk.id)
                    said.append([one.chunk for one in ranked])
                    scores += [one.evidence[name] for one in ranked for name in ("dense", "maxsim", "stretch")]
    return said, scores


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[Index]:
    async with open_index(settings(tmp_path), HashedWords()) as index:
        yield index


async def put(index: Index, *versions: int) -> None:
    async with index.writing():
        await index.replace_sources([long(version) for version in versions])


def long(version: int) -> NewSource:
    """One of ten sources, of chunks of different lengths."""
    lengths = (5 + (version * 13 + part * 29) % 60 for part in range(6))
    return made(f"{version % 10}.txt", [" ".join(f"word{version}" for _ in range(length)) for length in lengths])


def token_file(folder: Path) -> Path:
    (path,) = folder.rglob("tokens.bin")
    return path


async def test_token_vectors_take_the_place_of_those_that_are_gone(index: Index, tmp_path: Path) -> None:
    await put(index, *range(10))
    at_first = token_file(tmp_path).stat().st_size
    for version in range(10, 60, 2):  # each of the ten is written anew five times
        await put(index, version, version + 1)
    assert token_file(tmp_path).stat().st_size < 1.6 * at_first
    found = await index.search("word58 word59", candidates=500)
    ranked = await index.rerank("word58 word59", found, top_k=500)
    assert {one.chunk.source for one in ranked if one.evidence["maxsim"] > 0.4} == {"8.txt", "9.txt"}


async def test_a_search_never_compares_with_token_vectors_of_a_chunk_that_took_the_place_of_another(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking up where they lie and reading them, another process may write twice."""
    await put(index, 0, 1)
    found = await index.search("word0", candidates=500)
    before = token_file(tmp_path).stat().st_size
    really = TokenFile.read

    def late(self: TokenFile, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        monkeypatch.setattr(TokenFile, "read", really)
        code = (
            "import asyncio, sys; from pathlib import Path; from tests.retrieval.test_upkeep import *\n"
            "async def write():\n"
            "    async with open_index(settings(Path(sys.argv[1])), HashedWords()) as index:\n"
            "        await put(index, 10)\n"
            "        await put(index, 20)\n"
            "asyncio.run(write())"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=200)
        return really(self, spans)

    monkeypatch.setattr(TokenFile, "read", late)
    ranked = await index.rerank("word0", found, top_k=500)
    assert {one.chunk.source for one in ranked} == {"1.txt"}, "the other source has been replaced meanwhile"
    assert token_file(tmp_path).stat().st_size < 2 * before, "its place was taken"


async def test_the_text_of_what_is_removed_leaves_the_disk_while_a_service_has_the_index_open(
    index: Index, tmp_path: Path
) -> None:
    def holders() -> list[str]:
        return [path.name for path in tmp_path.rglob("*") if path.is_file() and b"zyxxyq" in path.read_bytes()]

    async with index.writing():
        await index.replace_sources([made(name, [f"the secret of {name} is zyxxyq"]) for name in ("a.txt", "b.txt")])
    assert await index.search("secret")
    assert holders()
    async with open_index(settings(tmp_path), HashedWords()) as other, other.writing():
        for name in ("a.txt", "b.txt"):
            await other.remove_source(name)
    assert await index.search("secret") == []
    assert holders() == []


async def test_an_index_that_was_given_far_more_than_it_holds_is_worn_until_it_is_rebuilt(index: Index) -> None:
    await put(index, 0)
    assert not await index.is_worn()
    generation = index._current.seen
    assert generation is not None
    await asyncio.to_thread(generation.catalog.reserve, 6_000)  # as many keys as a year of changes takes
    assert await index.is_worn()
    async with index.rebuilding() as fresh:
        await fresh.replace_sources([long(0)])
    assert not await index.is_worn()


async def test_an_index_that_is_gone_is_not_taken_for_an_empty_one_and_is_found_again(
    index: Index, tmp_path: Path
) -> None:
    await put(index, 0)
    (tmp_path / "index").rename(tmp_path / "away")
    for attempt in (index.search("word0"), index.ping()):
        with pytest.raises(StoreError, match=r"is gone\. Put the data directory back"):
            await attempt
    assert not (tmp_path / "index").exists()
    (tmp_path / "away").rename(tmp_path / "index")
    assert await index.search("word0")


@pytest.mark.parametrize("bytes_left", [0, 100])
async def test_a_token_file_that_was_cut_is_an_error_that_says_what_to_do(
    index: Index, tmp_path: Path, bytes_left: int
) -> None:
    await put(index, 0)
    found = await index.search("word0")
    with token_file(tmp_path).open("r+b") as file:
        file.truncate(bytes_left)
    with pytest.raises(StoreError, match="Ingest with --rebuild"):
        await index.rerank("word0", found, top_k=3)
