"""Finds and redacts personal data that has a pattern.

A run of digits alone means little, so each kind is confirmed by its own rules: check digits (cards, IBANs, national
identifiers), a numbering plan (telephones), an address family (IP). Names and places have no pattern; `citewell.guards.names`
finds them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import phonenumbers
from stdnum import iban, luhn

from citewell.guards.national_ids import find_national_ids

Kind = Literal["email", "phone", "card", "iban", "ip", "national_id", "url_credentials", "secret", "name", "place"]

CUE_WINDOW: Final = 48
"""Characters before a number in which a cue word ("card", "phone") counts."""

LONGEST: Final = 320
"""Longest hit, in characters: 64 + 1 + 255, the longest e-mail address (RFC 5321, 4.5.3.1)."""


MOST_PASSES: Final = 10
"""Times that a text is looked through for what redacting has laid open; people's texts need one or two."""


@dataclass(frozen=True, slots=True, order=True)
class Hit:
    """One piece of personal data: `text[start:end]`, offsets in code points."""

    start: int
    end: int
    kind: Kind


_EMAIL = re.compile(
    r"(?<![\w.+%'-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)
_URL_CREDENTIALS = re.compile(r"(?i)\b[a-z][a-z0-9+.-]{1,20}://([^\s/:@]{0,256}:[^\s/@]{1,256})@(?=[\w\[])")
_SECRETS = (
    re.compile(r"(?<![\w-])(?:sk|pk|rk)-(?:[A-Za-z]+-)?[A-Za-z0-9_-]{20,200}(?![\w-])"),
    re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255}|AKIA[0-9A-Z]{16}|AIza[\w-]{35})(?![\w-])"),
    re.compile(r"\beyJ[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{8,2000}(?![\w-])"),
    re.compile(r"(?i)[?&](?:api_?key|access_token|token|secret|password|sig)=([^\s&#\"'<>\[\]]{6,512})"),
)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])")
_NOT_IP = re.compile(r"(?i)\b(?:version|ver|v|release|section|chapter|§)\.?\s*$")
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?(?![A-Za-z0-9])"
)
_CARD = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){11,18}(?![\w]|[.,-]\d)")
_CARD_CUE = re.compile(
    r"(?i)card|credit|debit|\bcc\b|visa|master|maestro|amex|american express|diners|discover|karte|carte|tarjeta|carta|kort"
)
_CARD_PREFIX = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})$|5[1-5]\d{14}$|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}$"  # Visa, Mastercard
    r"|3[47]\d{13}$|3(?:0[0-5]|[689]\d)\d{11}$|35\d{14}$|(?:1800|2131)\d{11}$"  # American Express, Diners, JCB
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}$|62\d{14,17}$|(?:50|5[6-9]|6[0-9])\d{14,17}$"  # Discover, UnionPay, Maestro
)
"""Number ranges and lengths of the issuers, as registered under ISO/IEC 7812; other runs need a cue word."""
_GROUPED = re.compile(r"\d+(?:([ -])\d+)*")
_PHONE = re.compile(r"(?<![\w.,/:+-])(?:\+|\b00)?\(?\d(?:[ .\-/]{0,2}[()]?[ ]?\d){5,14}(?![\w]|[.,:/-]\d|\s?[%°€$£])")
_PHONE_CUE = re.compile(
    r"(?i)phone|\btel\b|\btel[.:]|telefon|téléphone|teléfono|mobile|mobil|\bcell|\bcall\b|\bcall me|\bring\b|\bfax\b|whatsapp"
    r"|\bsms\b|\boffice\b|\bdirect line|\btext (?:me|us)|hotline|extension|reach (?:me|us)|contact|\bregistered$|\bdial\b|电话|手机|電話|номер|тел"
)
_PHONE_CUE_AFTER = re.compile(
    r"(?i)[\s(-]{0,3}(?:phone|fax|tel|mobile|cell|office|is my (?:phone|mobile|cell|number))\b"
)
_DATE = re.compile(
    r"(?:(?:1\d|20)\d\d([-./ ])[01]?\d\1[0-3]?\d|[0-3]?\d([-./ ])[0-3]?\d\2(?:1\d|20)\d\d)(?:[ T]\d{1,2}(?::\d\d){0,2})?$"
)
_YEARS = re.compile(r"(?:1\d|20)\d\d[ -](?:1\d|20)\d\d$")
_PHONE_SHAPE = re.compile(
    r"(?:\(\d{2,5}\) ?|0\d{1,4}[ .\-/])\d{2,5}(?:[ .-]\d{2,5}){0,4}$|\d{2,5}(?:([ .-])\d{2,5})(?:\1\d{2,5}){1,4}$"
)
"""Groups as people write them: a prefix in brackets or with a leading zero, or three or more groups with one separator."""
_THOUSANDS = re.compile(r"\d{1,3}(?:[ .]\d{3})+$")
PHONE_REGIONS: Final = (
    "US", "GB", "DE", "FR", "ES", "IT", "NL", "BE", "AT", "CH", "SE", "NO", "DK", "FI", "PL", "CZ", "PT", "IE", "GR",
    "HU", "RO", "IS", "EE", "SI", "UA", "RU", "TR", "IL", "IN", "CN", "JP", "KR", "SG", "HK", "AU", "NZ", "ZA", "BR",
    "MX", "AR", "CL",
)  # fmt: skip
"""Numbering plans that a number without a country code is checked against."""


def find(text: str) -> list[Hit]:
    """All personal data that has a pattern, by position; of hits that overlap, the more certain kind is kept.

    Args:
        text: Any length; time is linear in it.

    Returns:
        Hits that do not overlap, sorted by `start`.
    """
    taken: list[Hit] = []
    covered = bytearray(len(text))
    for finder in _FINDERS:
        for hit in finder(text):
            if not any(covered[hit.start : hit.end]):
                covered[hit.start : hit.end] = b"\1" * (hit.end - hit.start)
                taken.append(hit)
    return sorted(taken)


def redact(text: str) -> str:
    """Put `[kind]` in the place of each hit, until nothing is found any more.

    What remains holds no detectable entity, so redacting twice changes nothing. A text in which each hit hides another, and that
    one another, loses its end after `MOST_PASSES`.
    """
    passes = 0
    while found := find(text):
        passes += 1
        text = replace(text, found) if passes <= MOST_PASSES else f"{text[: found[0].start]}[{found[0].kind}]"
    return text


def replace(text: str, hits: Sequence[Hit]) -> str:
    """Replace each of `hits`, which do not overlap, by `[kind]`."""
    for hit in sorted(hits, reverse=True):
        text = f"{text[: hit.start]}[{hit.kind}]{text[hit.end :]}"
    return text


class NameModel(Protocol):
    """Finds names of people and places, which have no pattern."""

    def find(self, text: str) -> list[Hit]: ...


class Detector:
    """Finds personal data that has a pattern and, if given a model for them, names and places."""

    def __init__(self, names: NameModel | None = None) -> None:
        self._names = names

    def find(self, text: str) -> list[Hit]:
        """See `find`; a name that overlaps another hit is dropped."""
        hits = find(text)
        if self._names is not None:
            hits += [
                name for name in self._names.find(text)
                if not any(name.start < hit.end and hit.start < name.end for hit in hits)
            ]  # fmt: skip
        return sorted(hits)

    def redact(self, text: str) -> str:
        """See `redact`; names are searched for only once, since a model may find one even in `[name]`."""
        return redact(replace(text, self.find(text)))


def _emails(text: str) -> Iterator[Hit]:
    if "@" in text:
        yield from (Hit(m.start(), m.end(), "email") for m in _EMAIL.finditer(text))


def _url_credentials(text: str) -> Iterator[Hit]:
    if "://" in text:
        yield from (Hit(m.start(1), m.end(1), "url_credentials") for m in _URL_CREDENTIALS.finditer(text))


def _secrets(text: str) -> Iterator[Hit]:
    for pattern in _SECRETS:
        group = pattern.groups
        yield from (Hit(m.start(group), m.end(group), "secret") for m in pattern.finditer(text))


def _ibans(text: str) -> Iterator[Hit]:
    for match in _IBAN.finditer(text):
        # the pattern may have matched into the next word: shorten it until the check digits are valid
        words = re.split(r"(?=[ -])", match.group())
        for n in range(len(words), 0, -1):
            written = "".join(words[:n])
            if iban.is_valid(written):
                yield Hit(match.start(), match.start() + len(written), "iban")
                break


def _ips(text: str) -> Iterator[Hit]:
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(match.group())
            except ValueError:
                continue
            # loopback, "any" and a version number of four parts identify nobody
            if address.is_loopback or address.is_unspecified or _NOT_IP.search(_before(text, match.start())):
                continue
            yield Hit(match.start(), match.end(), "ip")


def _cards(text: str) -> Iterator[Hit]:
    for match in _CARD.finditer(text):
        written = match.group()
        grouped = _GROUPED.fullmatch(written)
        digits = re.sub(r"\D", "", written)
        if grouped is None or len(set(digits)) < 2 or not luhn.is_valid(digits):
            continue
        if _CARD_PREFIX.match(digits) or _CARD_CUE.search(_before(text, match.start())):
            yield Hit(match.start(), match.end(), "card")


def _national_ids(text: str) -> Iterator[Hit]:
    yield from (Hit(start, end, "national_id") for start, end in find_national_ids(text))


def _phones(text: str) -> Iterator[Hit]:
    for match in _PHONE.finditer(text):
        written = match.group()
        digits = re.sub(r"\D", "", written)
        if (
            not 7 <= len(digits) <= 15
            or _DATE.match(written.replace(" - ", "-"))
            or _YEARS.match(written)
            or len(set(digits)) < 2
        ):
            continue
        if written.count("(") != written.count(")"):
            continue
        has_cue = bool(_PHONE_CUE.search(_before(text, match.start())) or _PHONE_CUE_AFTER.match(text, match.end()))
        if written.startswith(("+", "00")):
            number = "+" + digits.removeprefix("00" if written.startswith("00") else "")
            found = has_cue or _valid(number, None)
        elif has_cue:
            found = True
        else:
            # without a cue the digits must be grouped like a telephone number and fit a numbering plan
            shaped = bool(_PHONE_SHAPE.match(written)) and not _THOUSANDS.match(written)
            found = shaped and len(digits) >= 9 and any(_valid(written, region) for region in PHONE_REGIONS)
        if found:
            yield Hit(match.start(), match.end(), "phone")


def _valid(written: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(written, region))
    except phonenumbers.NumberParseException:
        return False


def _before(text: str, start: int) -> str:
    return text[max(0, start - CUE_WINDOW) : start].rstrip()


_FINDERS: Final[Sequence[Callable[[str], Iterator[Hit]]]] = (
    _url_credentials, _secrets, _emails, _ibans, _national_ids, _cards, _ips, _phones,
)  # fmt: skip
"""The most certain first: a hit that overlaps one of an earlier finder is dropped."""
