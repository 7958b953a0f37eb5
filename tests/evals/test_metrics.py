"""The rank metrics against figures worked out by hand."""

from math import log2

import pytest

from evals.metrics import hit, ndcg, percentile, recall

RELEVANCE = {"a": 2, "b": 1, "c": 1, "z": 0}


def test_ndcg_of_a_ranking_worked_out_by_hand() -> None:
    # gains 0, 2, 0, 1 at ranks 1..4: 2/log2(3) + 1/log2(5); ideal 2, 1, 1: 2 + 1/log2(3) + 1/2
    expected = (2 / log2(3) + 1 / log2(5)) / (2 + 1 / log2(3) + 1 / 2)
    assert expected == pytest.approx(0.5406, abs=1e-4)
    assert ndcg(["z", "a", "x", "b"], RELEVANCE) == pytest.approx(expected)


def test_ndcg_counts_only_down_to_its_depth() -> None:
    assert ndcg(["x", "a"], RELEVANCE, at=1) == 0
    assert ndcg(["a", "b", "c"], RELEVANCE) == 1
    # three relevant documents, but an ideal ranking of depth 2 can only hold two of them
    assert ndcg(["a", "c"], RELEVANCE, at=2) == 1


def test_recall_is_the_share_of_the_relevant_documents_found() -> None:
    assert recall(["b", "z", "a"], RELEVANCE, at=2) == pytest.approx(1 / 3)
    assert recall(["b", "z", "a"], RELEVANCE, at=10) == pytest.approx(2 / 3)


def test_hit_asks_whether_the_first_document_is_relevant() -> None:
    assert hit(["a"], RELEVANCE) == 1
    assert hit(["z", "a"], RELEVANCE) == 0
    assert hit(["z", "a"], RELEVANCE, at=2) == 1


def test_a_question_without_a_relevant_document_scores_nothing() -> None:
    assert ndcg(["a"], {}) == recall(["a"], {}, at=10) == hit([], {}) == 0


def test_percentiles_are_values_that_occurred() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert percentile(values, 0.5) == 3
    assert percentile(values, 0.95) == 5
    assert percentile([7.0], 0.5) == 7
