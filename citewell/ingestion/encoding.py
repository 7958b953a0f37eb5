"""Bytes to text: which encoding, and which characters never reach the index."""

from __future__ import annotations

import codecs
import contextlib
import re
import unicodedata

import charset_normalizer

from citewell.errors import SourceUnsupported

# The longest marks first: UTF-32's little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"""<(?:\?xml|meta)\b[^>]{0,200}?(?:encoding|charset)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.I)  # fmt: skip
# DOS code pages and the like are left out: nobody writes them today, and they win by chance on short texts.
_PLAUSIBLE = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r", "iso8859_5",
              "mac_cyrillic", "cp932", "euc_jp", "gb18030", "big5", "cp949", "cp874", "utf_16_le", "utf_16_be", "utf_32_le",
              "utf_32_be"]  # fmt: skip
_WEST = ("àâæçéèêëîïôœùûüÿ", "äöüßé", "áéíñóúüªº", "ãáâàçéêíóôõúü", "àèéìíòóù", "åäöæøéü", "éëïóöüè", "áðéíóúýþæö")
_EAST = ("áéíóöőúüű", "ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "čćđšž", "ăâîşţ")
# Latin code pages decode one another's bytes without complaint, and letter frequencies of a short text are noise. So the
# page is taken that yields a language's own accented letters, and no other sign within a word; on a tie the first.
_ALPHABETS = {
    "cp1252": _WEST,
    "cp1250": _EAST,
    "cp1254": ("çğıöşüâî",),
    "cp1257": ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž"),
    "iso8859_2": _EAST,
    "mac_roman": _WEST,
}
_SAMPLE_BYTES = 262_144
_HIGH = re.compile(rb"[\x80-\xff]+")
_LATIN_RUN = 2.5
"""Mean length of runs of bytes above ASCII, below which they are letters among ASCII's; whole words have longer ones."""
_WITHIN_WORDS = frozenset("’‘ʼ–—·…\xa0\xad")
"""What stands between two letters of a word, or of two, other than letters."""
_UNWANTED = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f\u00ad\ufeff\ufffe\uffff\ufff9-\ufffb"
    "\u202a-\u202e\u2066-\u2069"  # turn the direction of writing up to another mark, or of all else on the line
    "\U000e0001\U000e0020-\U000e007f]"  # letters that no program shows and models read
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x01-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_RAISED = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_MOST_CONTROL = 0.01
"""Share of control characters above which a file is taken for binary. Random bytes have 0.1."""


def decode(data: bytes) -> tuple[str, str | None]:
    """Decode text of unknown encoding.

    Returns:
        The text, not cleaned, and a note for the owner where the encoding had to be guessed.

    Raises:
        SourceUnsupported: These bytes are no text in any encoding.
    """
    text, note = _decode(data)
    head = text[:_SAMPLE_BYTES]
    if len(_CONTROL.findall(head)) > _MOST_CONTROL * len(head):
        raise SourceUnsupported("the content is binary, not text")
    return text, note


def clean(text: str) -> str:
    """Remove what no reader sees and no store accepts; keep every letter.

    Line ends become `\\n`, form feeds a paragraph's end; NUL and other control characters, soft hyphens, byte order
    marks, marks that turn the direction of writing and invisible letters go; lone surrogates become U+FFFD; the rest is
    composed (NFC), so that one spelling of a letter finds the other. Idempotent.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n\n").replace("\x85", "\n")
    text = text.replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = _SURROGATE.sub("\ufffd", _UNWANTED.sub("", text))
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def clean_line(text: str, *, most: int = 300) -> str:
    """The same for a title or a tag: on one line, of at most `most` characters."""
    return " ".join(clean(text).split())[:most]


def raised(text: str) -> str:
    """Text that stands above the line: its figures as such, for 10⁶ people are not 106."""
    return text.translate(_RAISED)


def _decode(data: bytes) -> tuple[str, str | None]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), None
            except UnicodeDecodeError:
                return data.decode(encoding, "replace"), f"some characters are damaged ({encoding})"
    if b"\x1b$B" in data or b"\x1b$@" in data:
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("iso2022_jp"), None
    if (wide := _unmarked_wide(data)) is not None:
        return data.decode(wide, "replace"), None
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError:
        pass
    if (declared := _DECLARED.search(data[:2048])) is not None:
        try:
            return data.decode(declared[1].decode("ascii")), None
        except (LookupError, UnicodeError):
            pass  # the declaration is wrong; look at the bytes instead
    return _decode_mixed(data) or _decode_guessed(data)


def _unmarked_wide(data: bytes) -> str | None:
    """UTF-16 and UTF-32 without a mark, told by where the zero bytes stand."""
    head = data[: 4096 - 4096 % 4]
    if len(head) < 8 or head.count(0) < len(head) // 5:
        return None
    zeros = [head[i::4].count(0) / len(head[i::4]) for i in range(4)]
    if len(data) % 4 == 0 and zeros[0] > 0.9 and zeros[1] > 0.7:
        return "utf-32-be"
    if len(data) % 4 == 0 and zeros[3] > 0.9 and zeros[2] > 0.7:
        return "utf-32-le"
    even, odd = zeros[0] + zeros[2], zeros[1] + zeros[3]
    if len(data) % 2 == 0 and max(even, odd) > 0.6 and min(even, odd) < 0.2 * max(even, odd):
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


def _decode_mixed(data: bytes) -> tuple[str, str | None] | None:
    """UTF-8 with a few lines pasted in from elsewhere; None where it is not mostly UTF-8."""
    lines: list[str] = []
    good = bad = 0
    for line in data.splitlines(keepends=True):
        try:
            lines.append(line.decode("utf-8"))
            good += not line.isascii()
        except UnicodeDecodeError:
            lines.append(line.decode("cp1252", "replace"))
            bad += 1
    if good <= bad:
        return None
    return "".join(lines), f"{bad} line{'s are' if bad > 1 else ' is'} not UTF-8; read as Windows-1252"


def _decode_guessed(data: bytes) -> tuple[str, str | None]:
    # Only lines with something to see: a megabyte of ASCII before the first accent tells nothing.
    sample = b"".join(line for line in data.splitlines(keepends=True) if not line.isascii())[:_SAMPLE_BYTES]
    if b"\0" in sample:
        sample = data[:_SAMPLE_BYTES]
    runs = _HIGH.findall(sample)
    if sum(map(len, runs)) < _LATIN_RUN * len(runs) and b"\0" not in sample:
        encoding = max(_ALPHABETS, key=lambda page: _fit(sample, page))
    else:
        best = charset_normalizer.from_bytes(sample, cp_isolation=_PLAUSIBLE).best()
        encoding = best.encoding if best is not None else "cp1252"
    return data.decode(encoding, "replace"), f"encoding guessed: {encoding}"


def _fit(sample: bytes, page: str) -> float:
    """Share of what is not ASCII that are letters of the one alphabet that has most of them, 0..1."""
    text = sample.decode(page, "replace")
    letters = [letter for letter in text.casefold() if letter > "\x7f" and letter.isalpha()]
    most = max(sum(letter in alphabet for letter in letters) for alphabet in _ALPHABETS[page])
    odd = sum(_is_odd(*signs) for signs in zip(text, text[1:], text[2:], strict=False) if signs[1] > "\x7f")
    return most / (len(letters) + odd) if letters or odd else 1.0


def _is_odd(before: str, sign: str, after: str) -> bool:
    """Whether nobody writes this: a control character, or a capital or another sign within a word."""
    if sign < "\xa0" or sign == "\ufffd":
        return True
    return before.isalpha() and after.islower() and not sign.islower() and sign not in _WITHIN_WORDS
