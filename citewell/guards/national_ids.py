"""National identity, social security and tax numbers, checked by python-stdnum.

Some are recognisable by their form alone (a Finnish HETU, an Italian codice fiscale). Every tenth run of bare digits
satisfies some check digit, so such a run counts only after a cue word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from stdnum.au import tfn
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.ee import ik
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.us import itin, ssn

CUE: Final = re.compile(
    r"(?i)\bssn\b|social security|social insurance|national (?:id|insurance|number|identi)|\bid (?:card|number|no)\b|passport|tax (?:id|file|number)"
    r"|\btin\b|\bnhs\b|\bbsn\b|\bsin\b|\btfn\b|\bpesel\b|\bcpf\b|\baadhaa?r\b|\bcpr\b|\bnino\b|\bcnp\b|\brut\b|\bdni\b|\bnie\b|\bitin\b|\bahv\b|\bnir\b"
    r"|personal (?:code|id|number|identi)|steuer|identifikationsnummer|personnummer|f[øo]dselsnummer|burgerservice|isikukood|rijksregister"
    r"|身份证|주민등록"
)
_CUE_WINDOW: Final = 48


@dataclass(frozen=True, slots=True)
class Identifier:
    country: str
    form: re.Pattern[str]
    is_valid: Callable[[str], bool]
    needs_cue: bool = False


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.,-])(?:{pattern})(?![\w]|[.,-]\d)", re.IGNORECASE)


_UK_NINO = r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]"
"""GOV.UK, National Insurance Manual NIM39110: no check digit, but barred letters."""

IDENTIFIERS: Final = (
    Identifier("US", _form(r"\d{3}-\d{2}-\d{4}"), lambda s: ssn.is_valid(s) or itin.is_valid(s)),
    Identifier("US", _form(r"\d{3} ?\d{2} ?\d{4}"), lambda s: ssn.is_valid(s.replace(" ", "")), needs_cue=True),
    Identifier("GB", _form(_UK_NINO), lambda _: True),
    Identifier("GB", _form(r"\d{3} ?\d{3} ?\d{4}"), nhs.is_valid, needs_cue=True),
    Identifier("FR", _form(r"[12] ?\d{2} ?[0-9]{2} ?[0-9][0-9AB] ?\d{3} ?\d{3} ?\d{2}"), nir.is_valid),
    Identifier("IT", _form(r"[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]"), codicefiscale.is_valid),
    Identifier("ES", _form(r"\d{8}-?[A-Z]"), dni.is_valid),
    Identifier("ES", _form(r"[XYZ]-?\d{7}-?[A-Z]"), nie.is_valid),
    Identifier("FI", _form(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]"), hetu.is_valid),
    Identifier("SE", _form(r"(?:\d{2})?\d{6}[-+]\d{4}"), personnummer.is_valid),
    Identifier("DK", _form(r"\d{6}-\d{4}"), cpr.is_valid),
    Identifier("BE", _form(r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}"), nn.is_valid),
    Identifier("CH", _form(r"756\.\d{4}\.\d{4}\.\d{2}"), ahv.is_valid),
    Identifier("BR", _form(r"\d{3}\.\d{3}\.\d{3}-\d{2}"), cpf.is_valid),
    Identifier("CL", _form(r"\d{1,2}\.\d{3}\.\d{3}-[0-9K]"), rut.is_valid),
    Identifier("MX", _form(r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d"), curp.is_valid),
    Identifier("IN", _form(r"[2-9]\d{3} \d{4} \d{4}"), aadhaar.is_valid),
    Identifier("IN", _form(r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]"), pan.is_valid),
    Identifier("CN", _form(r"\d{17}[0-9X]"), ric.is_valid),
    Identifier("KR", _form(r"\d{6}-[1-8]\d{6}"), rrn.is_valid),
    Identifier("CA", _form(r"\d{3}[ -]\d{3}[ -]\d{3}"), sin.is_valid, needs_cue=True),
    Identifier("AU", _form(r"\d{3} ?\d{3} ?\d{2,3}"), tfn.is_valid, needs_cue=True),
    Identifier("DE", _form(r"\d{2} ?\d{3} ?\d{3} ?\d{3}"), idnr.is_valid, needs_cue=True),
    Identifier("NL", _form(r"\d{9}"), bsn.is_valid, needs_cue=True),
    Identifier("NO", _form(r"\d{6} ?\d{5}"), fodselsnummer.is_valid, needs_cue=True),
    Identifier("PL", _form(r"\d{11}"), pesel.is_valid, needs_cue=True),
    Identifier("EE", _form(r"[1-8]\d{10}"), ik.is_valid, needs_cue=True),
    Identifier("RO", _form(r"[1-9]\d{12}"), cnp.is_valid, needs_cue=True),
    Identifier("BR", _form(r"\d{11}"), cpf.is_valid, needs_cue=True),
    Identifier("IN", _form(r"[2-9]\d{11}"), aadhaar.is_valid, needs_cue=True),
)  # fmt: skip


def find_national_ids(text: str) -> Iterator[tuple[int, int]]:
    """Spans of identifiers whose form and check digits agree; several may share a span."""
    for identifier in IDENTIFIERS:
        for match in identifier.form.finditer(text):
            if identifier.needs_cue and not CUE.search(text, max(0, match.start() - _CUE_WINDOW), match.start()):
                continue
            if identifier.is_valid(match.group()):
                yield match.span()
