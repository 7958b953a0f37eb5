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
        ("at 9 a.m. daily", "at 9am daily"),
        ("-5 degrees", "\u20135 degrees"),
        ("p >= 5", "p \u2265 5"),
        ("p>0.05", "p > 0.05"),
        ("> 5 men came", "5 men came"),
        ("needs > `1.0.0`", "needs > 1.0.0"),
        ("from 4 -> 5", "from 4 to 5"),
        ("<p>0.05</p>", "<p> 0.05</p>"),
        ("12 \u20ac", "\u20ac12"),
        ("In 2019 $5 million came", "in 2019, 5 million dollars came"),
        ("1e6 cells", "one million cells"),
        ("1.5E-3", "0.0015"),
        ("5 MB", "5 megabytes"),
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
        ("at 9 am", "at 9 pm"),
        ("at 9:30 a.m.", "at 9:30 p.m."),
        *((f"at {minus}5 degrees", "at 5 degrees") for minus in "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"),
        ("\u20b9500", "\u20bd500"),
        ("500 \u20b9", "500 \u20bd"),
        ("A$500", "$500"),
        ("p < 0.05", "p > 0.05"),
        ("p < 0.05", "p = 0.05"),
        ("is \u2264 5", "is \u2265 5"),
        ("is \u2260 5", "is 5"),
        ("5 mW", "5 MW"),
        ("5 Mb", "5 MB"),
        ("1e6 cells", "1e-6 cells"),
        ("made in 2026\n\nDay by day", "made in 2026 days by day"),  # a heading is no unit of the paragraph above
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
        ("It does not, however, open.", ["open"]),
        ("If not, ring us.", []),
        ("No, dogs are allowed.", []),
        ("| under 5 | not admitted |\n| family (2 + 3) | £42 |", ["admit"]),
        ("Friday | none\nSaturday | 9:00", []),
        ("| none | Saturday |", []),
        ("Fish \u00b7 no \u00b7 yes", []),
        ("Saturday | none\n\nWe are closed on Sundays.", []),
        ("It must not\n\nbe opened.", ["open"]),  # on the next page
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


def test_a_number_begins_where_it_is_written() -> None:
    (_, number) = read("He came. 500 left.").terms[:2]
    assert (number.key, number.start, number.end) == ("500", 9, 12)


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        (
            "\u30b3\u30f3\u30c6\u30ca**\u30a4\u30e1\u30fc\u30b8**\u306f`Docker`\u3067\u3059",
            "\u30b3\u30f3\u30c6\u30ca\u30a4\u30e1\u30fc\u30b8\u306fDocker\u3067\u3059",
        ),
        ("\u6bce\u6708**5**\u65e5\u3068`3`\u65e5", "\u6bce\u67085\u65e5\u30683\u65e5"),
        ("**\ub3c4\ucee4**\ub294 \uc27d\ub2e4", "\ub3c4\ucee4\ub294 \uc27d\ub2e4"),
    ],
)
def test_emphasis_parts_no_words_where_there_are_no_spaces(marked: str, plain: str) -> None:
    assert keys(marked) == keys(plain)


@given(st.text())
def test_reading_never_fails_and_terms_lie_in_the_text(text: str) -> None:
    statement = read(text)
    assert all(0 <= term.start < term.end <= len(text) for term in statement.terms)
    assert all(0 <= i < len(statement.terms) for denial in statement.denials for i in denial)
    assert statement == read(text)


@given(
    st.lists(
        st.sampled_from([*"0123456789.,:-/%$<>*e \n", "one", "twenty", "million", "km", "st", "not", "FY", "\u0662"]),
        max_size=30,
    )
)
def test_reading_survives_every_mixture_of_digits_and_units(parts: list[str]) -> None:
    text = "".join(parts)
    assert read(text) == read(text)
