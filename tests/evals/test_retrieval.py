"""The retrieval measurement, on a small pack of its own, through the real index."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evals.all import draw
from evals.packs import read_pack, read_qrels
from evals.retrieval import STAGES, evaluate, sampled, table

DOCUMENTS = {
    "danube": ("Danube", "The Danube rises in the Black Forest and flows through ten countries to the Black Sea."),
    "rhine": ("Rhine", "The Rhine begins in the Swiss Alps and ends in the North Sea. " * 20),
    "sugar": ("Photosynthesis", "Plants turn light, water and carbon dioxide into sugar and oxygen."),
    "loan": ("", "Interest on the loan is paid twice a year, on 1 January and 1 July."),
}
QUESTIONS = {
    "q1": ("Where does the Danube begin?", "danube"),
    "q2": ("How do plants make sugar?", "sugar"),
    "q3": ("When is interest due?", "loan"),
    "unjudged": ("What is the meaning of life?", None),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus = [{"_id": id_, "title": title, "text": text} for id_, (title, text) in DOCUMENTS.items()]
    queries = [{"_id": id_, "text": text} for id_, (text, _) in QUESTIONS.items()]
    for name, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"{id_}\t{document}\t1\n" for id_, (_, document) in QUESTIONS.items() if document)
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return tmp_path


def _pack(folder: Path):
    return read_pack("rivers", [folder / "corpus.jsonl"], folder / "queries.jsonl", folder / "qrels.tsv")


@pytest.mark.parametrize("whole", [True, False])
async def test_every_stage_is_measured_through_the_real_index(folder, whole) -> None:
    result = await evaluate(_pack(folder), whole=whole, cache=folder / "cache")
    assert result.questions == 3
    assert result.documents == 4
    assert (result.chunks == 4) is whole  # the long document becomes several chunks
    assert set(result.quality) == set(STAGES)
    assert result.quality["reranked"]["recall@10"] == pytest.approx(1)
    assert 0.6 < result.quality["reranked"]["ndcg@10"] <= 1
    assert 0 < result.latency_ms["total"]["p50"] <= result.latency_ms["total"]["p95"]
    assert "reranked" in table(result)
    draw([result], folder / "plot.png")
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


async def test_a_second_run_uses_the_index_of_the_first(folder, capsys) -> None:
    await evaluate(_pack(folder), whole=True, cache=folder / "cache")
    assert "indexed" in capsys.readouterr().err
    await evaluate(_pack(folder), whole=True, cache=folder / "cache")
    assert "indexed" not in capsys.readouterr().err


def test_the_command_prints_json(folder) -> None:
    command = [
        sys.executable,
        "-m",
        "evals.retrieval",
        *(str(folder / name) for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv")),
    ]
    done = subprocess.run(
        [*command, "--whole", "--json", "--cache", str(folder / "cache")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert json.loads(done.stdout)["quality"]["dense"]["ndcg@10"] == pytest.approx(1)


def test_judgements_that_are_not_three_columns_are_an_error(tmp_path) -> None:
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1 d1 1\n")
    with pytest.raises(ValueError, match="line 2"):
        read_qrels(tmp_path / "qrels.tsv")


def test_a_sample_of_questions_is_the_same_every_time(folder) -> None:
    pack = _pack(folder)
    assert sampled(pack, 2).queries == sampled(pack, 2).queries
    assert len(sampled(pack, 2).queries) == 2
    assert sampled(pack, None) is pack
