"""The command as a user runs it, with the built-in model and the real index."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from citewell.ingestion.command import app
from citewell.ingestion.load import load
from citewell.ingestion.split import split
from citewell.ingestion.sync import ingest
from citewell.models import Embedder
from citewell.retrieval import Index, open_index
from citewell.settings import Settings

INGEST = Path(__file__).parents[2] / "ingest.py"


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CITEWELL_")}
    return {**kept, "CITEWELL_DATA_DIR": str(data_dir), "COLUMNS": "200", **settings}


def run(data_dir: Path, *arguments: str | Path, **settings: str) -> Result:
    """The command in this process: what takes long is importing."""
    os.chdir(data_dir.parent)  # monkeypatch.chdir in the fixture below puts it back
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment(data_dir, **settings))


@pytest.fixture(autouse=True)
def _cwd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CITEWELL_")]:
        monkeypatch.delenv(name)


def test_where_nothing_has_changed_nothing_heavy_is_loaded(tmp_path: Path, library: Path) -> None:
    heavy = {"chromadb", "langchain_core", "numpy", "onnxruntime", "rich", "tokenizers"}
    program = (
        "import sys\nfrom citewell.ingestion.__main__ import main\ntry:\n    main()\n"
        f"finally:\n    print(sorted({heavy} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", program, str(library)]
    loaded = [
        subprocess.run(command, env=environment(tmp_path / "data"), check=True, capture_output=True, text=True)
        .stdout.splitlines()[-1]
        for _ in range(2)
    ]  # fmt: skip
    assert loaded == [str(sorted(heavy)), "[]"]


def test_an_empty_folder_is_told_what_could_be_in_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(tmp_path / "data", tmp_path / "empty")
    assert (done.exit_code, "no file is there; files named .txt" in done.output, ".docx" in done.output) == (
        0,
        True,
        True,
    )


def test_a_file_of_a_type_that_is_not_read_fails_once_and_not_in_every_later_run(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The domes are closed at night.")
    (tmp_path / "prices.csv").write_text("item;price")
    both = run(tmp_path / "data", tmp_path / "a.txt", tmp_path / "prices.csv")
    assert (both.exit_code, "files named .csv are not read" in both.output) == (1, True)
    later = run(tmp_path / "data")
    assert (later.exit_code, "1 unchanged, 0 removed, 0 failed" in later.output) == (0, True)


def test_one_file_of_one_chunk_is_counted_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The domes are closed at night.")
    done = run(tmp_path / "data", tmp_path / "a.txt")
    assert "1 file\n" in done.output
    assert "new a.txt 1 chunk\n" in done.output
    assert "0 failed; 1 chunk in" in done.output


def test_where_nothing_has_changed_nothing_is_written(tmp_path: Path, library: Path) -> None:
    for file in library.rglob("*"):
        os.utime(file, (1e9, 1e9))  # what changed a moment ago is looked at once more
    data = tmp_path / "data"

    def files() -> dict[Path, tuple[int, int]]:
        found = (file for file in data.rglob("*") if file.is_file() and file.name != "writer.lock")
        return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in found}

    assert run(data, "library").exit_code == 0
    before = files()
    assert json.loads(run(data, "library", "--json").stdout)["unchanged"] == 3
    assert files() == before


def test_the_table_names_every_file_and_a_second_run_nothing(tmp_path: Path, library: Path) -> None:
    (library / "empty.txt").write_text("")
    done = run(tmp_path / "data", "library")
    assert done.exit_code == 1, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("library/")}
    assert "new" in rows["library/a.txt"]
    assert "failed" in rows["library/empty.txt"]
    assert "the file is empty" in rows["library/empty.txt"]
    assert "3 new, 0 changed, 0 unchanged, 0 removed, 1 failed; 3 chunks" in done.stdout
    assert "failed library/empty.txt (the file is empty)" in done.stderr, "plain lines where there is no terminal"

    (library / "empty.txt").unlink()
    again = run(tmp_path / "data", "--json")
    assert again.exit_code == 0, again.stderr
    report = json.loads(again.stdout)
    assert (report["unchanged"], report["new"], report["chunks"]) == (3, 0, 0)
    assert report["files"][0] == {
        "uri": "library/a.txt", "status": "unchanged", "reason": "", "code": "", "chunks": 0, "pages": None,
    }  # fmt: skip


def test_everything_can_be_dropped_and_brought_back(tmp_path: Path, library: Path) -> None:
    assert run(tmp_path / "data", "library").exit_code == 0
    dropped = run(tmp_path / "data", "--remove-all", "--json")
    assert dropped.exit_code == 0, dropped.stderr
    assert json.loads(dropped.stdout)["removed"] == 3
    assert "nothing to ingest" in run(tmp_path / "data").stderr, "the folder was remembered"
    assert "no file is there" not in run(tmp_path / "data", "--remove-all").output
    assert json.loads(run(tmp_path / "data", "--json", "library").stdout)["new"] == 3


def test_where_nothing_can_be_written_it_ends_with_a_sentence(tmp_path: Path, library: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, [str(library)], env=environment(tmp_path / "file" / "data"))
    assert (done.exit_code, done.stderr.startswith("CITEWELL_DATA_DIR: ")) == (2, True), done.stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "index").touch()
    done = CliRunner().invoke(app, [str(library)], env=environment(tmp_path / "full"))
    assert (done.exit_code, done.stderr) == (1, "The index cannot be read or written: Not a directory.\n")
    (tmp_path / "many").mkdir()
    for number in range(1200):
        os.utime(_touched(tmp_path / "many" / f"{'long name ' * 10}{number}.txt"), (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (130_000, most)
    )  # for the index, which holds nothing, and not for what is remembered
    try:
        done = run(tmp_path / "data", "many")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert done.exit_code == 1
    assert done.stderr.endswith("The data directory cannot be written: File too large\n")


def _touched(path: Path) -> Path:
    path.touch()
    return path


def test_a_dry_run_writes_no_source(tmp_path: Path, library: Path) -> None:
    done = run(tmp_path / "data", "--dry-run", "--json", "library")
    assert done.exit_code == 0, done.stderr
    assert (json.loads(done.stdout)["new"], json.loads(done.stdout)["dry_run"]) == (3, True)
    assert json.loads(run(tmp_path / "data", "--json", "library").stdout)["new"] == 3


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["nothing/here"], {}, "nothing/here does not exist"),
        ([], {}, "nothing to ingest"),
        (["--remove", "x", "library"], {}, "stand alone"),
        (["--remove-all", "--remove", "x"], {}, "stand alone"),
        (["--remove", "x"], {}, "nothing named x"),
        (["library"], {"CITEWELL_CHUNK_SIZE": "5"}, "CITEWELL_CHUNK_SIZE"),
        (["library"], {"CITEWELL_CHUNKSIZE": "500"}, "did you mean CITEWELL_CHUNK_SIZE"),
    ],
)
def test_bad_paths_and_settings_end_with_two_and_a_sentence(
    tmp_path: Path, library: Path, arguments: list[str], settings: dict[str, str], message: str
) -> None:
    done = run(tmp_path / "data", *arguments, **settings)
    assert done.exit_code == 2
    assert message in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_other_chunk_settings_ask_for_a_rebuild_and_the_rebuild_works(tmp_path: Path, library: Path) -> None:
    assert run(tmp_path / "data", "library").exit_code == 0
    changed = {"CITEWELL_CHUNK_SIZE": "300"}
    refused = run(tmp_path / "data", "library", **changed)
    assert refused.exit_code == 2
    assert "--rebuild" in refused.stderr
    rebuilt = run(tmp_path / "data", "--rebuild", "--json", **changed)
    assert rebuilt.exit_code == 0, rebuilt.stderr
    assert json.loads(rebuilt.stdout)["new"] == 3
    assert json.loads(run(tmp_path / "data", "--json", **changed).stdout)["unchanged"] == 3


async def test_a_killed_run_leaves_no_half_of_a_source_and_the_next_one_goes_on(
    tmp_path: Path, embedder: Embedder
) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    for number in range(6):
        lines = (
            f"Line {line} of book {number} tells of a lighthouse, its keeper, and the tide at {line}:{number}.\n\n"
            for line in range(128)
        )
        (folder / f"{number}.txt").write_text("".join(lines))
    data = tmp_path / "data"
    settings = Settings(data_dir=data, chunk_size=100, chunk_overlap=0)
    small = {"CITEWELL_CHUNK_SIZE": "100", "CITEWELL_CHUNK_OVERLAP": "0"}

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        INGEST,
        folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(data, **small),
    )
    assert process.stderr is not None
    while b" new " not in (line := await asyncio.wait_for(process.stderr.readline(), 90)):
        assert line, "the run ended before anything was new"
    await asyncio.sleep(0.1)  # into the next batch
    process.send_signal(signal.SIGKILL)
    await process.wait()

    async with open_index(settings, embedder) as index:
        done = await check_whole(index, folder)
    assert 0 < len(done) < 6

    async with open_index(settings, embedder) as index:
        report = await ingest(index, [folder], settings)
        assert report.exit_code == 0
        assert report.count("unchanged") >= len(done)
        assert report.count("new") == 6 - report.count("unchanged")
        assert len(await check_whole(index, folder)) == 6


async def check_whole(index: Index, folder: Path) -> set[str]:
    """Every source the index shows has all its chunks, with their text; the others have none."""
    shown = {source.uri for source in await index.sources()}
    for path in folder.iterdir():
        uri = f"long/{path.name}"
        document = load(path.read_bytes(), path.name)
        expected = split(document, uri, chunk_size=100, chunk_overlap=0)
        chunks = await index.chunks([chunk.id for chunk in expected])
        assert len(chunks) == (len(expected) if uri in shown else 0)
        if uri in shown:
            text = await index.text(uri)
            assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    return shown


def test_help_is_there_at_once() -> None:
    loaded = f"import sys, runpy; sys.argv = ['ingest.py', '--help']\ntry: runpy.run_path({str(INGEST)!r}, run_name='__main__')\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=200)
    assert "--rebuild" in done.stdout
    assert {"chromadb", "langchain_core", "numpy", "onnxruntime", "tokenizers"}.isdisjoint(done.stdout.split())


async def test_the_samples_are_read_without_a_fault_and_the_index_holds_their_text(
    real_index: Index, settings: Settings
) -> None:
    report = await ingest(real_index, [INGEST.parent / "examples"], settings)
    assert report.exit_code == 0
    assert {source.type for source in await real_index.sources()} == {"txt", "md", "pdf", "html", "docx"}
    assert "examples/questions.md" not in {source.uri for source in await real_index.sources()}
    found = await real_index.search("At what wind speed are the domes closed?", candidates=5)
    assert "examples/safety-rules.txt" in {scored.chunk.source for scored in found}


async def test_ctrl_c_stops_with_a_sentence_and_keeps_what_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    for number in range(60):  # so many that they do not end before the signal comes
        (folder / f"{number}.txt").write_text(
            "".join(f"Line {line} of {number}, about the tide.\n\n" for line in range(600))
        )
    data = tmp_path / "data"
    process = await asyncio.create_subprocess_exec(
        sys.executable, INGEST, folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(data),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's background job ignores it
    )  # fmt: skip
    assert process.stderr is not None
    assert b"60 files" in await asyncio.wait_for(process.stderr.readline(), 90)
    process.send_signal(signal.SIGINT)
    said = await asyncio.wait_for(process.stderr.read(), 60)
    assert await process.wait() == 130
    assert b"the next run goes on from here" in said
    assert b"Traceback" not in said
