"""The keyword index: BM25 over a chunk's text, the passage around it, its headings and its title; kept on disk by tantivy.

Commits are incremental: a changed source costs what its own chunks cost. Nothing is rebuilt at start or per query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import tantivy
from tantivy import Filter as Step
from tantivy import Occur, Query

from citewell.retrieval.filters import All, Either, Field, Filter, Test, field_value
from citewell.retrieval.snapshot import Entry
from citewell.settings import Language

FIELD_WEIGHTS = {"text": 0.5, "context": 0.5, "title": 0.5, "headings": 0.5}
"""The text and the passage around it count equally (Callan 1994, "Passage-level evidence in document retrieval"); weights of .3 to .7
do about as well. A document of one chunk is its own context, so that its text counts 1 in all."""
MAX_TERMS = 64
"""Most different words of a question that are searched for; a question with more is a pasted text."""

_YEAR = re.compile(r"\b[^\W\d_]+((?:19|20)\d\d)\b")
"""A year with letters before it ("FY2022"), which documents also write without them."""
_WRITER_BYTES = 50_000_000
"""Memory in which tantivy collects new documents before it writes a segment."""


_WITHOUT_STOPWORDS: Final = frozenset({"arabic", "greek", "romanian", "tamil", "turkish"})
"""Languages that tantivy can stem but has no stop words for."""


def _schema(language: Language) -> tantivy.Schema:
    builder = tantivy.SchemaBuilder().add_integer_field("key", indexed=True, fast=True)
    for name in FIELD_WEIGHTS:
        builder.add_text_field(name, tokenizer_name=language, index_option="freq")
    for name in ("source", "exact_title", "type", "tags", "access"):
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    return builder.add_integer_field("date", indexed=True, fast=True).build()


def _analyzer(language: Language) -> tantivy.TextAnalyzer:
    """Words in lower case, without accents and, for a language, without its stop words and stemmed."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).filter(Step.remove_long(60)).filter(Step.lowercase())  # fmt: skip
    if language == "none":
        return builder.filter(Step.ascii_fold()).build()
    if language == "english":  # writes accents in borrowed words only, and not always
        return builder.filter(Step.ascii_fold()).filter(Step.stopword(language)).filter(Step.stemmer(language)).build()
    # In other languages stop words and stemmer would not recognise a word without its accents.
    if language not in _WITHOUT_STOPWORDS:
        builder = builder.filter(Step.stopword(language))
    return builder.filter(Step.stemmer(language)).filter(Step.ascii_fold()).build()


class KeywordIndex:
    """Blocking; call it from a thread. The index's lock ensures that there is one writer at a time.

    Args:
        path: Its folder, which is made where there is none.
        language: Of the words that it holds; it must be the one it was made with.
    """

    def __init__(self, path: Path, language: Language = "english") -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._schema = _schema(language)
        self._index = tantivy.Index(self._schema, path=str(path))
        self._analyzer = _analyzer(language)
        self._index.register_tokenizer(language, self._analyzer)
        self._index.config_reader("manual")
        self._writer: tantivy.IndexWriter | None = None

    def search(self, question: str, limit: int, filter_: Filter | None = None) -> list[tuple[int, float]]:
        """Best matches as (key, BM25 score > 0), best first; empty where no word of the question is in the index."""
        words = " ".join([question, *_YEAR.findall(question)])
        terms = list(dict.fromkeys(self._analyzer.analyze(words)))[:MAX_TERMS]
        matches = [
            (Occur.Should, Query.boost_query(Query.term_query(self._schema, name, term, "freq"), weight))
            for term in terms
            for name, weight in FIELD_WEIGHTS.items()
        ]
        if not matches:
            return []
        query = Query.boolean_query(matches)
        if filter_ is not None:
            only = Query.const_score_query(self._translate(filter_), 0.0)
            query = Query.boolean_query([(Occur.Must, query), (Occur.Must, only)])
        searcher = self._index.searcher()
        hits = searcher.search(query, limit, count=False).hits
        keys = searcher.fast_field_values("key", [address for _, address in hits])
        return [(int(key), float(score)) for key, (score, _) in zip(keys, hits, strict=True) if key is not None]

    def reload(self) -> None:
        """See what this process or another has committed since."""
        self._index.reload()

    def add(self, entries: Iterable[Entry], contexts: Iterable[str]) -> None:
        """Add chunks, each with the passage around it (`context.contexts`)."""
        writer = self._open_writer()
        for entry, context in zip(entries, contexts, strict=True):
            chunk = entry.chunk
            writer.add_document(tantivy.Document(
                key=entry.key, text=chunk.text, context=context, title=chunk.title, headings=" / ".join(chunk.headings),
                source=chunk.source, exact_title=chunk.title, type=chunk.type, tags=["", *chunk.tags],
                access=field_value(chunk, "access"), date=field_value(chunk, "date"),
            ))  # fmt: skip

    def delete(self, keys: Sequence[int]) -> None:
        if keys:
            self._open_writer().delete_documents_by_query(Query.term_set_query(self._schema, "key", list(keys)))

    def commit(self) -> None:
        if self._writer is not None:
            self._writer.commit()

    def close(self) -> None:
        """Release the writer's lock. What was not committed is lost."""
        if self._writer is not None:
            self._writer.rollback()
            self._writer.wait_merging_threads()
            self._writer = None

    def _open_writer(self) -> tantivy.IndexWriter:
        if self._writer is None:
            self._writer = self._index.writer(_WRITER_BYTES, 1)
        return self._writer

    def _translate(self, tree: Filter) -> Query:
        match tree:
            case All(parts):
                return Query.boolean_query([(Occur.Must, self._translate(part)) for part in parts])
            case Either(parts):
                return Query.boolean_query([(Occur.Should, self._translate(part)) for part in parts])
            case Test(field, "eq" | "has", value):
                return Query.term_query(self._schema, _name(field), value, "basic")
            case Test(field, "in", tuple() as values):
                return Query.term_set_query(self._schema, _name(field), list(values))
            case Test(_, "gt" | "gte" as operator, int() as value):
                return self._range(value + (operator == "gt"), None)
            case Test(_, "lt" | "lte" as operator, int() as value):
                return self._range(None, value - (operator == "lt"))
            case Test(field, "ne", value):
                return self._without(Test(field, "eq", value))
            case Test(field, "nin", value):
                return self._without(Test(field, "in", value))
            case Test(field, _, value):
                return self._without(Test(field, "has", value))

    def _range(self, lower: int | None, upper: int | None) -> Query:
        return Query.range_query(self._schema, "date", tantivy.FieldType.Integer, lower, upper)

    def _without(self, test: Test) -> Query:
        return Query.boolean_query([(Occur.Must, Query.all_query()), (Occur.MustNot, self._translate(test))])


def _name(field: Field) -> str:
    return "exact_title" if field == "title" else field
