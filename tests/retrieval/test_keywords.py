"""The keyword index in other languages than English, over the real tantivy."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from citewell.errors import ConfigurationError
from citewell.models import Embedder
from citewell.retrieval import open_index
from citewell.retrieval.keywords import KeywordIndex
from citewell.retrieval.snapshot import Entry
from citewell.settings import Language, Settings
from tests.retrieval.samples import HashedWords, made, settings

GERMAN = (
    "Neben dem Turm stehen drei Häuser, die für die Wärter gebaut wurden.",
    "Die Öffnungszeiten gelten von Mai bis September.",
    "Über die Größe der Bücher sagt das Verzeichnis nichts.",
)


def keywords(folder: Path, language: Language, *texts: str) -> KeywordIndex:
    index = KeywordIndex(folder, language)
    chunks = made("a.txt", texts).chunks
    entries = [
        Entry(key=key, chunk=chunk, digest=b"", token_start=0, token_bytes=0) for key, chunk in enumerate(chunks)
    ]
    index.add(entries, texts)
    index.commit()
    index.reload()
    return index


def found(index: KeywordIndex, question: str) -> list[int]:
    return [key for key, _ in index.search(question, 10)]


@pytest.mark.parametrize(
    ("question", "german", "english"),
    [
        ("Haus", [0], []),  # Häuser
        ("den Wärtern", [0], []),
        ("Öffnungszeit", [1], []),
        ("oeffnungszeit", [1], []),  # as it is written where there are no umlauts
        ("Offnungszeiten", [1], [1]),  # typed without its dots
        ("ein Buch", [2], []),  # Bücher
        ("größere", [2], []),
        ("für über die von", [], [0, 1, 2]),  # filler words
    ],
)
def test_german_words_are_found_in_their_other_forms(
    tmp_path: Path, question: str, german: list[int], english: list[int]
) -> None:
    assert found(keywords(tmp_path / "de", "german", *GERMAN), question) == german
    assert sorted(found(keywords(tmp_path / "en", "english", *GERMAN), question)) == english


def test_none_takes_words_as_they_are_but_for_case_and_accents(tmp_path: Path) -> None:
    index = keywords(tmp_path, "none", *GERMAN, "Les élèves étaient à l'école.", "The houses of the keepers.")
    assert found(index, "HAUSER") == [0]
    assert found(index, "eleves") == [3]
    assert found(index, "house") == []
    assert found(index, "the") == [4]


@pytest.mark.parametrize("language", get_args(Language))
def test_every_language_finds_a_word_of_its_own_and_opens_again(tmp_path: Path, language: Language) -> None:
    text = {"arabic": "الكتاب في المكتبة", "greek": "Τα βιβλία είναι εδώ", "russian": "Книги стоят на полке", "tamil": "புத்தகம் இங்கே"}.get(language, "Lorem observatorium 1871")  # fmt: skip
    keywords(tmp_path, language, text).close()
    index = KeywordIndex(tmp_path, language)
    assert found(index, text.split()[1 if language not in ("russian", "tamil") else 0]) == [0]


def test_russian_and_french_inflection(tmp_path: Path) -> None:
    assert found(keywords(tmp_path / "ru", "russian", "Книги стоят на полке"), "книга") == [0]
    assert found(keywords(tmp_path / "fr", "french", "Les élèves étaient à l'école."), "élève") == [0]


async def test_an_english_index_is_as_it_was_before_there_was_a_choice(tmp_path: Path) -> None:
    async with open_index(settings(tmp_path), HashedWords()) as index:
        assert "language" not in index.fingerprint
    async with open_index(settings(tmp_path, language="none"), HashedWords()) as index:
        assert index.fingerprint["language"] == "none"


class Blind(HashedWords):
    """Gives nothing away: whatever is found was found by its words."""

    def _direction(self, word: str):  # type: ignore[no-untyped-def]
        return super()._direction("same")


def test_a_year_with_letters_before_it_is_found_by_itself_too(tmp_path: Path) -> None:
    index = keywords(
        tmp_path, "english", "Years ended December 31, 2022", "Results for FY2022", "Model X2021b", "In 2021"
    )
    assert sorted(found(index, "FY2022")) == [0, 1]
    assert found(index, "FY2022")[0] == 1, "what is written as it is asked for counts more"
    assert found(index, "x2021b") == [2]


async def test_a_change_of_language_is_rebuilt_beside_a_store_of_its_own(tmp_path: Path, chroma_server: str) -> None:
    embedder: Embedder = Blind()
    chosen = {"vector_store": chroma_server.replace("http", "chroma+http"), "namespace": "languages"}
    async with open_index(settings(tmp_path, **chosen), embedder) as index, index.writing():
        await index.replace_sources([made("a.txt", GERMAN)])
    async with open_index(settings(tmp_path, language="german", **chosen), embedder) as index:
        async with index.rebuilding() as fresh:
            await fresh.replace_sources([made("a.txt", GERMAN)])
        async with index.writing():
            pass  # sweeps
        best = (await index.search("In welchem Haus?"))[0]
        assert best.chunk.text == GERMAN[0]
        assert best.evidence["keyword"] > 0
        assert len([each for each in (tmp_path / "index" / "languages").iterdir() if each.is_dir()]) == 1


def test_an_unknown_language_stops_the_start_and_names_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_LANGUAGE", "klingon")
    with pytest.raises(ConfigurationError, match=r"CITEWELL_LANGUAGE: .*'german'.*'none'"):
        Settings.load()
