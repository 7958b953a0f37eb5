"""Signs that Word keeps as numbers of a font made of pictures: as characters, for "±5 %" is not "5 %", and "5 µm" not "5 mm"."""

from __future__ import annotations

from typing import Final

_SYMBOL_20: Final = " !∀#∃%&∍()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_‾αβχδεφγηιϕκλµνοπθρστυϖωξψζ{|}∼"
_SYMBOL_A0: Final = "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓◊〈®©™∑⎛⎜⎝⎡⎢⎣⎧⎨⎩⎪ 〉∫⌠⎮⌡⎞⎟⎠⎤⎥⎦⎫⎬⎭"
_SIGNS: Final[dict[str, dict[int, str]]] = {
    "symbol": dict(enumerate(_SYMBOL_20, 0x20)) | dict(enumerate(_SYMBOL_A0, 0xA0)),
    # of the hundreds in these, those that say something
    "wingdings": {
        0x4A: "☺", 0x4C: "☹", 0x6F: "☐", 0xA8: "☐", 0xDF: "←", 0xE0: "→", 0xE1: "↑", 0xE2: "↓", 0xE8: "→", 0xF0: "⇨",
        0xFB: "✗", 0xFC: "✓", 0xFD: "☒", 0xFE: "☑",
    },
    "wingdings 2": {0x4F: "✗", 0x50: "✓", 0x51: "☒", 0x52: "☑", 0xA3: "☐"},
}  # fmt: skip
_PRIVATE: Final = 0xF000
"""Word moves these numbers to where Unicode has no characters of its own."""


def drawn(text: str, font: str) -> str:
    """A text as a font draws it, without signs that are not known; as it is, where the font draws letters."""
    signs = _SIGNS.get(font.casefold())
    if signs is None:
        return text
    return "".join(char if char.isspace() else signs.get(ord(char) & ~_PRIVATE, "") for char in text)
