"""Where sentences begin and end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citewell.sentences import readable, sentence_spans


def split(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith met J. R. Jones. They spoke.", ["Dr. Smith met J. R. Jones.", "They spoke."]),
        ("It is in the U.S. The law is old.", ["It is in the U.S.", "The law is old."]),
        ("The U.S. fleet grew 2.5 per cent.", ["The U.S. fleet grew 2.5 per cent."]),
        ("See Fig. 3 and p. 5, i.e. the end.", ["See Fig. 3 and p. 5, i.e. the end."]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("A line broken\nby a PDF. Next one", ["A line broken\nby a PDF.", "Next one"]),
        ("# Title\nBody text here.", ["# Title", "Body text here."]),
        (
            "Looking at the Sun\nNo telescope is pointed within 20 degrees of the Sun. Visitors wait.",
            ["Looking at the Sun", "No telescope is pointed within 20 degrees of the Sun.", "Visitors wait."],
        ),
        (
            "It was founded by the\nMembers of a society that had met.",
            ["It was founded by the\nMembers of a society that had met."],
        ),
        ("Points:\n- first\n- second\n\nAfter.", ["Points:", "- first", "- second", "After."]),
        ("1. Open it.\n2. Close it.", ["1. Open it.", "2. Close it."]),
        ("\u4e00\u4e8c\u3002\u4e09\u56db\u3002", ["\u4e00\u4e8c\u3002", "\u4e09\u56db\u3002"]),
        (
            "Set it so:\n\n```dotenv\nA=1\nB=2 # or 3, not 4\n```\n\nThen go.",
            ["Set it so:", "```dotenv", "A=1", "B=2 # or 3, not 4", "```", "Then go."],
        ),
        ("Done . '' ", ["Done . ''"]),
        ("   ", []),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, sentences: list[str]) -> None:
    assert sentences == split(text)


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from(". !?\n\t#-*1\r\u3002\"'")), max_size=300))
def test_only_white_space_lies_between_the_sentences_of_any_text(text: str) -> None:
    position = 0
    for start, end in sentence_spans(text):
        assert start < end
        assert not text[position:start].strip()
        assert text[start:end] == text[start:end].strip()
        position = end
    assert not text[position:].strip()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("- **Bold** and `code` in a [link](http://x.y/z).", "Bold and code in a link."),
        ("## A heading", "A heading"),
        ("It is so.[12] And [citation needed] that.", "It is so. And that."),
        ("a bro-\nken line\nof   text", "a broken line of text"),
        ("3. Third", "Third"),
    ],
)
def test_readable_text_has_no_markup(raw: str, shown: str) -> None:
    assert shown == readable(raw)


@given(st.text())
def test_readable_text_is_one_line_without_anything_like_a_marker(text: str) -> None:
    from citewell.citations import claims

    shown = readable(text)
    assert "\n" not in shown
    assert shown == shown.strip()
    assert not claims(shown)
