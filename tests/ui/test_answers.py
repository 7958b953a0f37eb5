"""Answers as HTML: every mark with its own source, and nothing that runs or loads."""

import re
from dataclasses import replace

import pytest

from citewell.client import Citation, Passage, ServiceError
from citewell.ui.answers import answer_html, unmarked_html
from citewell.ui.why import why_html
from citewell.ui.words import explain


def citation(marker: int, quote: str, **more: object) -> Citation:
    fields = {
        "marker": marker, "sentence": quote, "quote": quote, "status": "verified", "score": 1.0, "source": "a.md",
        "title": "A", "page": None, "start": 0, "end": len(quote), "chunk_id": "c",
    }  # fmt: skip
    return Citation(**(fields | more))  # type: ignore[arg-type]


def quotes(html: str) -> list[str]:
    return re.findall("<mark>(.*?)</mark>", html)


def test_each_mark_opens_the_source_of_its_own_sentence() -> None:
    html = answer_html("One [1]. Two [2][1]. Three [1, 2].", [citation(n, q) for n, q in ((1, "a"), (2, "b"), (1, "c"), (1, "d"), (2, "e"))])  # fmt: skip
    assert quotes(html) == ["a", "b", "c", "d", "e"]
    assert "[" not in re.sub("<[^>]*>", "", html)


@pytest.mark.parametrize(("start", "within"), [(4, False), (600, True)])
def test_a_passage_has_dots_only_where_the_document_goes_on(start: int, within: bool) -> None:
    passage = Passage(
        uri="a.md", title="A", type="md", before="One ", quote="two", after=" three", page=None, goes_on=False, has_file=False
    )  # fmt: skip
    html = answer_html("Two [1].", [citation(1, "two", start=start)], [passage])
    assert ("… One" in html) is within
    assert " three</blockquote>" in html
    html = answer_html("Two [1].", [citation(1, "two", start=start)], [replace(passage, goes_on=True)])
    assert " three …</blockquote>" in html


def test_a_mark_without_a_citation_stays_text() -> None:
    html = answer_html("One [1]. Two [7].", [citation(1, "a")])
    assert quotes(html) == ["a"]
    assert "[7]" in html


def test_other_documents_with_the_same_passage_are_named() -> None:
    assert "also in b.md, c.md" in answer_html("One [1].", [citation(1, "a", also_in=["b.md", "c.md"])])
    assert "also in" not in answer_html("One [1].", [citation(1, "a")])


def test_a_citation_whose_marker_was_corrected_still_opens() -> None:
    assert quotes(answer_html("One [3].", [citation(1, "a")])) == ["a"]


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "![x](https://evil.example/p.png)",
        "[click](javascript:alert(1))", "[here](https://evil.example)", "<https://evil.example>", "[x]: https://evil.example\n\n![x]",
        "a\n\n<details open ontoggle=alert(1)>", "\ue0000\ue001",
    ],
)  # fmt: skip
def test_nothing_in_an_answer_or_a_document_runs_or_loads(hostile: str) -> None:
    source = citation(1, hostile, title=hostile, source=hostile, also_in=[hostile])
    passage = Passage(
        uri=hostile,
        title=hostile,
        type="pdf",
        before=hostile,
        quote=hostile,
        after=hostile,
        page=2,
        goes_on=True,
        has_file=True,
    )
    html = answer_html(f"{hostile} [1]", [source], [passage], lambda uri, page: f"http://service/?{uri}#{page}")
    tags = re.findall("<([a-z]+)((?: [^<>]*)?)>", html)
    assert {name for name, _ in tags} <= {"div", "details", "summary", "span", "strong", "blockquote", "mark", "a"}
    assert not re.search(r"<[a-z]+[^<>\"]*\son[a-z]+=", re.sub('"[^"]*"', '""', html))
    assert all(link.startswith("http://service/") for link in re.findall('(?:href|src)="([^"]*)"', html))


def test_why_says_what_was_kept_and_escapes_what_it_shows() -> None:
    rows = [{"id": str(n), "source": "<b>.md", "score": 1 / n, "dropped": None if n < 3 else "below top_k"} for n in range(1, 20)]  # fmt: skip
    html = why_html(
        {"stages_ms": {"embed": 2.0}, "candidates": rows}, {"stages_ms": {"generate": 0.0}, "confidence": 0.42}
    )
    assert "19 passages compared, 2 kept" in html
    assert "42 %" in html
    assert "… and 7 more" in html
    assert (html.count("✓ kept"), html.count("<td>not kept</td>")) == (2, 10)
    assert "<b>" not in html


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ({"code": "unreachable"}, "make run"), ({"code": "budget_exceeded", "detail": "Used up.", "retry_after_s": 1800.0, "status": 429}, "in 30 minutes"),
        ({"code": "rate_limited", "detail": "Busy.", "retry_after_s": 119.2, "status": 429}, "in 120 seconds"),
        ({"code": "budget_exceeded", "detail": "Used up.", "retry_after_s": 40000, "status": 429}, "in 12 hours"),
        ({"code": "internal", "detail": "Logged.", "status": 500, "request_id": "r-1"}, "r-1"), ({"code": "new_one", "detail": "So.", "retryable": True}, "Ask again"),
        ({"code": "source_unsupported", "detail": "the file is empty", "status": 415}, "The file is empty. What can be added"),
        ({"code": "source_unreadable", "detail": "the Word document is damaged", "status": 422}, "damaged. See whether it opens"),
    ],
)  # fmt: skip
def test_a_fault_says_what_to_do(problem: dict[str, object], words: str) -> None:
    assert words in explain(ServiceError(problem))


def test_sentences_without_a_source_are_shown_without_what_stands_around_them() -> None:
    html = unmarked_html(
        ["It rained <b>gold</b>.", "& silver", "- **-5 °C** at `dawn`", "| a | b |\n", "> ## So", "[x](http://evil)"]
    )
    shown = re.sub("</?bdi>", "", html).removesuffix("</div>").split("</strong> ", 1)[1]
    assert shown.split(" · ") == [
        "“It rained &lt;b&gt;gold&lt;/b&gt;.”", "“&amp; silver”", "“<strong>-5 °C</strong> at <code>dawn</code>”", "“a | b”", "“So”",
        "“[x](http://evil)”",
    ]  # fmt: skip


def test_headings_lists_and_tables_fit_into_the_page() -> None:
    html = answer_html("# One\n\n- two [1]\n\n1. three\n\n|a|\n|-|\n|b|\n\nFour.", [citation(1, "two")])
    for part in (
        "<h3>One</h3>", '<ul dir="auto">', '<ol dir="auto">', 'role="region" aria-label="Table"><table dir="auto">', "</table></div>",
        '<div class="cw-p">Four.</div>',
    ):  # fmt: skip
        assert part in html


def test_an_answer_without_a_quote_names_where_its_passage_begins() -> None:
    assert "characters 4 to 7<" in answer_html("One [1].", [citation(1, "one", start=4, end=7)])
    assert "from character 4<" in answer_html("One [1].", [citation(1, "", start=4, end=4)])


def test_only_an_answer_that_has_just_come_is_read_out() -> None:
    assert 'class="cw-answer" role="alert" aria-busy="false"' in answer_html("One.", is_news=True)
    assert 'class="cw-answer" aria-busy="false"' in answer_html("One.")
    assert 'class="cw-answer" aria-busy="true"' in answer_html("One", is_running=True)
