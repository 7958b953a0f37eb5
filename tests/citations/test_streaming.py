"""Markers put right, and put where they are missing, while an answer streams."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from citewell.citations import MARKER, repair, verify
from citewell.citations.streaming import MarkerRepair
from citewell.documents import Chunk, ScoredChunk

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
    "No marker here. ", "Its flag is blue. ", "In the U.S. Army prices rose. ", "- Captain Vera Lund wrote the log\n", "```\n", "# Flag blue\n", "An open bracket [ and [1", "【2】", "[1,\t3] ", "approx. 5 ", "\n\n",
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
    _, shown = streamed(["The fleet", " has 1,204", " ships", " [", "1", "]", ".", " The", " flag"])
    assert shown == ["The fleet", " has 1,204", " ships", " ", "", "", "", "[2]. The", " flag"]
    _, shown = streamed(["Its ", "flag", " is", " blue", ".", " The", " fleet", " of", " one", ".", "\n\n", "So"])
    assert shown == ["Its", " flag", " is", " blue", ".", "", " [2] The fleet", " of", " one", ".", "", ""]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Its flag is blue. The fleet has 1,204 ships.", "Its flag is blue. [2] The fleet has 1,204 ships. [2]"),
        ("Vera Lund wrote the log in 1911", "Vera Lund wrote the log in 1911 [3]"),
        ("- Its flag is blue\n- Prices fell.\n", "- Its flag is blue [2]\n- Prices fell.\n"),
        ("Its flag is blue.\n\nVera Lund [3] wrote it.", "Its flag is blue. [2]\n\nVera Lund [3] wrote it."),
        ("\u300eIts flag is blue\u3002\u300fPrices fell.", "\u300eIts flag is blue\u3002\u300f [2]Prices fell."),
    ],
)
def test_a_sentence_without_a_marker_that_a_passage_verifies_is_given_one(answer: str, expected: str) -> None:
    assert streamed([answer])[0] == expected
    assert {one["status"] for one in verify(expected, CHUNKS)} == {"verified"}


@pytest.mark.parametrize(
    "answer",
    [
        "The fleet has 1,205 ships.",  # another number
        "Prices rose in Utrecht to 12 dollars.",  # a name that no passage has: it would be but partial
        "Its flag is not blue.",
        "Is its flag blue?",
        "## The blue flag\n",
        "The fleet has ships:\n",
        "**Blue flag**\n",
        "| flag | blue |\n",
        "```\nIts flag is blue.\n```\n",
        "Its flag is blue [1].",  # has one, which is put right and stays the only one
        "Blue.",
        "Its flag is blue, etc. Prussian.",  # ends later than it seems
    ],
)
def test_no_marker_is_put_where_a_passage_does_not_hold_the_whole_sentence_or_nothing_is_stated(answer: str) -> None:
    assert streamed([answer])[0].count("[") == answer.count("[")


def test_a_marker_that_is_put_in_makes_no_link_of_what_follows() -> None:
    text = "高潮は七時です。"
    chunk = Chunk(id="1", source="s", title="t", text=text, start=0, end=len(text), index=0)
    markers = MarkerRepair([ScoredChunk(chunk=chunk, score=0.5)])
    assert markers.feed(f"{text}(javascript:a)") + markers.finish() == f"{text} [1] (javascript:a)"


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join), st.lists(st.floats(0, 1), max_size=12))
@example("- [1] Vera Lund wrote the log. approx. 5 The fleet has 1,204 ships [1]. " * 2, [])
@example("- [1] Vera Lund wrote the log. The fleet has 1,204 ships [1]. " * 2, [])
def test_however_the_answer_is_cut_the_same_is_shown_and_only_markers_change(answer: str, cuts: list[float]) -> None:
    places = sorted(round(cut * len(answer)) for cut in cuts)
    pieces = [answer[a:b] for a, b in zip([0, *places], [*places, len(answer)], strict=True)]
    by_pieces, _ = streamed(pieces)
    by_character, _ = streamed(list(answer))
    assert by_pieces == by_character
    assert MARKER.sub("", by_pieces).split() == MARKER.sub("", answer).split()
    assert len(MARKER.findall(by_pieces)) >= len(MARKER.findall(answer))
    assert repair(by_pieces, []) == by_pieces
