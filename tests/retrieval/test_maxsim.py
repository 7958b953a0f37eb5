"""Late interaction: what is stored, and what it says of a passage."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citewell.retrieval import maxsim

PASSAGES = [
    "The Danube rises in the Black Forest and flows into the Black Sea.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "",
    "Interest on the loan is paid twice a year, on 1 January and 1 July.",
]
QUESTION = "Where does the river Danube begin?"


@pytest.fixture(scope="module")
def encoded(embedder):
    return embedder.encode([*PASSAGES, QUESTION, "?!"], tokens=True)


@pytest.fixture(scope="module")
def packed(encoded):
    return [maxsim.pack(*pair) for pair in list(zip(encoded.tokens, encoded.token_ids, strict=True))[: len(PASSAGES)]]


@pytest.fixture(scope="module")
def query(encoded):
    return maxsim.query(encoded.tokens[len(PASSAGES)], encoded.token_ids[len(PASSAGES)])


def test_scores_are_close_to_those_of_the_uncut_token_vectors(encoded, packed, query) -> None:
    asked = encoded.tokens[len(PASSAGES)]
    uncut = [
        float((tokens @ asked.T).max(axis=0) @ query.weights) if len(tokens) else 0.0
        for tokens in encoded.tokens[: len(PASSAGES)]
    ]
    assert maxsim.score(query, packed) == pytest.approx(uncut, abs=0.05)


def test_one_matrix_product_gives_what_a_loop_over_passages_gives(packed, query) -> None:
    one_by_one = [float(maxsim.score(query, [one])[0]) for one in packed]
    assert maxsim.score(query, packed) == pytest.approx(one_by_one, abs=1e-5)


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=12), at_once=st.integers(1, 200), seed=st.integers(0, 99)
)
def test_scores_are_those_of_a_loop_over_passages_and_their_stretches(lengths, at_once, seed) -> None:
    drawn = np.random.default_rng(seed)
    chunks = [
        maxsim.Packed(
            codes=drawn.integers(0, 256, (length, maxsim.PACKED_BYTES)).astype(np.uint8),
            scales=drawn.uniform(0.01, 0.1, length).astype(np.float16),
        )
        for length in lengths
    ]
    vectors = drawn.standard_normal((4, maxsim.DIMENSIONS)).astype(np.float32)
    query = maxsim.Query(vectors=vectors, weights=np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maxsim, "_AT_ONCE", at_once)
        found = maxsim._compared(query, chunks)
    half = maxsim.HALF_STRETCH
    for place, chunk in enumerate(chunks):
        alike = maxsim.decoded(chunk) @ vectors.T
        stretches = [alike[start : start + 2 * half] for start in range(0, max(1, len(chunk) - half), half)]
        whole, *best = (float(part.max(axis=0) @ query.weights) if len(part) else 0.0 for part in (alike, *stretches))
        assert (found.whole[place], found.stretch[place]) == pytest.approx((whole, max(best)), rel=1e-4, abs=1e-4)
        assert found.sums[place] == pytest.approx(maxsim.decoded(chunk).sum(axis=0), rel=1e-3, abs=1e-3)


def test_the_passage_that_answers_comes_first_and_one_without_text_scores_nothing(packed, query) -> None:
    scores = maxsim.score(query, packed)
    assert scores.argmax() == 0
    assert scores[2] == 0


def test_packed_vectors_survive_being_written_and_read(packed) -> None:
    for one in packed:
        again = maxsim.unpack(one.tobytes())
        assert np.array_equal(again.codes, one.codes)
        assert np.array_equal(again.scales, one.scales)


def test_punctuation_is_not_stored_and_a_token_takes_66_bytes(encoded, packed) -> None:
    assert len(packed[0]) == len(encoded.token_ids[0]) - 1  # the full stop
    assert len(packed[0].tobytes()) == 4 + 66 * len(packed[0])


@pytest.mark.parametrize("cut", [0, 3, 40])
def test_damaged_vectors_are_an_error(packed, cut) -> None:
    with pytest.raises(ValueError, match="damaged"):
        maxsim.unpack(packed[0].tobytes()[:cut])


def test_a_question_of_punctuation_alone_still_has_weights(encoded, packed) -> None:
    query = maxsim.query(encoded.tokens[-1], encoded.token_ids[-1])
    assert query.weights.sum() == pytest.approx(1)
    assert np.isfinite(maxsim.score(query, packed)).all()


def test_final_scores_lie_between_0_and_1_and_use_all_evidence(packed, query) -> None:
    alone = maxsim.rerank(query, packed, dense=[None] * 4, keyword=[None] * 4).score
    pushed = maxsim.rerank(query, packed, dense=[0.1, 0.9, None, 0.1], keyword=[1.0, 9.0, 2.0, None]).score
    for scores in (alone, pushed):
        assert ((scores >= 0) & (scores <= 1 + 1e-6)).all()
    assert alone.argmax() == 0
    assert pushed[1] > alone[1]


def test_no_candidates_give_no_scores(query) -> None:
    assert len(maxsim.rerank(query, [], dense=[], keyword=[]).score) == 0


def test_what_was_learned_for_other_passages_is_refused(monkeypatch) -> None:
    other = maxsim.Passages(projection=np.eye(384, maxsim.DIMENSIONS, dtype=np.float32), idf=maxsim.passages().idf)
    monkeypatch.setattr(maxsim, "passages", lambda: other)
    with pytest.raises(RuntimeError, match="train_questions"):
        maxsim._questions.__wrapped__()


@pytest.mark.parametrize(
    "first_use",
    ["citewell.retrieval.maxsim.passages()", "citewell.guards.heads.load_heads()", "chains.judge._fitted()"],
)  # fmt: skip
def test_whoever_multiplies_matrices_does_so_in_one_thread(first_use: str) -> None:
    """In a process of its own: which threads there are is said once for all of it."""
    module = first_use.rpartition(".")[0]
    code = f"import json, {module}, threadpoolctl; {first_use}; print(json.dumps(threadpoolctl.threadpool_info()))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    pools = [pool for pool in json.loads(done.stdout) if pool["internal_api"] == "openblas"]
    assert pools
    assert {pool["num_threads"] for pool in pools} == {1}
