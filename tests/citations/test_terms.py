"""What counts as the same number, name, word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citewell.terms import read


def keys(text: str) -> list[tuple[str, str]]:
    return [(term.key, term.unit) for term in read(text).terms]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,204 ships", "1204 ships"),
        ("1.5 million copies", "1,500,000 copies"),
        ("two million copies", "2,000,000 copies"),
        ("twelve percent", "12%"),
        ("12 per cent", "12 %"),
        ("US$3 billion", "$3,000,000,000"),
        ("3 dollars", "$3"),
        ("twenty-one days", "21 days"),
        ("the nineteenth century", "the 19th century"),
        ("the twenty-first century", "the 21st century"),
        ("5km away", "5 kilometres away"),
        ("2023-10-06", "2023 October 6"),
        ("on 6 Oct 2023", "on 6 October 2023"),
        ("in FY2022", "in 2022"),
        ("$5bn", "$5 billion"),
        ("the king's castles", "the kings castle"),
        ("she writes", "she wrote"),
        ("impor-\ntant", "important"),
    ],
)
def test_different_writings_of_one_thing_are_equal(one: str, other: str) -> None:
    assert keys(one) == keys(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,204", "1,205"),
        ("12%", "12"),
        ("$12", "\u20ac12"),
        ("5 km", "5 miles"),
        ("version 3.1", "version 3.10"),
        ("-5 degrees", "5 degrees"),
        ("1973", "1970s"),
        ("more than 5", "less than 5"),
        ("before 1990", "after 1990"),
        ("the first", "the third"),
        ("1.5 million", "1.5 billion"),
        ("Smith", "Smythe"),
        ("university", "universe"),
    ],
)
def test_different_things_are_not_equal(one: str, other: str) -> None:
    assert keys(one) != keys(other)


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("It did not end quickly.", ["end", "quickly"]),
        ("They don't swim.", ["swim"]),
        ("It never rained", ["rain"]),
        ("sold without sugar, with milk", ["sugar"]),
        ("| under 5 | not admitted |\n| family (2 + 3) | £42 |", ["admit"]),
        ("not only novels", []),
        ("See No. 5 for that.", []),
        ("All of it is odd.", []),
    ],
)
def test_denials_govern_the_words_after_them(text: str, denied: list[str]) -> None:
    statement = read(text)
    assert denied == [statement.terms[i].key for denial in statement.denials for i in denial]


def test_text_without_spaces_is_compared_in_order() -> None:
    assert keys("\u65e5\u672c\u8a9e") != keys("\u8a9e\u672c\u65e5")


@given(st.text())
def test_reading_never_fails_and_terms_lie_in_the_text(text: str) -> None:
    statement = read(text)
    assert all(0 <= term.start < term.end <= len(text) for term in statement.terms)
    assert all(0 <= i < len(statement.terms) for denial in statement.denials for i in denial)
    assert statement == read(text)


@given(
    st.lists(
        st.sampled_from([*"0123456789.,:-/%$ \n", "one", "twenty", "million", "km", "st", "not", "FY", "\u0662"]),
        max_size=30,
    )
)
def test_reading_survives_every_mixture_of_digits_and_units(parts: list[str]) -> None:
    text = "".join(parts)
    assert read(text) == read(text)
