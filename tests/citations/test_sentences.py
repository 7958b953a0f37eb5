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
        ("Add 50 g. Stir for 3 m. of rope, c. 2.", ["Add 50 g.", "Stir for 3 m. of rope, c. 2."]),
        ("De 10 h \u00e0 18 h. Il est ferm\u00e9 le lundi.", ["De 10 h \u00e0 18 h.", "Il est ferm\u00e9 le lundi."]),
        ("In 1902 J. Smith met him.", ["In 1902 J. Smith met him."]),
        ("Bis zum 31. Dezember. Nr. 5 gilt ab 1. Mai.", ["Bis zum 31. Dezember.", "Nr. 5 gilt ab 1. Mai."]),
        ("Im 19. Jahrhundert waren es 47. Heute fehlt er.", ["Im 19. Jahrhundert waren es 47.", "Heute fehlt er."]),
        ("We met on June 12. August was hot.", ["We met on June 12.", "August was hot."]),
        ("Er rief: \u201eKomm.\u201c Dann ging er.", ["Er rief: \u201eKomm.\u201c", "Dann ging er."]),
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
        (
            "code meaning\nE11 the oil is too cold\nE17 the focus motor\nhas lost its place\nE40 no reading\n",
            ["code meaning", "E11 the oil is too cold", "E17 the focus motor\nhas lost its place", "E40 no reading"],
        ),
        ("In\nE17 and again in\nE17 it is so.", ["In\nE17 and again in\nE17 it is so."]),
        ("Done . '' ", ["Done . ''"]),
        ("He waits. \u2026 Then he goes. (!) So.", ["He waits. \u2026", "Then he goes. (!)", "So."]),
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
        ("The sea rises[¹²] and falls.", "The sea rises and falls."),
        ("It rises [1] [2], and falls [3].", "It rises, and falls."),
        ("It rises [ 1 ] and falls\u30102, 3\u3011.", "It rises ( 1 ] and falls(2, 3\u3011."),
        ("a bro-\nken line\nof   text", "a broken line of text"),
        ("3. Third", "Third"),
        ('<a id="e17"></a> E17 | focus lost', "E17 focus lost"),
        ("One line<br/>and another.<!-- note -->", "One line and another."),
        ("Call `Runnable[<type>]` or `run`.", "Call `Runnable[<type>]` or run."),
        ("Show `<b>` with <b>care</b>.", "Show `<b>` with care."),
        (
            "It holds while a < b and c > d, in a List<String> too.",
            "It holds while a < b and c > d, in a `List<String>` too.",
        ),
        ("Run connect <serial> --mode=on|off.", "Run connect `<serial>` --mode=on|off."),
        (
            "Ask Ann <ann@x.example> or see <https://x.example/a?b=c>.",
            "Ask Ann ann@x.example or see https://x.example/a?b=c.",
        ),
        (
            "It costs ~~129~~ 99 euros; `a ~~ b ~~ c` is code, ~5 is not.",
            "It costs 99 euros; a ~~ b ~~ c is code, ~5 is not.",
        ),
        ("~~Vouchers may be offered.~~", ""),
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
