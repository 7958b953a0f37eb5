"""What callers send is read in time proportional to it, whatever it is: a regular expression holds the whole process up."""

import time
from collections.abc import Callable

import pytest
from langchain_core.messages import HumanMessage

from chains.compound import singles
from chains.condense import condense_rule
from citewell.guards.features import windows_of
from citewell.guards.personal import find, redact
from citewell.sentences import sentence_spans
from citewell.terms import read

CHARACTERS = 100_000
WITHIN_S = 3.0
"""Of the processor's time; most take a tenth, and those that go by squares three times as much and more."""
READERS: dict[str, Callable[[str], object]] = {
    "injection": lambda text: windows_of(text, "question"),
    "things that are asked": lambda text: singles(text, text),
    "follow-up": lambda text: condense_rule("And where is it?", [HumanMessage(text)]),
    "terms": read,
    "personal data": find,
    "redaction": redact,
    "sentences": sentence_spans,
}
HIDING = "+49 30 901820-?key=abcdef1"
"""A number that is seen as one only when what stands before it has been redacted."""


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("repeated", [" ", " \n", "a ", "and how ", "a@a.", "1-", "[1 ", "1.2.3.4 ", HIDING])
def test_nothing_is_read_by_squares(name: str, repeated: str) -> None:
    text = f"{repeated * (CHARACTERS // len(repeated))}x"
    before = time.process_time()
    READERS[name](f"a{text}")
    assert time.process_time() - before < WITHIN_S
