"""What a page would make of a screened answer, by CommonMark's own rules of what is code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from citewell.guards.markup import Markup

PAGE = MarkdownIt("commonmark", {"html": True}).enable("table")
PAGE.validateLink = lambda _: True  # type: ignore[method-assign]  # not every page is as careful
SIGNS = st.sampled_from([
    "`", "``", "```", "````", "\\", "<img src=x onerror=a>", "!", "[x](http://e/p)", "![x](http://e/p)", "<script>a</script>", "\n", "\n\n", " ", "    ",
    "- ", "> ", "1. ", "<p>", "<b>", "word", "~~~", "[a](", "][", "]: /x", "<", ">", "|", "\n|-|-|\n", "\t", "\r", "\xa0",
])  # fmt: skip


def shown(answer: str) -> str:
    return PAGE.render(Markup().feed(answer, last=True))


@pytest.mark.parametrize(
    "answer",
    [
        "Look: ``` ![x](http://e/?q=secret)", "\\`<img src=x onerror=a>`", "``` js `x`\n<img src=x onerror=a>",
        "    ```\n<img src=x onerror=a>", "<p>`<img src=x onerror=a>`", "- a\n  ```\n\n<img src=x onerror=a>",
        "`x`` <img src=x onerror=a> ```", "``\na`` <img src=x onerror=a> ``", "~~~\n```\n~~~\n<img src=x onerror=a>",
        "```\na ```\n```\n<img src=x onerror=a>", "  ```\n```\n<img src=x onerror=a>",
        "- ```\n  ```\n  <img src=x onerror=a>", "- a\n   ```\n```\n```\n<img src=x onerror=a>",
        "1. a\n   ```\n     ```\n   <img src=x onerror=a>", "````\n```\n````\n<img src=x onerror=a>",
        "```\n    ```\n```\n<img src=x onerror=a>", "\\" * 65 + "` <img src=x onerror=a> `",
        "x\r```\n```\n<img src=x onerror=a>",
        "[a](`) <img src=x onerror=a> `", "[a][`] <img src=x onerror=a> `\n\n[`]: /x",
        "| ` | <img src=x onerror=a> | ` |\n|-|-|-|", "```|<img src=x onerror=a>\n|-|-|", "`a\r` <img src=x onerror=a> `",
        "`a\n\xa0\n` <img src=x onerror=a> `", "```" + "x" * 300 + "\n```\n<img src=x onerror=a>",
    ],
)  # fmt: skip
def test_what_only_looks_like_code_hides_nothing(answer: str) -> None:
    assert "<img" not in shown(answer)


@given(st.lists(SIGNS, max_size=12).map("".join))
def test_no_page_runs_or_loads_what_was_screened(answer: str) -> None:
    html = shown(answer)
    assert "<img" not in html
    assert "<script" not in html


@pytest.mark.parametrize(
    "answer",
    [
        "Use `<b>x</b>`:\n\n```html\n<script>x</script>\n```\n", "1. Write [1][2] `<i>`:\n\n   ```\n   <script>\n   ```\n",
        "~~~\n<img>\n```\n~~~\nand `<u>`", "About ~5 `<a>` and `` `<b>` ``",
        "See [the page](https://e/?a=1) on `<a>`",
    ],
)  # fmt: skip
def test_code_stays_as_it_is(answer: str) -> None:
    assert Markup().feed(answer, last=True) == answer


@pytest.mark.parametrize(
    "address",
    [
        "javascript:a", "VBScript:a", "data:text/html,a", "&#106;avascript:a", "java&Tab;script:a", "javascript\\:a",
        "javascript&colon;a", "<&#1;javascript:a>", "".join(f"&#{ord(c):07};" for c in "javascript:") + "a",
        "&#32;" * 40 + "javascript:a",
    ],
)  # fmt: skip
@pytest.mark.parametrize("link", ["[x]({})", "[x]\n\n[x]: {}"])
def test_a_script_is_no_address_however_it_is_written(link: str, address: str) -> None:
    assert 'href="#' in shown(link.format(address))


@pytest.mark.parametrize(
    "answer",
    ["[x](https://e/?a=1&b=2)", "[x](day.html)", "[1] (data)", "[x](" + "y" * 200 + ")", "[1]: the data: all", "[x](d"],
)
def test_other_addresses_stay(answer: str) -> None:
    assert Markup().feed(answer, last=True) == answer


@pytest.mark.parametrize("before", ["", "> ", "- ", "   ", "1. "])
@pytest.mark.parametrize(
    "address", [" https://e/a", "//e/a", " <https://e>", "\nhttps://e", " HTTP\\://e", " &#104;ttps://e 'A'"]
)
def test_no_line_makes_links_of_the_markers(before: str, address: str) -> None:
    answer = f"So it is. [1]\n\n{before}[1]:{address}\n"
    assert "<a href" in PAGE.render(answer)
    markup = Markup()
    screened = "".join(map(markup.feed, answer)) + markup.feed("", last=True)
    assert "<a href" not in PAGE.render(screened)
    assert screened == Markup().feed(answer, last=True)
    assert markup.found


@pytest.mark.parametrize(
    "answer", ["[x]: https://e", "As [1]: https://e says", "```\n[1]: https://e\n```", "[1]: see https://e", "[1]: a/b"]
)
def test_other_lines_with_an_address_stay(answer: str) -> None:
    assert Markup().feed(answer, last=True) == answer


def test_a_marker_does_not_hold_the_answer_back() -> None:
    markup = Markup()
    assert markup.feed("So it is [1][2]. And") == "So it is [1][2]. And"
    assert markup.feed(" (see [3] (a page") == " (see [3] (a page"
