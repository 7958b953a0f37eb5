"""Personal data: every kind is found with its span, look-alikes are left alone, redaction leaves nothing behind."""

from __future__ import annotations

import itertools
import time

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citewell.errors import MissingExtra
from citewell.guards.names import NameFinder, open_names
from citewell.guards.personal import Detector, Hit, find, redact


def found(text: str) -> list[tuple[str, str]]:
    return [(hit.kind, text[hit.start : hit.end]) for hit in find(text)]


@pytest.mark.parametrize(("kind", "text", "value"), [
    ("email", "Write to ann.o'hara+x@mail.firm.example, please", "ann.o'hara+x@mail.firm.example"),
    ("email", "josé@correo.example wrote", "josé@correo.example"),
    ("phone", "ring +44 20 7946 0958 tonight", "+44 20 7946 0958"),
    ("phone", "aus dem Ausland 0049 30 901820", "0049 30 901820"),
    ("phone", "my phone is 450 0840", "450 0840"),
    ("phone", "office (212) 555-0142", "(212) 555-0142"),
    ("phone", "01 42 68 53 00 à Paris", "01 42 68 53 00"),
    ("card", "pay with 4111 1111 1111 1111 now", "4111 1111 1111 1111"),
    ("card", "amex 3782-822463-10005", "3782-822463-10005"),
    ("iban", "to DE89 3704 0044 0532 0130 00 by Friday", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB82WEST12345698765432", "GB82WEST12345698765432"),
    ("ip", "from 81.2.69.142 yesterday", "81.2.69.142"),
    ("ip", "from 2001:db8:85a3::8a2e:370:7334 yesterday", "2001:db8:85a3::8a2e:370:7334"),
    ("national_id", "SSN 536-90-4399", "536-90-4399"),
    ("national_id", "henkilötunnus 131052-308T", "131052-308T"),
    ("national_id", "codice fiscale RCCMNL83S18D969H", "RCCMNL83S18D969H"),
    ("national_id", "CPF 390.533.447-05", "390.533.447-05"),
    ("national_id", "his BSN is 111222333", "111222333"),
    ("url_credentials", "redis://default:s3cret@db.internal:6379/0", "default:s3cret"),
    ("secret", "key sk-proj-abcdefghijklmnopqrstuvwx", "sk-proj-abcdefghijklmnopqrstuvwx"),
    ("secret", "https://api.firm.example/v1?api_key=abc123def456", "abc123def456"),
])  # fmt: skip
def test_each_kind_is_found_with_its_span(kind: str, text: str, value: str) -> None:
    assert (kind, value) in found(text)
    assert value not in redact(text)


def test_all_hits_are_found_not_only_the_first() -> None:
    text = "a@b.example, c@d.example, +49 30 901820 and 4111111111111111"
    assert [kind for kind, _ in found(text)] == ["email", "email", "phone", "card"]
    assert redact(text) == "[email], [email], [phone] and [card]"


@pytest.mark.parametrize("text", [
    "In 1914-1918 the population rose from 1,204,000 to 1 350 000.",
    "The card 4111 1111 1111 1112 fails its check digit.",
    "Released on 2026-11-23 10:15:00, version 10.0.19.4, see 127.0.0.1.",
    "ISBN 978-3-16-148410-0, ISSN 2049-3630, pages 100-120",
    "Please call on 2026-11-23. The phone 1914-1918 was rare.",
    "Order 1234567890123, tuition was $38,000 to $57,000",
    "GB82 WEST 1234 5698 7654 33 fails its check digit",
    "| 64.7 (18.2) | 65.6 (18.7) | 68.7 (20.4) |",
    "000-12-3456 was never issued",
    "@app.get('/') def root(): return a@b",
    "SQuAD 2.0 has 150,000 questions; 10.1234/abcd.5678 is a DOI",
])  # fmt: skip
def test_look_alikes_are_left_alone(text: str) -> None:
    assert found(text) == []
    assert redact(text) == text


@pytest.mark.parametrize("region", ["US", "GB", "DE", "FR", "IN", "JP", "BR", "ZA", "AU", "NG", "KE", "SA", "CN", "MX"])
def test_numbers_of_any_country_are_found_in_international_form(region: str) -> None:
    number = phonenumbers.example_number(region)
    assert number is not None
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
    assert ("phone", written) in found(f"It was {written} then.")


PIECES = st.sampled_from([
    "a@b.example", "+44 20 7946 0958", "4111 1111 1111 1111", "DE89370400440532013000", "81.2.69.142", "536-90-4399",
    "redis://u:p@host", "?token=abcdef0123", "[secret]", "phone", "call", "card", "SSN", " ", ", ", "-", ".", "@", "(", ")", "0", "12", "345", "[email]",
])  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=20).map("".join)))
def test_redaction_is_idempotent_and_no_detected_entity_survives(text: str) -> None:
    once = redact(text)
    assert find(once) == []
    assert redact(once) == once


@given(st.lists(PIECES, max_size=20).map("".join))
def test_hits_are_sorted_spans_that_do_not_overlap(text: str) -> None:
    hits = find(text)
    assert hits == sorted(hits)
    assert all(0 <= hit.start < hit.end <= len(text) for hit in hits)
    assert all(a.end <= b.start for a, b in itertools.pairwise(hits))


@pytest.mark.parametrize("text", ["1 " * 50_000, "a." * 50_000, "a@" * 50_000, "1-" * 50_000, "::" * 50_000, "A1" * 50_000,
                                  "http://" * 10_000, "DE89 " * 20_000, "(" * 100_000, "sk-" * 30_000])  # fmt: skip
def test_no_text_makes_detection_slow(text: str) -> None:
    start = time.process_time()
    find(text)
    assert time.process_time() - start < 3


class Entity:
    def __init__(self, start: int, end: int, label: str) -> None:
        self.start_char, self.end_char, self.label_ = start, end, label


class Document:
    def __init__(self, ents: list[Entity]) -> None:
        self.ents = ents


def test_names_and_places_are_hits_and_patterns_win_over_them() -> None:
    text = "Ann Lee (ann@b.example) lives in Oslo since May"
    ents = [Entity(0, 7, "PERSON"), Entity(9, 14, "PERSON"), Entity(33, 37, "GPE"), Entity(44, 47, "DATE")]
    detector = Detector(NameFinder(lambda _: Document(ents)))
    assert detector.find(text) == [Hit(0, 7, "name"), Hit(9, 22, "email"), Hit(33, 37, "place")]
    assert detector.redact(text) == "[name] ([email]) lives in [place] since May"


def test_names_without_spacy_stop_the_start() -> None:
    try:
        import spacy  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtra, match="names"):
            open_names("en_core_web_sm")
    else:
        from citewell.errors import ConfigurationError

        with pytest.raises(ConfigurationError, match="CITEWELL_PII_NAMES"):
            open_names("no_such_pipeline")
