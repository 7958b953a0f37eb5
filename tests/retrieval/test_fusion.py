"""Two result lists become one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citewell.retrieval.fusion import DENSE_WEIGHT, fuse

HITS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(-1, 50)), max_size=12)


def test_scores_are_scaled_per_list_and_added_by_weight() -> None:
    fused = fuse([("a", 0.8), ("b", 0.6), ("c", 0.4)], [("b", 12.0), ("d", 2.0)])
    scores = {one.id: one.score for one in fused}
    assert scores == pytest.approx({"a": DENSE_WEIGHT, "b": DENSE_WEIGHT / 2 + (1 - DENSE_WEIGHT), "c": 0, "d": 0})
    assert fused[0].id == "b"


def test_what_only_one_search_found_says_so() -> None:
    by_id = {one.id: one for one in fuse([("a", 0.8)], [("b", 3.0)])}
    assert (by_id["a"].dense, by_id["a"].keyword) == (0.8, None)
    assert (by_id["b"].dense, by_id["b"].keyword) == (None, 3.0)


@given(HITS, HITS)
def test_every_hit_comes_out_once_in_descending_order_within_0_and_1(dense, keyword) -> None:
    fused = fuse(dense, keyword)
    assert sorted(one.id for one in fused) == sorted({id_ for id_, _ in [*dense, *keyword]})
    scores = [one.score for one in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 + 1e-9 for score in scores)


@given(HITS, HITS)
def test_the_order_of_equal_input_does_not_matter(dense, keyword) -> None:
    assert fuse(dense, keyword) == fuse(dense[::-1], keyword[::-1])


@given(HITS, HITS, st.integers(0, 5))
def test_a_limit_keeps_the_best(dense, keyword, limit) -> None:
    assert fuse(dense, keyword, limit=limit) == fuse(dense, keyword)[:limit]
