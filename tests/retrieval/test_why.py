import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from citewell.models import open_embedder
from citewell.retrieval import open_index
from tests.retrieval.samples import made, settings
from tests.service import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("why")
    asyncio.run(fill(folder))
    return folder


async def fill(folder: Path) -> None:
    chosen = settings(folder)
    embedder = open_embedder(chosen)
    async with open_index(chosen, embedder) as index, index.writing():
        texts = ["The ferry leaves at nine.", "Bicycles travel free of charge.", "The harbour closes at night."]
        await index.replace_sources([made("ferry.txt", texts), made("copy.txt", texts[:1])])
    embedder.close()


def why(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "CITEWELL_DATA_DIR": str(folder),
        "CITEWELL_RETRIEVAL_TIMEOUT_S": "60",
        "COLUMNS": "80",
    }
    return subprocess.run(
        [sys.executable, "-m", "citewell.retrieval", "why", *arguments], cwd=ROOT, env=environment, timeout=200,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_table_shows_every_candidate_with_its_figures(folder: Path) -> None:
    done = why(folder, "When does the ferry leave?")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    first = next(line for line in lines if line.split()[:1] == ["1"])
    assert len(re.findall(r"\d\.\d{3}", first)) == 6
    assert first.count("(") == 4, "a figure without its rank"
    best = next(line for line in lines if "leaves at nine" in line)
    assert best.split()[:2] == ["1", "copy.txt:"]
    assert all(len(line) <= 80 for line in lines)
    for word in ("dense", "keyword", "fused", "maxsim", "the same text as another candidate", "rerank"):
        assert word in done.stdout


def test_the_whole_trace_comes_as_json(folder: Path) -> None:
    done = why(folder, "When does the ferry leave?", "--json", "--where", '{"source": "ferry.txt"}')
    trace = json.loads(done.stdout)
    assert {row["source"] for row in trace["candidates"]} == {"ferry.txt"}
    assert set(trace["stages_ms"]) == {"embed", "dense", "keyword", "catalog", "rerank"}


@pytest.mark.parametrize(("where", "words"), [("{", "not JSON"), ('{"colour": "red"}', "cannot be filtered on")])
def test_a_filter_that_makes_no_sense_ends_with_a_sentence(folder: Path, where: str, words: str) -> None:
    done = why(folder, "x", "--where", where)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
