from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citewell.errors import SourceUnsupported
from citewell.ingestion.encoding import clean, clean_line, decode

FRENCH = "Après un séjour à la mer, l'été fut appelé « le plus long » par les élèves ; ça a plu à Noël.\n" * 3
HUNGARIAN = "Az árvíztűrő tükörfúrógép működőképes; a győri központ őszi terve szerint ez így helyes.\n" * 6
RUSSIAN = "Система обработки шаблонов позволяет отделить представление от данных и от самой программы.\n" * 6
POLISH = "Właściciel żąda zapłaty w środę; zgłoszenia przyjmujemy od dziewiątej do osiemnastej.\n"
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy, průkaz je zdarma pro žáky a učně.\n"
CROATIAN = "Čaša vode, žuti cvijet; članarina je besplatna za učenike i đake.\n"
JAPANESE = "アプリケーションを構成する各ファイルの内容の概略が記述されています。これは便利です。\n" * 6


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_unicode_is_read_with_and_without_a_mark(encoding: str) -> None:
    text, _ = decode(FRENCH.encode(encoding))
    assert text == FRENCH


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(FRENCH, "latin-1"), (FRENCH, "cp1252"), (FRENCH, "mac_roman"), (HUNGARIAN, "cp1250"),
     (POLISH, "cp1250"), (POLISH, "iso8859_2"), (CZECH, "cp1250"), (CZECH, "iso8859_2"), (CROATIAN, "cp1250"), (CROATIAN, "iso8859_2"), (RUSSIAN, "koi8-r"), (RUSSIAN, "cp1251"),
     (JAPANESE, "cp932"), (JAPANESE, "euc_jp"), ("Blanchard’s mousetrap isn’t here.\n" * 4, "mac_roman")],
)  # fmt: skip
def test_older_encodings_are_told_by_their_letters_and_reported(text: str, encoding: str) -> None:
    decoded, note = decode(text.encode(encoding))
    assert decoded == text
    assert note is not None
    assert "encoding guessed" in note


def test_japanese_by_escape_sequences_is_read() -> None:
    assert decode(JAPANESE.encode("iso2022_jp")) == (JAPANESE, None)


def test_a_declared_encoding_is_believed_when_it_fits() -> None:
    page = '<?xml version="1.0" encoding="iso-8859-7"?><p>ΟΙΚΟΝΟΜΙΑ</p>'
    assert decode(page.encode("iso-8859-7")) == (page, None)


def test_a_wrong_declaration_is_not_believed() -> None:
    page = '<?xml version="1.0" encoding="ascii"?><p>' + FRENCH
    assert FRENCH in decode(page.encode("cp1252"))[0]


@pytest.mark.parametrize("name", ["undefined", "base64", "no-such", "idna"])
def test_a_declaration_of_no_encoding_is_not_believed(name: str) -> None:
    assert decode(f"<meta charset={name}><p>caf\u00e9 ol\u00e9".encode("cp1252"))[0].endswith("caf\u00e9 ol\u00e9")


def test_one_pasted_line_of_another_encoding_does_not_spoil_the_others() -> None:
    data = RUSSIAN.encode() + "Résumé naïve café\n".encode("cp1252") + b"tail line ok\n"
    text, note = decode(data)
    assert text == RUSSIAN + "Résumé naïve café\ntail line ok\n"
    assert note == "1 line is not UTF-8; read as Windows-1252"


def test_zero_bytes_within_text_are_removed_and_the_text_kept() -> None:
    assert clean(decode(b"one\0two three four five\n" * 20)[0]).startswith("onetwo three")


def test_random_bytes_are_refused() -> None:
    import random

    with pytest.raises(SourceUnsupported, match="binary"):
        decode(random.Random(7).randbytes(20_000))


@given(st.binary(max_size=400))
def test_any_bytes_give_text_or_a_refusal(data: bytes) -> None:
    try:
        text, _ = decode(data)
    except SourceUnsupported:
        return
    clean(text).encode("utf-8")


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
def test_cleaning_twice_changes_nothing_more_and_leaves_only_what_can_be_stored(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert "\0" not in once
    assert "\r" not in once
    once.encode("utf-8")


@pytest.mark.parametrize("cleaned", [clean, clean_line])
def test_nothing_is_turned_around_that_is_shown_beside_a_text_or_a_title(cleaned: Callable[[str], str]) -> None:
    assert cleaned("\u202eA report\u2066, 2026\u2069") == "A report, 2026"
    assert cleaned("\u200fדו״ח\u200e 2026") == "\u200fדו״ח\u200e 2026", "marks that are about a letter stay"


def test_letters_that_are_never_shown_are_not_read() -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in " or 90 km/h")
    assert clean(f"It opens at 30 km/h{hidden}.") == "It opens at 30 km/h."
