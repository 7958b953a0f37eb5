"""The everyday questions ask for what their documents say."""

import pytest

from citewell.ingestion.load import load
from evals.everyday import FOLDERS, figures, holds, kind
from evals.packs import read_jsonl

ROWS = list(read_jsonl(FOLDERS["handbook"].parent / "everyday.jsonl"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_an_answer_must_hold_stands_in_the_documents(folder: str) -> None:
    files = [path for path in sorted(FOLDERS[folder].iterdir()) if path.is_file() and path.suffix]
    text = " ".join(" ".join(load(path.read_bytes(), path.name).text.replace("|", " ").split()) for path in files)
    missing = [
        wording for row in ROWS if row["folder"] == folder for part in row["holds"] for wording in part
        if wording not in text
    ]  # fmt: skip
    assert missing == []


def test_questions_of_every_kind_are_asked_of_both_collections() -> None:
    kinds = {"one thing", "two things", "follow-up", "not there", "condition"}
    for folder in ("examples", "handbook"):
        assert {kind(row) for row in ROWS if row["folder"] == folder} == kinds


@pytest.mark.parametrize("folder", ["papers", "leaflets"])
def test_what_others_are_asked_is_told_apart_by_how_it_is_asked(folder: str) -> None:
    kinds = [kind(row) for row in ROWS if row["folder"] == folder]
    assert all(name.startswith(f"{folder}: ") for name in kinds)
    assert min(kinds.count(name) for name in kinds) >= 6


def test_an_answer_must_hold_every_part_in_one_of_its_wordings() -> None:
    parts = [["three months", "quarterly"], ["22 minutes"]]
    assert holds("Descale quarterly · it takes\n22 minutes.", parts)
    assert not holds("Descale every three months.", parts)


def test_figures_count_by_kind() -> None:
    rows = [
        {"kind": "one thing", "right": True, "refused": False, "reserve": False, "needless": 2},
        {"kind": "one thing", "right": True, "refused": False, "reserve": True, "needless": 0},
        {"kind": "one thing", "right": False, "refused": False, "reserve": True, "needless": 3},
        {"kind": "one thing", "right": False, "refused": True, "reserve": False, "needless": 0},
    ]
    assert figures(rows) == {
        "one thing": {"questions": 4, "right": 0.5, "refused": 0.25, "reserve": 0.5, "needless": 1.25}
    }
