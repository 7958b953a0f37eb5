"""An answer as HTML: Markdown without active content or remote images, and behind every marker its source.

A marker is a `<details>` element: it opens with the mouse, with Enter, and under a screen reader, without a script.
Pure: text in, text out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from citewell.client import Citation, Passage

SIGN = {"verified": "✓", "partial": "~", "unsupported": "✗"}
WORDS = {"verified": "verified", "partial": "partly supported", "unsupported": "not supported"}
MEANING = {
    "verified": "Every number, name and other word of the sentence stands in this passage.",
    "partial": "Most of the sentence stands in this passage. Read it before you rely on it.",
    "unsupported": "This passage does not say so. Do not rely on the sentence.",
}
_MARKERS = re.compile(r"[\[\u3010][ \t]*[0-9]{1,4}(?:[ \t]*[,;][ \t]*[0-9]{1,4})*[ \t]*[\]\u3011]")
_BEFORE = re.compile(r"^[\s>|#*+-]*\s")
"""What makes an item, a row, a heading or a quotation of a sentence."""
_PLACE = "\ue000{}\ue001"
_PLACED = re.compile("\ue000([0-9]+)\ue001")
_PRIVATE = str.maketrans("", "", "\ue000\ue001")


def _markdown() -> MarkdownIt:
    # No HTML, links or pictures: an answer is made from documents that anybody may have written, and a picture alone
    # would tell its owner's server that it was read.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.disable(["html_block", "html_inline", "link", "autolink", "image", "reference"])

    def fit(state: StateCore) -> None:
        for token in state.tokens:
            match token.type:
                case "paragraph_open":
                    token.tag, token.attrs = "div", {"class": "cw-p"}  # a <p> cannot hold a <details>
                case "paragraph_close":
                    token.tag = "div"
                case "heading_open" | "heading_close":
                    token.tag = f"h{min(6, int(token.tag[1]) + 2)}"  # below the question's, which is <h2>
                case "bullet_list_open" | "ordered_list_open" | "table_open":
                    token.attrSet("dir", "auto")  # bullets, numbers and columns begin where its words do

    def table(
        self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: dict[str, Any]
    ) -> str:
        scrolled = '<div class="cw-scroll" tabindex="0" role="region" aria-label="Table">'
        return scrolled + self.renderToken(tokens, index, options, env)

    markdown.core.ruler.push("fit", fit)
    markdown.add_render_rule("table_open", table)
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return markdown


MARKDOWN = _markdown()


def answer_html(
    text: str,
    citations: Sequence[Citation] = (),
    passages: Sequence[Passage | None] = (),
    file_url: Callable[[str, int | None], str] | None = None,
    *,
    is_running: bool = False,
    is_news: bool = False,
) -> str:
    """The whole answer.

    Args:
        citations: One for each marker of the text, in its order.
        passages: For each citation its quote in its surroundings; None where the document is gone.
        file_url: Where a source's original opens, given its uri and the page.
        is_running: Whether more of it is to come.
        is_news: Whether it has just become whole, so that a screen reader reads it out. Of what a page replaces whole it
            does so for an alert alone.
    """
    placed = _place(text.translate(_PRIVATE), citations)
    body = MARKDOWN.render(placed)
    body = _PLACED.sub(lambda found: _cite(int(found[1]), citations, passages, file_url), body)
    role = ' role="alert"' if is_news else ""
    return f'<div class="cw-answer"{role} aria-busy="{str(is_running).lower()}">{body}</div>'


def question_html(text: str) -> str:
    return f'<h2 class="cw-question">{html.escape(text)}</h2>'


def unmarked_html(sentences: Sequence[str]) -> str:
    """HTML for the sentences of an answer that have no citation."""
    plain = (MARKDOWN.renderInline(_BEFORE.sub("", sentence).rstrip("| \n")) for sentence in sentences)
    quoted = " · ".join(f"“<bdi>{sentence}</bdi>”" for sentence in plain)
    return f'<div class="cw-unmarked cw-small"><strong>Without a source:</strong> {quoted}</div>'


def _place(text: str, citations: Sequence[Citation]) -> str:
    """Replace the number of each marker by that of its citation."""
    waiting = list(range(len(citations)))

    def take(number: int) -> str:
        # In order; where that does not fit (a marker inside code, say), the next one with this number.
        chosen = next((n for n in waiting[:1] if citations[n].marker == number), None)
        if chosen is None:
            chosen = next((n for n in waiting if citations[n].marker == number), waiting[0] if waiting else None)
        if chosen is None:
            return f"[{number}]"
        waiting.remove(chosen)
        return _PLACE.format(chosen)

    return _MARKERS.sub(lambda found: "".join(take(int(number)) for number in re.findall("[0-9]+", found[0])), text)


def _cite(
    number: int,
    citations: Sequence[Citation],
    passages: Sequence[Passage | None],
    file_url: Callable[[str, int | None], str] | None,
) -> str:
    citation = citations[number]
    passage = passages[number] if number < len(passages) else None
    status, title = citation.status, citation.title or citation.source
    number_of_page = passage.page if passage else citation.page
    page = f", page {number_of_page}" if number_of_page else ""
    label = html.escape(f"Source {citation.marker}, {WORDS[status]}: {title}{page}", quote=True)
    return (
        f'<details class="cw-cite cw-{status}"><summary aria-label="{label}" title="{label}">'
        f'{citation.marker}<span aria-hidden="true">&nbsp;{SIGN[status]}</span></summary>'
        f'<div class="cw-source"><div><strong class="cw-status">{SIGN[status]} {WORDS[status].capitalize()}</strong>'
        f" · {html.escape(title)}{page}</div>"
        f'<div class="cw-small">{MEANING[status]}</div>{_passage(citation, passage)}'
        f'<div class="cw-small">{html.escape(citation.source)}, {_place_of(citation)}'
        f"{_link(citation, passage, file_url)}{_copies(citation)}</div></div></details>"
    )


def _place_of(citation: Citation) -> str:
    if citation.quote:
        return f"characters {citation.start:,} to {citation.end:,}"
    return f"from character {citation.start:,}"


def _copies(citation: Citation) -> str:
    return f" · also in {html.escape(', '.join(citation.also_in))}" if citation.also_in else ""


def _passage(citation: Citation, passage: Passage | None) -> str:
    if passage is None:
        gone = '<div class="cw-small">The document is no longer there; this is what was quoted.</div>'
        return f'<blockquote class="cw-passage"><mark>{html.escape(citation.quote)}</mark></blockquote>{gone}'
    parts = (passage.before.lstrip(), passage.quote, passage.after.rstrip())
    before, quote, after = (html.escape(part) for part in parts)
    quote = f"<mark>{quote}</mark>" if quote.strip() else ""
    begun = "… " if citation.start > len(passage.before) else ""
    return f'<blockquote class="cw-passage">{begun}{before}{quote}{after}{" …" if passage.goes_on else ""}</blockquote>'


def _link(citation: Citation, passage: Passage | None, file_url: Callable[[str, int | None], str] | None) -> str:
    if passage is None or not passage.has_file or file_url is None:
        return ""
    at = f" at page {passage.page}" if passage.type == "pdf" and passage.page else ""
    kind = "PDF" if passage.type == "pdf" else "file"
    url = html.escape(file_url(citation.source, passage.page if at else None), quote=True)
    return f' · <a href="{url}" target="_blank" rel="noopener">Open the {kind}{at}</a>'
