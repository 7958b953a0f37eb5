"""The words that terminal and pages have in common; tests/doors/test_pages.py holds the page at `/` to them."""

import pytest

from citewell.wording import about, count

STOOD_IN = {"answer": {"asked": "openai:a", "answered": "extractive", "why": "model_unavailable"}}


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 chunks"), (1, "1 chunk"), (2, "2 chunks"), (2345, "2,345 chunks")]
)
def test_one_is_not_many(number: int, words: str) -> None:
    assert count(number, "chunk") == words


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"answerer": "model", "model": "gpt-5", "confidence": 0.7}, "answered by gpt-5 · confidence 70 %"),
        ({"answerer": "extractive", "calls": STOOD_IN}, "quoted word for word from the documents in place of openai:a (model unavailable)"),
        ({"answerer": "model", "model": "b", "cached": True}, "answered by b · given before to the same question"),
        ({"answerer": "model", "model": "b", "truncated": True}, "answered by b · cut at the length limit: ask for the rest"),
        ({"answerer": "model", "model": "b", "blocked": "secret"}, "withheld by the rule “secret”"),
        ({"answerer": "guard", "blocked": "injection"}, "refused by the rule “injection”"),
        ({"answerer": "none", "needs_review": True, "review_reasons": ["low_confidence"]}, "nothing in the documents supports an answer · marked for review: low confidence"),
        ({"answerer": "service"}, "answered by the service itself"),
        ({"answerer": "stopped"}, "stopped: what had come was not checked"),
    ],
)  # fmt: skip
def test_it_is_told_who_answered_and_what_to_know_before_relying_on_it(metadata: dict[str, object], words: str) -> None:
    assert about(metadata) == words
