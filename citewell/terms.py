"""The content of a sentence as terms that can be compared: its numbers, names and words, and which of them it negates.

Numbers are compared by value ("1,204" is "1204", "1.5 million" is "1,500,000", "twelve percent" is "12%"), with
their unit. Words are compared without inflection, never by meaning: a synonym is another word.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal, NamedTuple

Kind = Literal["number", "name", "word"]
WEIGHTS: Final[dict[Kind, float]] = {"number": 2.0, "name": 1.5, "word": 1.0}
"""The weight of a term where two texts are compared: numbers and names are what a reader would check."""


class Term(NamedTuple):
    """A number, a name or a word of a text."""

    key: str
    """The normal form by which terms are compared."""
    kind: Kind
    unit: str
    """The unit of a number: `%`, a currency sign, the symbol of a unit, or empty."""
    start: int
    end: int


class Statement(NamedTuple):
    """The terms of a text, in order, and its negations."""

    terms: tuple[Term, ...]
    denials: tuple[tuple[int, ...], ...]
    """For each "not", "never", "without" ...: the indices of the terms it governs, the nearest first; at most three, and one for
    "except" and "unless"."""


def overlap(asked: Statement, said: Statement, *, names_only: bool = False) -> float:
    """The weighted share (0..1) of the terms of `asked` that `said` holds; with `names_only`, of its numbers and names."""
    keys = {term.key for term in said.terms}
    terms = [term for term in asked.terms if not names_only or term.kind != "word"]
    total = sum(WEIGHTS[term.kind] for term in terms)
    return sum(WEIGHTS[term.kind] for term in terms if term.key in keys) / total if total else 0.0


# Words that every sentence may contain. Comparatives, quantities, "before" and "after" are deliberately not among them:
# exchanging one for another changes what a sentence says.
STOPWORDS = frozenset(
    "a an the this that these those it its it's itself he him his she her hers they them their theirs we us our ours "
    "you your yours i me my mine who whom whose which what where when why how is am are was were be been being do does "
    "did doing done has have had having will would shall should can of in on at by for from to with into onto upon as "
    "and or but so if then than there here such also too very just about between through during while because "
    "although though however therefore thus hence moreover furthermore additionally specifically namely e.g i.e etc "
    "according s t re ve ll d".split()
)
_EXCEPTIONS = frozenset({"except", "unless"})
"""They deny one term: "daily except Mondays" that of Mondays, and of nothing after it."""
_NEGATORS = _EXCEPTIONS | frozenset(
    "not no never cannot neither nor none nobody nothing nowhere without fail fails failed failing unable lack lacks "
    "lacked lacking hardly scarcely ain't nicht kein keine keinen keiner nie pas jamais nunca jam\u00e1s n\u00e3o nem "
    "\u043d\u0435 \u043d\u0435\u0442 niet geen".split()
)
_SCOPE = 3
_BEFORE_A_PAUSE = frozenset("if or why".split())  # "if not, ring us" denies nothing of what follows
_ONLY = frozenset("only just merely simply".split())  # "not only ... but also" affirms
_POINTS = frozenset({"follow", "thing"})  # "Guests may not do the following:" denies what is listed
LIST_MARK: Final = r"(?:[-*+\u2022\u2023\u25aa\u25cf\u25e6]|\d{1,3}[.)])"
ITEM: Final = re.compile(rf"[ \t]*{LIST_MARK}[ \t]+")
_LINE = re.compile(r"[^\r\n]*(?:\r?\n|\r|\Z)")

_SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
} | {word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "millions": 10**6, "mn": 10**6, "billion": 10**9,
           "billions": 10**9, "bn": 10**9, "trillion": 10**12, "trillions": 10**12}  # fmt: skip
_ORDINALS = {
    word: value
    for value, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth".split(), 1
    )
}  # fmt: skip
MONTHS: Final = "january february march april may june july august september october november december".split()
_MONTH_SHORT = {name[:3]: name for name in MONTHS if name != "may"} | {"sept": "september"}
_UNITS = {
    word: unit
    for unit, words in {
        "%": "% percent pct", "$": "dollar dollars usd", "\u20ac": "euro euros eur", "\u00a5": "yen jpy yuan",
        "km": "km kms kilometer kilometers kilometre kilometres", "mi": "mi mile miles", "m": "m meter meters metre metres",
        "cm": "cm centimeter centimeters centimetre centimetres", "mm": "mm millimeter millimeters millimetre millimetres",
        "ft": "ft foot feet", "in": "inch inches", "kg": "kg kilogram kilograms", "g": "g gram grams",
        "mg": "mg milligram milligrams", "lb": "lb lbs pound pounds", "l": "l liter liters litre litres",
        "ml": "ml milliliter milliliters millilitre millilitres", "s": "s sec secs second seconds",
        "ms": "ms millisecond milliseconds", "min": "min mins minute minutes", "h": "h hr hrs hour hours",
        "d": "day days", "wk": "week weeks", "mo": "month months", "yr": "yr yrs year years",
        "kb": "kb kilobyte kilobytes", "mb": "mb megabyte megabytes", "gb": "gb gigabyte gigabytes",
        "hz": "hz hertz", "mhz": "mhz megahertz", "ghz": "ghz gigahertz", "w": "watt watts", "kw": "kw kilowatt kilowatts",
        "mw": "mw megawatt megawatts", "milliwatt": "milliwatt milliwatts",
        "mbit": "mbit megabit megabits", "gbit": "gbit gigabit gigabits", "\u00b0c": "celsius", "\u00b0f": "fahrenheit", "mph": "mph", "kmh": "kmh km/h",
    }.items()
    for word in words.split()
}  # fmt: skip
_CASED_UNITS = {"mW": "milliwatt", "Mb": "mbit", "Gb": "gbit"}
"""Symbols that stand for another unit in lower case."""
_LETTER_UNITS = frozenset("m g l s h d w in".split())  # as separate words these mean other things

# Combining marks are not \w: without them words in Indic, Thai, Arabic and Hebrew script would be split.
_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0e31-\u0e3a\u0e47-\u0e4e\u1ab0-\u1aff\u200c\u200d"
_LETTERS = rf"(?:[^\W\d_]|[{_MARKS}])"
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_GLUED = rf"[{_UNSPACED.pattern[1:-1]}\uac00-\ud7a3]"
# Emphasis beside such a letter separates no words: these scripts have no space there, before or after a particle.
_EMPHASIS = rf"(?:(?<={_GLUED})[*`]+(?=\w)|[*`]+(?={_GLUED}))"
_SIGNS = "$\u00a2-\u00a5\u0e3f\u20a0-\u20cf\uff04\uffe0\uffe1\uffe5\uffe6"
_TOKEN = re.compile(
    rf"""(?P<iso>(?<!\w)\d{{4}}-\d{{2}}-\d{{2}}(?!\w))
    |(?:(?<![-=<>])(?P<relation>[<>!]=|[<>\u2260\u2264\u2265])[ \u00a0]?[*`]{{0,3}})?
      (?:(?P<currency>(?<!\w)[A-Z]{{1,2}}\$|[{_SIGNS}])[ \u00a0]?)?
      (?P<sign>(?<![\w)])[-\u2010-\u2013\u2212\ufe63\uff0d](?=\d))?
      (?P<number>\d{{1,3}}(?:[,\u202f\u00a0]\d{{3}})+(?:\.\d+)?(?!\d)|\d+(?:\.\d+)?[eE][-+\u2212]?\d{{1,3}}(?!\w)|\d+(?:[.,:/]\d+)*)
      (?P<tail>[ \u00a0]?[AaPp](?:\.[ ]?[Mm]\b|[Mm]\b)|(?:st|nd|rd|th|s)\b|[ \u00a0]?[%\u2030]|[ \u00a0]?[{_SIGNS}](?![ \u00a0]?\d)
        |[ \u00a0]per[ \u00a0]cent\b|{_EMPHASIS}?{_LETTERS}+)?
    |(?P<word>{_LETTERS}+(?:\d+|{_LETTERS}|{_EMPHASIS}|(?:-?[ \t]*\r?\n[ \t]*(?<=-\n))|['\u2019](?={_LETTERS}))*)
    |(?P<stop>[.!?;:,()\u3002\uff0c\u2014]|\|[ \t]*(?=\r?\n|$)|(?<=[ \t])[|\u00b7](?=[ \t])
        |\r?\n(?:[ \t]*\r?\n)+[ \t]*|\r?\n(?=[^\n|]*[ \t]\|[ \t]))""",
    re.VERBOSE,
)
"""A stop, which ends what a denial governs, is a sentence's mark, the edge of a table's cell or row, or an empty line."""
_RELATIONS = {"<=": "\u2264", ">=": "\u2265", "!=": "\u2260"}
_NO_RELATION = re.compile(r"(?:^|[.!?:\u3002])[\s|\u00b7*_`>\"'\u2019\u201d)]*\Z|<[/A-Za-z][^<>]*\Z", re.M)
"""What stands before a `>` that begins a quotation in Markdown or ends a tag."""

# Irregular forms of common words, which no suffix rule covers.
_IRREGULAR = {
    form: base
    for base, forms in {
        "use": "used using", "begin": "began begun", "become": "became", "write": "wrote written", "win": "won",
        "lead": "led", "hold": "held", "make": "made", "find": "found", "build": "built", "grow": "grew grown",
        "rise": "rose risen", "fall": "fell fallen", "sell": "sold", "buy": "bought", "take": "took taken",
        "give": "gave given", "know": "knew known", "say": "said", "go": "went gone goes going", "come": "came",
        "get": "got gotten", "see": "saw seen", "run": "ran", "keep": "kept", "leave": "left", "lose": "lost",
        "pay": "paid", "send": "sent", "show": "shown", "think": "thought", "teach": "taught", "tell": "told",
        "fight": "fought", "bring": "brought", "choose": "chose chosen", "speak": "spoke spoken", "man": "men",
        "woman": "women", "child": "children", "person": "people",
    }.items()
    for form in forms.split()
}  # fmt: skip


def stem(word: str) -> str:
    """Remove English inflection (plural, -ed, -ing), but no suffix that changes a word's class. Lower case in and out."""
    word = _IRREGULAR.get(word, word)
    if len(word) <= 3 or not word.isascii():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "xes", "ches", "shes", "zzes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if word.endswith("ied") and len(word) > 4:
        return word[:-3] + "y"
    for suffix in ("ing", "ed"):
        root = word.removesuffix(suffix)
        if root != word and len(root) >= 3 and re.search("[aeiouy]", root):
            if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz":
                return root[:-1]
            return root if len(root) > 3 or root[-1] == root[-2] else root + "e" if root[-1] not in "wxy" else root
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


@lru_cache(512)  # a chunk is read for the confidence and again for the citations; about 10 KB each
def read(text: str) -> Statement:
    """The terms of a text. Never raises; the same text gives the same terms."""
    terms: list[Term] = []
    denials: list[list[int]] = []
    open_denial: list[int] | None = None
    is_parted, scope = False, _SCOPE
    items: list[int] = []
    previous = ""
    at_start = True
    for match in _TOKEN.finditer(text):
        if items and match.start() >= items[0]:
            items.pop(0)
            denials.append([])
            open_denial, is_parted, scope = denials[-1], False, _SCOPE
        if match["stop"]:
            if match["stop"] == ":" and open_denial is not None and is_parted:
                leads = all(terms[i].key in _POINTS for i in open_denial)
                items = _items_below(text, match.end()) if leads else []
            if match["stop"].count("\n") > 1 and text[match.end() : match.end() + 1].islower():
                continue  # the sentence goes on, on a PDF's next page
            if match["stop"] == "," and open_denial == [] and is_parted:
                continue  # "does not, however, open"
            if match["stop"] not in ",." or text[match.end() : match.end() + 1].isspace():
                open_denial = None
            at_start = at_start or match["stop"] in ".!?:\u3002"
            previous = ""
            continue
        if match["word"]:
            base = _base(match["word"])
            if base.endswith("n't") or (base in _NEGATORS and not _is_numbering(base, text, match.end())):
                denials.append([])
                scope = 1 if base in _EXCEPTIONS else _SCOPE
                is_parted = base != "no" and previous not in _BEFORE_A_PAUSE
                open_denial, previous, at_start = denials[-1], "not", False
                continue
            if base in _ONLY and previous == "not" and denials:
                denials.pop()
                open_denial = None
            previous = base
            if base == "but":
                open_denial = None
            if base in STOPWORDS:
                at_start = False
                continue
        before = len(terms)
        _append(terms, match, text, at_start)
        at_start = False
        if open_denial is not None:
            open_denial.extend(range(before, len(terms)))
            if len(open_denial) >= scope:
                del open_denial[scope:]
                open_denial = None
    return Statement(*_joined(terms, denials, text))


def denies_below(lead: str) -> bool:
    """Whether a line that leads to a list denies what it lists, as "Guests may not:" does."""
    listed = read(f"{lead}\n- listed")
    return any(len(listed.terms) - 1 in denial for denial in listed.denials)


def _items_below(text: str, start: int) -> list[int]:
    """Where the items of the list begin that stands right below the line that ends at `start`; empty where there is none."""
    found: list[int] = []
    is_apart = True
    for line in _LINE.finditer(text, start):
        if line.start() > start and (mark := ITEM.match(text, line.start(), line.end())):
            found.append(mark.end())
        elif line[0].strip(" \t\r\n*_") and is_apart:
            break
        is_apart = not line[0].strip() or not found
    return found


@lru_cache(20_000)  # most words of a language occur again and again
def _base(raw: str) -> str:
    low = unicodedata.normalize("NFKC", raw).casefold().replace("\u2019", "'")
    return low[:-2] if low.endswith("'s") else low.rstrip("'")


def _is_numbering(word: str, text: str, end: int) -> bool:
    return word == "no" and re.match(r"\.?\s*\d", text[end : end + 5]) is not None  # "No. 5"


def _append(terms: list[Term], match: re.Match[str], text: str, at_start: bool) -> None:
    start, end = match.span()
    if match["iso"]:
        year, month, day = match["iso"].split("-")
        name = MONTHS[int(month) - 1] if 1 <= int(month) <= 12 else month
        terms += [Term(year, "number", "", start, end), Term(name, "word", "", start, end),
                  Term(str(int(day)), "number", "", start, end)]  # fmt: skip
    elif match["number"]:
        terms.append(_number(match, text))
    else:
        terms += _words(match["word"], start, at_start)


def _number(match: re.Match[str], text: str) -> Term:
    digits, tail = match["number"], (match["tail"] or "").strip(" \u00a0*`")
    if re.fullmatch(r"\d{1,3}(?:[,\u202f\u00a0]\d{3})+(?:\.\d+)?", digits):
        digits = re.sub("[,\u202f\u00a0]", "", digits)
    key = unicodedata.normalize("NFKC", digits)
    if re.fullmatch(r"\d+", key):
        key = key.lstrip("0") or "0"
    elif "e" in key.casefold():
        key = _scaled(key.replace("\u2212", "-"), 1)
    if match["sign"]:
        key = "-" + key
    unit = _currency(match["currency"] or "")
    if re.fullmatch(r"[ap](?:\. ?)?m", tail, re.I):
        tail = f"{tail[0]}m"
    low = tail.casefold().replace("per cent", "%").replace("per\u00a0cent", "%")
    if low in {"st", "nd", "rd", "th"}:
        key = "#" + key
    elif low in _SCALES or (low in {"k", "m", "b"} and (unit or low == "k")):
        key = _scaled(key, {"k": 10**3, "m": 10**6, "b": 10**9}.get(low) or _SCALES[low])
    elif re.fullmatch(f"[{_SIGNS}]", tail):
        unit = unit or _currency(tail)
    elif low in _UNITS and low != "s":  # "1970s" is a decade
        unit = unit or _CASED_UNITS.get(tail, _UNITS[low])
    elif low:
        key += low  # "1970s", "3d", "747b": one name
    relation = match["relation"] or ""
    if relation == ">" and _NO_RELATION.search(text, max(0, match.start() - 200), match.start()):
        relation = ""
    return Term(_RELATIONS.get(relation, relation) + key, "number", unit, *match.span())


def _currency(sign: str) -> str:
    return "$" if sign == "US$" else unicodedata.normalize("NFKC", sign)


def _scaled(key: str, scale: int) -> str:
    try:
        value = Decimal(key) * scale
    except ArithmeticError:
        return f"{key}*{scale}"
    return format(value.normalize(), "f")


def _words(raw: str, start: int, at_start: bool) -> list[Term]:
    return [
        term if start == 0 else Term(term.key, term.kind, "", term.start + start, term.end + start)
        for term in _word(raw, at_start)
    ]


@lru_cache(20_000)
def _word(raw: str, at_start: bool) -> tuple[Term, ...]:
    """A word's terms, with positions relative to the word."""
    folded = unicodedata.normalize("NFKC", raw).casefold().replace("\u2019", "'")
    folded = re.sub(r"-?\s+|[*`]", "", folded)
    folded = folded[:-2] if folded.endswith("'s") else folded.rstrip("'")
    end = len(raw)
    if _UNSPACED.search(raw):  # a script without spaces: overlapping pairs keep the order of characters
        at = [i for i, char in enumerate(raw) if char not in "*`"]
        pairs = [at[n : n + 2] for n in range(max(1, len(at) - 1))]
        return tuple(Term("".join(raw[i] for i in pair), "word", "", pair[0], pair[-1] + 1) for pair in pairs)
    if folded in _ORDINALS:
        return (Term(f"#{_ORDINALS[folded]}", "number", "", 0, end),)
    if folded.startswith("fy") and folded[2:].isdigit():
        return (Term(folded[2:], "number", "", 0, end),)
    if any(char.isdigit() for char in folded):
        return (Term(folded, "number", "", 0, end),)
    if raw[:1].isupper() and folded in _MONTH_SHORT:
        folded = _MONTH_SHORT[folded]
    named = raw[:1].isupper() and (not at_start or raw[1:2].isupper())
    return (Term(stem(folded), "name" if named else "word", "", 0, end),)


def _joined(
    terms: list[Term], denials: list[list[int]], text: str
) -> tuple[tuple[Term, ...], tuple[tuple[int, ...], ...]]:
    """Turn numbers in words into values, and join a scale or a unit to the number before it."""
    joined: list[Term] = []
    place: list[int] = []  # where each term went
    for term in terms:
        last = joined[-1] if joined else None
        near = (
            last is not None
            and last.kind == "number"
            and term.start - last.end <= 2
            and not re.search(r"[.;:,()]|\n\n", text[last.end : term.start])
        )
        if last is not None and near and (merged := _merge(last, term, text)) is not None:
            joined[-1] = merged
        elif term.kind != "number" and (value := _spelled(term, text)) is not None:
            joined.append(term._replace(key=str(value), kind="number"))
        else:
            joined.append(term)
        place.append(len(joined) - 1)
    return tuple(joined), tuple(tuple(dict.fromkeys(place[i] for i in denial)) for denial in denials)


def _surface(term: Term, text: str) -> str:
    return text[term.start : term.end].casefold()


def _spelled(term: Term, text: str) -> int | None:
    word = _surface(term, text)
    if word == "one" and re.match(r"\s+(?:of|another)\b", text[term.end : term.end + 10]):
        return None  # "one of the" and "one another" state no number
    return _SMALL.get(word)


def _merge(last: Term, term: Term, text: str) -> Term | None:
    word = _surface(term, text)
    if last.unit == "" or last.unit in "$\u20ac\u00a3\u00a5":
        if word in _SCALES and not last.key.startswith("#"):
            return last._replace(key=_scaled(last.key, _SCALES[word]), end=term.end)
        small = _SMALL.get(word)
        if small is not None and small < 10 and _SMALL.get(_surface(last, text), 0) >= 20:
            return last._replace(key=str(int(last.key) + small), end=term.end)  # "twenty-one"
        ordinal = _ORDINALS.get(word)
        if ordinal is not None and ordinal < 10 and _SMALL.get(_surface(last, text), 0) >= 20:
            return last._replace(key=f"#{int(last.key) + ordinal}", end=term.end)  # "twenty-first"
    if last.unit == "" and not last.key.startswith("#") and word in _UNITS:
        if word in _LETTER_UNITS and text[last.end : term.start].strip():
            return None
        return last._replace(unit=_CASED_UNITS.get(text[term.start : term.end], _UNITS[word]), end=term.end)
    return None
