import datetime
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from citewell.documents import Source
from citewell.errors import InvalidFilter
from citewell.retrieval.filters import FIELDS, Test, date_number, holds, negate, parse
from citewell.retrieval.keywords import KeywordIndex
from citewell.retrieval.snapshot import Entry
from citewell.retrieval.stores.chroma import embedded
from tests.retrieval.samples import HashedWords, made

NAMES = st.sampled_from(["a.md", "b.md", "Ünï cöde.txt", "with 'quotes' and \"more\"", "new\nline"])
TAGS = st.sampled_from(["legal", "draft", "a b", "ä"])
DATES = st.sampled_from(["2023", "2024-02", "2024-02-29", "2025-01-01T10:00:00Z"])
SOURCES = st.builds(
    lambda uri, title, type_, date, tags: Source(
        uri=uri, title=title, type=type_, sha256="0", size_bytes=1, date=date, tags=tuple(tags)
    ),
    NAMES, NAMES, st.sampled_from(["md", "pdf"]), st.none() | DATES, st.lists(TAGS, max_size=3, unique=True),
)  # fmt: skip


def _leaves() -> st.SearchStrategy[dict]:
    def on(field: str, value: st.SearchStrategy, *more: str) -> st.SearchStrategy[dict]:
        single = st.tuples(st.sampled_from(["$eq", "$ne", *more]), value).map(lambda pair: {field: dict([pair])})
        several = st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(value, min_size=1, max_size=3))
        return single | several.map(lambda pair: {field: dict([pair])}) | value.map(lambda v: {field: v})

    return st.one_of(
        on("source", NAMES), on("title", NAMES), on("type", st.sampled_from(["md", "pdf", "html"])),
        on("date", DATES, "$gt", "$gte", "$lt", "$lte"), on("tags", TAGS, "$contains"),
        st.booleans().map(lambda yes: {"date": {"$exists": yes}}),
    )  # fmt: skip


FILTERS = st.recursive(
    _leaves(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=5,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(FIELDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([*FIELDS, "$and", "$or", "$not", "$eq", "$in", "$gte", "access"]) | st.text(max_size=3), inner, max_size=3
    ),
    max_leaves=8,
)  # fmt: skip


@given(JSON)
def test_any_json_is_read_or_refused_in_words(where: object) -> None:
    detail = ""
    try:
        parse(where)  # type: ignore[arg-type]
    except InvalidFilter as exc:
        detail = exc.detail
    assert len(detail) < 300
    assert detail.endswith(".") or not detail


@given(FILTERS, SOURCES)
def test_a_negated_filter_holds_exactly_where_the_filter_does_not(where: dict, source: Source) -> None:
    tree = parse(where)
    assert tree is not None
    assert holds(negate(tree), source) is not holds(tree, source)
    assert holds(parse({"$not": where}), source) is not holds(tree, source)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory):
    """Thirty different sources in a keyword index and in an embedded Chroma."""
    folder: Path = tmp_path_factory.mktemp("filters")
    known: dict[int, Source] = {}
    names = ["a.md", "b.md", "Ünï cöde.txt", "with 'quotes' and \"more\"", "new\nline"]
    tags = [(), ("legal",), ("draft", "a b"), ("ä", "legal")]
    dates = [None, "2023", "2024-02", "2024-02-29", "2025-01-01T10:00:00Z", "2024-03-01"]
    entries = []
    for key in range(1, 31):
        new = made(
            names[key % 5],
            ["evidence"],
            title=names[key % 3],
            type=["md", "pdf"][key % 2],
            date=dates[key % 6],
            tags=tags[key % 4],
        )
        known[key] = new.source
        entries.append(Entry(key, new.chunks[0], b"", 0, 0))
    keywords = KeywordIndex(folder / "keywords")
    keywords.add(entries, [entry.chunk.text for entry in entries])
    keywords.commit()
    keywords.reload()
    store = embedded(folder / "vectors", "filters")
    vectors = HashedWords().encode(["evidence"] * 30).vectors
    store.add([entry.key for entry in entries], vectors, [entry.chunk for entry in entries])
    yield known, keywords, store, vectors[0]
    keywords.close()
    store.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILTERS)
def test_every_translation_finds_exactly_what_the_filter_says(filled, where: dict) -> None:
    known, keywords, store, vector = filled
    tree = parse(where)
    assert tree is not None
    expected = {key for key, source in known.items() if holds(tree, source)}
    assert expected == {key for key, _ in keywords.search("evidence", 100, tree)}
    assert expected == {key for key, _ in store.search(vector, 100, tree)}


@pytest.mark.parametrize("where", [None, {}])
def test_nothing_means_no_filter(where: dict | None) -> None:
    assert parse(where) is None


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"autor": "x"}, "cannot be filtered on; use source, title, type, date, tags"),
        ({"access": "hr"}, "cannot be filtered on"),
        ({"date": {"$gte": "yesterday"}}, "ISO 8601"),
        ({"date": "2024-13"}, "ISO 8601"),
        ({"source": {"$gt": "a"}}, "$gt compares dates"),
        ({"source": {"$like": "a"}}, "use $eq, $ne, $in, $nin"),
        ({"source": 3}, "not a number"),
        ({"tags": {"$in": []}}, "1 to 200 values"),
        ({"$and": {"source": "a"}}, "takes a list"),
        ({"$or": []}, "takes a list"),
        ({"source": {}}, "empty object"),
        ({"title": "half a character: \ud83d"}, "compared with text"),
        ("source", "A filter is an object"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_with_the_way_out(where: object, words: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse(where)  # type: ignore[arg-type]
    assert words in caught.value.detail


def test_a_filter_nested_too_deep_is_refused() -> None:
    where: dict[str, object] = {"source": "a"}
    for _ in range(9):
        where = {"$not": where}
    with pytest.raises(InvalidFilter, match="8 levels"):
        parse(where)


def test_a_filter_may_make_a_thousand_comparisons() -> None:
    def of(lists: int) -> dict[str, object]:
        return {"$or": [{field: {"$in": [f"{at}-{n}" for n in range(200)]}} for at in range(lists) for field in ("tags", "title")][:lists]}  # fmt: skip

    assert parse(of(5)) is not None
    with pytest.raises(InvalidFilter, match="1,000 comparisons"):
        parse(of(6))
    with pytest.raises(InvalidFilter, match="1,000 comparisons"):
        parse({"$not": of(6)})


@given(st.dates(), st.dates())
def test_dates_compare_as_days_do(one: datetime.date, other: datetime.date) -> None:
    assert (date_number(one.isoformat()) < date_number(other.isoformat())) == (one < other)


def test_a_year_alone_is_its_first_day() -> None:
    assert date_number("2024") == date_number("2024-01") == date_number("2024-01-01") == 20240101


@pytest.mark.parametrize(
    ("operator", "days"),
    [
        ("$gt", "after"), ("$gte", "on after"), ("$lt", "before"), ("$lte", "before on"), ("$eq", "on"),
        ("$ne", "before after"),
    ],
)  # fmt: skip
def test_a_date_is_compared_as_the_operator_says(operator: str, days: str) -> None:
    dates = {"before": "2024-02-28", "on": "2024-02-29", "after": "2024-03-01"}
    tree = parse({"date": {operator: "2024-02-29"}})
    assert tree is not None
    assert [day for day, date in dates.items() if holds(tree, made("a", ["x"], date=date).source)] == days.split()


@pytest.mark.parametrize(
    ("where", "is_held"),
    [
        ({"type": "md", "tags": "draft"}, False), ({"type": "md", "tags": "legal"}, True),
        ({"$and": [{"type": "md"}, {"type": "pdf"}]}, False), ({"$or": [{"type": "md"}, {"type": "pdf"}]}, True),
        ({"$not": {"type": "md"}}, False), ({"type": {"$in": ["pdf", "md"]}}, True), ({"type": {"$nin": ["md"]}}, False),
        ({"tags": {"$contains": "legal"}}, True), ({"tags": {"$in": ["draft"]}}, False),
        ({"date": {"$exists": True}}, False),
    ],
)  # fmt: skip
def test_conditions_are_combined_as_they_say(where: dict[str, object], is_held: bool) -> None:
    tree = parse(where)
    assert tree is not None
    assert holds(tree, made("a", ["x"], type="md", tags=("legal",)).source) == is_held


def test_a_document_without_a_date_is_neither_old_nor_new() -> None:
    undated = made("a", ["x"]).source
    for operator in ("$lt", "$lte", "$gt", "$gte"):
        assert not holds(parse({"date": {operator: "2024"}}), undated)  # type: ignore[arg-type]
    assert holds(parse({"date": {"$exists": False}}), undated)  # type: ignore[arg-type]


def test_a_list_means_one_of() -> None:
    assert parse({"type": ["md", "pdf"]}) == Test("type", "in", ("md", "pdf"))


def test_punctuation_in_a_value_is_only_a_value() -> None:
    odd = string.punctuation
    assert holds(parse({"title": odd}), made("a", ["x"], title=odd).source)  # type: ignore[arg-type]
