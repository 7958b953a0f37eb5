"""Markers put right while an answer streams."""

from hypothesis import example, given
from hypothesis import strategies as st

from citewell.citations import repair, verify
from citewell.documents import Chunk, ScoredChunk
from citewell.repair import MarkerRepair

TEXTS = (
    "The oil crisis began in October 1973. Prices rose to 12 dollars.",
    "The fleet has 1,204 ships. Its flag is blue.",
    "Captain Vera Lund wrote the log in 1911.",
)
CHUNKS = [
    ScoredChunk(chunk=Chunk(id=str(n), source="s", title="t", text=text, start=0, end=len(text), index=n), score=0.5)
    for n, text in enumerate(TEXTS)
]
PARTS = (
    "The fleet has 1,204 ships [1]. ", "The oil crisis began in October 1973. [2] ", "Its flag is blue[3][2]. ",
    "Nothing supports this [9]. ", "Prices rose to 12 dollars [1] and the flag is blue [1].\n", "- [1] Vera Lund wrote the log. ",
    "No marker here. ", "An open bracket [ and [1", "【2】", "[1,\t3] ", "approx. 5 ", "\n\n",
)  # fmt: skip


def streamed(pieces: list[str]) -> tuple[str, list[str]]:
    markers = MarkerRepair(CHUNKS)
    shown = [markers.feed(piece) for piece in pieces]
    return "".join(shown) + markers.finish(), shown


def test_a_marker_at_the_wrong_passage_is_moved_and_one_that_nothing_supports_stays() -> None:
    answer = "The fleet has 1,204 ships [1]. The oil crisis began in October 1973. [2] It rained gold in Utrecht [1]."
    whole, _ = streamed([answer])
    assert (
        whole
        == "The fleet has 1,204 ships [2]. The oil crisis began in October 1973. [1] It rained gold in Utrecht [1]."
    )
    assert [(one["marker"], one["status"]) for one in verify(whole, CHUNKS)] == [
        (2, "verified"), (1, "verified"), (1, "unsupported"),
    ]  # fmt: skip


def test_words_do_not_wait() -> None:
    _, shown = streamed(["The fleet ", "has 1,204 ", "ships", " [", "1", "]", ".", " The", " flag"])
    assert shown == ["The fleet ", "has 1,204 ", "ships", " ", "", "", "", "[2]. The", " flag"]


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join), st.lists(st.floats(0, 1), max_size=12))
@example("- [1] Vera Lund wrote the log. approx. 5 The fleet has 1,204 ships [1]. " * 2, [])
@example("- [1] Vera Lund wrote the log. The fleet has 1,204 ships [1]. " * 2, [])
def test_however_the_answer_is_cut_the_same_is_shown_and_only_numbers_of_markers_change(
    answer: str, cuts: list[float]
) -> None:
    places = sorted(round(cut * len(answer)) for cut in cuts)
    pieces = [answer[a:b] for a, b in zip([0, *places], [*places, len(answer)], strict=True)]
    by_pieces, _ = streamed(pieces)
    by_character, _ = streamed(list(answer))
    assert by_pieces == by_character
    digits = str.maketrans("", "", "0123456789")
    assert by_pieces.translate(digits) == answer.translate(digits)
    assert repair(by_pieces, []) == by_pieces
