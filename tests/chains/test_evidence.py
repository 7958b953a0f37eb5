"""The line between "in the documents" and "not there", over a real index's scores."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chains.evidence import ALL_FEATURES, Evidence, features
from citewell.documents import ScoredChunk, Source
from citewell.ingestion.document import Document
from citewell.ingestion.split import split
from citewell.models.minilm import MiniLM
from citewell.retrieval import Index, NewSource, open_index
from citewell.settings import Settings

TEXTS = {
    "Oil crisis": "The 1973 oil crisis began in October 1973 when the members of OAPEC proclaimed an oil embargo.",
    "Bread": "Bread is baked from flour, water and salt. It keeps for three days.",
    "Norfolk": "The harbour of Norfolk holds 1,204 ships. It was opened in 1801 by the king.",
    "Leave": "Every employee has thirty days of paid leave a year. Leave that is not taken by March is lost.",
}


@pytest.fixture
async def index(tmp_path: Path, embedder: MiniLM) -> AsyncIterator[Index]:
    settings = Settings(data_dir=tmp_path, retrieval_timeout_s=60)
    async with open_index(settings, embedder) as opened:
        async with opened.writing():
            for title, text in TEXTS.items():
                source = Source(uri=title, title=title, type="txt", sha256="", size_bytes=len(text))
                chunks = split(Document(text=text, type="txt", title=title), title, chunk_size=500, chunk_overlap=50)
                await opened.replace_sources([NewSource(source=source, text=text, chunks=chunks)])
        yield opened


async def found(index: Index, question: str) -> list[ScoredChunk]:
    return await index.rerank(question, await index.search(question), top_k=5)


async def test_what_is_there_is_told_from_what_is_not(index: Index, embedder: MiniLM) -> None:
    evidence = Evidence(embedder)
    there = [
        "When did the oil crisis begin?",
        "How many ships are in the harbour of Norfolk?",
        "How many days of paid leave are there?",
    ]
    absent = [
        "Who painted the Sistine Chapel ceiling?",
        "What is the boiling point of mercury?",
        "Which team won the 1998 World Cup?",
    ]
    yes = [evidence.confidence(question, await found(index, question)) for question in there]
    no = [evidence.confidence(question, await found(index, question)) for question in absent]
    assert all(map(evidence.is_supported, yes)), yes
    assert not any(map(evidence.is_supported, no)), no


VISITORS = (
    "It is usually five degrees colder on the fell than in the village, and the domes are open to the wind. Bring a warm "
    "coat, gloves and flat shoes. Torches must show red light; the shop lends them for a deposit of £5. Photography is "
    "welcome without flash. Dogs may come into the grounds and the café, but not into the domes."
)


@pytest.mark.parametrize(
    ("question", "supported"),
    [
        ("Can I bring my dog?", True),
        ("What colour must torches be?", True),
        ("Is there a lift?", False),
        ("What does it cost to get in?", False),
    ],
)
async def test_a_short_question_is_judged_by_the_sentence_that_answers_not_by_all_that_stands_beside_it(
    index: Index, question: str, supported: bool, embedder: MiniLM
) -> None:
    document = Document(text=VISITORS, type="txt", title="What to bring")
    source = Source(uri="visitors", title=document.title, type="txt", sha256="", size_bytes=len(VISITORS))
    async with index.writing():
        chunks = split(document, "visitors", chunk_size=500, chunk_overlap=50)
        await index.replace_sources([NewSource(source=source, text=VISITORS, chunks=chunks)])
    evidence = Evidence(embedder)
    assert evidence.is_supported(evidence.confidence(question, await found(index, question))) is supported


async def test_confidence_is_a_probability_and_none_without_chunks(index: Index, embedder: MiniLM) -> None:
    evidence = Evidence(embedder)
    assert evidence.confidence("Anything?", []) == 0
    for question in ("?", "bread " * 500, "\u65e5\u672c\u8a9e"):
        assert 0 <= evidence.confidence(question, await found(index, question)) <= 1


async def test_every_sign_is_given_and_finite(index: Index) -> None:
    values = features("How long does bread keep?", await found(index, "How long does bread keep?"))
    assert set(values) == set(ALL_FEATURES)
    assert all(abs(value) < 100 for value in values.values())


async def test_without_late_interaction_the_words_decide(index: Index, embedder: MiniLM) -> None:
    evidence = Evidence(embedder)
    question = "When did the oil crisis begin?"
    searched = await index.search(question)
    assert "maxsim" not in searched[0].evidence
    assert evidence.is_supported(evidence.confidence(question, searched))


async def test_what_is_quoted_counts_where_its_scale_is_known(index: Index, embedder: MiniLM) -> None:
    evidence, question = Evidence(embedder), "When did the oil crisis begin?"
    searched = await index.search(question)
    reranked = await index.rerank(question, searched, top_k=5)
    by_chunks = evidence.confidence(question, reranked)
    unlikely, likely = (evidence.quoted(by_chunks, answers, reranked)[0] for answers in (0.0, 1.0))
    assert 0 < unlikely < by_chunks < likely < 1
    assert evidence.quoted(0.5, None, reranked) == (0.5, True), "of a follow-up it is not known"
    assert evidence.quoted(0.5, 1.0, searched) == (0.5, True), "without late interaction"
    assert evidence.quoted(0.0, 0.0, []) == (0.0, False), "without chunks"
    assert not Evidence(embedder, 0.999).quoted(by_chunks, 1.0, reranked)[1], "the settings' line is for this, too"


@pytest.mark.parametrize(("answer_from", "supported"), [(None, False), (0.0, True), (0.05, True), (0.5, False)])
def test_the_line_is_where_the_settings_put_it(answer_from: float | None, supported: bool, embedder: MiniLM) -> None:
    assert Evidence(embedder, answer_from).is_supported(0.06) == supported
