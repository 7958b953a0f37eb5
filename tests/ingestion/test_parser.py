import asyncio
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from citewell.errors import SourceUnreadable, SourceUnsupported
from citewell.ingestion.load import TYPES
from citewell.ingestion.parser import Parser, open_parser
from citewell.settings import Settings


@pytest.fixture
async def parser() -> AsyncIterator[Parser]:
    async with open_parser(Settings(max_source_bytes=1_000_000, parse_timeout_s=60), processes=1) as parser:
        yield parser


async def test_a_file_comes_back_as_source_text_and_chunks(parser: Parser, library: Path) -> None:
    parsed = await parser.parse(library / "b.md", "library/b.md")
    assert (parsed.source.uri, parsed.source.title, parsed.source.tags) == ("library/b.md", "Tides", ("sea",))
    assert parsed.text == "# Tides\n\nHigh water comes twice a day.\n"
    (chunk,) = parsed.chunks
    assert parsed.text[chunk.start : chunk.end] == chunk.text
    assert (chunk.headings, chunk.date) == (("Tides",), "2026-03-31")


async def test_the_memory_that_reading_may_take_follows_from_the_largest_file(parser: Parser, library: Path) -> None:
    await parser.parse(library / "a.txt", "a.txt")
    (process,) = parser._running
    most, _ = resource.prlimit(process.pid, resource.RLIMIT_AS)
    assert 1 << 30 < most < 2 << 30


async def test_a_file_that_never_ends_is_given_up_and_the_next_one_read(parser: Parser, library: Path) -> None:
    os.mkfifo(library / "pipe.txt")
    await parser.parse(library / "a.txt", "a.txt")
    parser._timeout_s = 1
    with pytest.raises(SourceUnreadable, match="longer than 1 s"):
        await parser.parse(library / "pipe.txt", "pipe.txt")
    parser._timeout_s = 60
    assert (await parser.parse(library / "a.txt", "a.txt")).text


async def test_a_crash_of_the_reader_costs_one_file(parser: Parser, library: Path) -> None:
    await parser.parse(library / "a.txt", "a.txt")
    os.mkfifo(library / "pipe.txt")
    task = asyncio.create_task(parser.parse(library / "pipe.txt", "pipe.txt"))
    await asyncio.sleep(0.2)
    (process,) = parser._running
    process.send_signal(signal.SIGSEGV)
    with pytest.raises(SourceUnreadable, match="crashed its reader"):
        await task
    assert (await parser.parse(library / "a.txt", "a.txt")).text


async def test_a_cancelled_answer_is_not_taken_for_the_next_files(parser: Parser, library: Path) -> None:
    (library / "long.txt").write_text("word " * 150_000)
    task = asyncio.create_task(parser.parse(library / "long.txt", "long.txt"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await parser.parse(library / "a.txt", "a.txt")).source.uri == "a.txt"


async def test_refusals_carry_what_they_were_about(parser: Parser, tmp_path: Path) -> None:
    (tmp_path / "e.txt").write_text("")
    with pytest.raises(SourceUnsupported, match="empty") as refusal:
        await parser.parse(tmp_path / "e.txt", "e.txt")
    assert refusal.value.same_for == (0, (tmp_path / "e.txt").stat().st_mtime_ns)
    (tmp_path / "e.pdf").write_bytes(b"%PDF-1.7 broken")
    with pytest.raises(SourceUnreadable, match="damaged") as damage:
        await parser.parse(tmp_path / "e.pdf", "e.pdf")
    assert damage.value.same_for == (15, (tmp_path / "e.pdf").stat().st_mtime_ns)


async def test_gone_and_oversized_files_say_so(parser: Parser, tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="gone") as gone:
        await parser.parse(tmp_path / "nothing.txt", "nothing.txt")
    assert gone.value.same_for is None
    (tmp_path / "big.txt").write_bytes(b"x" * 1_000_001)
    with pytest.raises(Exception, match=r"at most 1\.0 MB"):
        await parser.parse(tmp_path / "big.txt", "big.txt")


async def test_a_file_of_headings_and_single_words_does_not_make_passages_without_end(
    parser: Parser, tmp_path: Path
) -> None:
    section = "# a\n\nb\n"
    (tmp_path / "many.md").write_text(section * 10_000)
    assert len((await parser.parse(tmp_path / "many.md", "many.md")).chunks) == 10_000
    (tmp_path / "more.md").write_text(section * 10_001)
    with pytest.raises(SourceUnsupported, match="makes 10,001 passages; at most 10,000"):
        await parser.parse(tmp_path / "more.md", "more.md")


async def test_nothing_else_waits_while_the_passages_of_a_large_file_are_taken_over(tmp_path: Path) -> None:
    (tmp_path / "large.md").write_text("# a\n\nb\n" * 60_000)
    async with open_parser(Settings(max_source_bytes=20_000_000, parse_timeout_s=60), processes=1) as parser:
        began = time.thread_time()
        parsed = await parser.parse(tmp_path / "large.md", "large.md")
        took = time.thread_time() - began  # of this thread, which is the event loop's
    began = time.thread_time()
    assert len([replace(chunk) for chunk in parsed.chunks]) == 60_000
    assert took < (time.thread_time() - began) / 2


async def test_modules_lying_among_the_documents_are_not_imported(
    parser: Parser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    (tmp_path / "a.txt").write_text("Text.")
    monkeypatch.chdir(tmp_path)
    assert (await parser.parse(tmp_path / "a.txt", "a.txt")).text == "Text."


async def test_no_process_is_left_behind(library: Path) -> None:
    async with open_parser(Settings(max_source_bytes=1_000_000, parse_timeout_s=5), processes=2) as parser:
        await asyncio.gather(*(parser.parse(library / "a.txt", "a.txt") for _ in range(4)))
        processes = list(parser._running)
    assert processes
    assert all(process.returncode is not None for process in processes)


async def test_damaged_files_of_every_kind_give_text_or_a_reason(parser: Parser, tmp_path: Path) -> None:
    samples = [path for path in (Path(__file__).parents[2] / "examples").iterdir() if path.suffix in TYPES]
    assert {path.suffix for path in samples} == {".md", ".txt", ".pdf", ".html", ".docx"}
    chance = random.Random(20260331)
    read = 0
    reasons: list[str] = []
    for path in samples:
        whole = path.read_bytes()
        for _ in range(12):
            data = bytearray(whole[: chance.randrange(1, len(whole))] if chance.random() < 0.3 else whole)
            for _ in range(chance.choice((1, 20, 400))):
                data[chance.randrange(len(data))] = chance.randrange(256)
            damaged = tmp_path / path.name
            damaged.write_bytes(data)
            try:
                parsed = await parser.parse(damaged, path.name)
            except (SourceUnreadable, SourceUnsupported) as exc:
                reasons.append(exc.detail)
            else:
                assert all(parsed.text[chunk.start : chunk.end] == chunk.text for chunk in parsed.chunks)
                read += 1
    assert all(reasons)
    assert not [reason for reason in reasons if "cannot be read (" in reason], "a fault nobody thought of"
    assert min(read, len(reasons)) > 10


def test_a_reader_whose_starter_was_killed_ends_by_itself(library: Path) -> None:
    os.mkfifo(library / "pipe.txt")
    script = f"""
import asyncio, os
from pathlib import Path
from citewell.ingestion.parser import open_parser
from citewell.settings import Settings

async def main():
    async with open_parser(Settings(max_source_bytes=1000, parse_timeout_s=1), processes=1) as parser:
        asyncio.ensure_future(parser.parse(Path({str(library / "pipe.txt")!r}), "pipe.txt"))
        while not parser._running:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        print(*(process.pid for process in parser._running), flush=True)
        os._exit(0)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=200)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(int(done.stdout)) and psutil.Process(int(done.stdout)).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the reader is still there"
        time.sleep(0.05)
