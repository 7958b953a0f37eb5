"""What a question and a thread id may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citewell.errors import InvalidRequest, MessageTooLong
from citewell.questions import check_question, check_thread_id


@given(st.text())
def test_any_text_is_taken_whole_or_refused_with_a_reason(text: str) -> None:
    refusal = ""
    try:
        checked = check_question(text, limit=50)
    except InvalidRequest as exc:
        refusal = exc.detail
    assert refusal or (checked and checked == text.strip())


def test_line_breaks_and_tabs_stay() -> None:
    assert check_question("\n  if x:\n\treturn y ", limit=100) == "if x:\n\treturn y"


@pytest.mark.parametrize("bad", [None, 5, b"bytes", "", "  ", "a\x00b", "\ud800", "bell\x07"])
def test_what_is_no_question_is_refused(bad: object) -> None:
    with pytest.raises(InvalidRequest):
        check_question(bad, limit=100)


def test_too_long_says_how_long() -> None:
    with pytest.raises(MessageTooLong) as caught:
        check_question("x" * 101, limit=100)
    assert (caught.value.length, caught.value.limit) == (101, 100)


def test_thread_ids() -> None:
    assert check_thread_id(None) is check_thread_id("") is None
    assert check_thread_id("a:{b} ü") == "a:{b} ü"
    for bad in (7, "x" * 1025, "a\x00", "a\n", "a\rb", "a\tb", "a\x7f", ".", ".."):
        with pytest.raises(InvalidRequest):
            check_thread_id(bad)
