"""The figures that judge answers, on cases counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from evals.answers import auc, f1, holds, main, normalised, tradeoff
from evals.citations import Item, measure
from evals.train_sentences import fit


def test_answers_are_compared_as_the_official_squad_script_does() -> None:
    assert normalised("The  U.S.-led, Army!") == "usled army"
    assert holds("It began in October 1973, they say.", ["october 1973"])
    assert not holds("It began in October 19733.", ["October 1973"])
    assert f1("the red house", ["a red car", "red house"]) == 1.0
    assert f1("red house", ["red car"]) == 0.5
    assert f1("x", ["y"]) == 0.0


def test_questions_of_which_none_names_its_document_are_refused_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "How high is it?", "answers": ["42 metres"]}\n')
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path / "queries.jsonl")])
    assert "give QRELS" in capsys.readouterr().err


def test_auc_counts_ties_half() -> None:
    assert auc([0.9, 0.8], [0.1, 0.2]) == 1.0
    assert auc([0.1], [0.9]) == 0.0
    assert auc([0.5, 0.5], [0.5]) == 0.5


def test_the_tradeoff_runs_from_refusing_nothing_to_refusing_everything() -> None:
    points = tradeoff([0.4, 0.8], [0.1, 0.6])
    assert points[0] == (0.0, 0.0, 0.0)
    assert points[-1][1:] == (1.0, 1.0)
    assert (0.4, 0.0, 0.5) in points


def test_logistic_regression_finds_the_weights_that_made_the_data() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20_000, 2)).astype(np.float32)
    right = rng.random(20_000) < 1 / (1 + np.exp(-(2 * rows[:, 0] - rows[:, 1] + 0.5)))
    weights, bias = fit(rows, right)
    assert weights == pytest.approx([2, -1], abs=0.1)
    assert bias == pytest.approx(0.5, abs=0.1)


def test_a_changed_number_is_counted_against_precision_only_when_still_verified() -> None:
    item = Item(
        "made", "The fleet has 1,204 ships in Norfolk.", "The fleet has 1,204 ships in Norfolk.", "Paris is old."
    )
    figures = measure([item])
    assert figures["supported"]["made"]["verified"] == 1.0
    assert figures["changed"]["number, near"] == {
        "n": 1, "precision": 1.0, "recall": 1.0, "still_verified": 0, "called_unsupported": 1.0,
        "marked": 0.0, "rightly": None,
    }  # fmt: skip
