"""Text on a terminal, whose lines end between words."""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text


class Flowing:
    """Text that comes in pieces, which may end within a word. Elsewhere than on a terminal it is written as it comes."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._column = 0
        self._held = ""
        """A word that may not be whole yet."""

    def write(self, piece: str) -> None:
        if not self._out.is_terminal:
            self._put(piece)
            return
        *words, self._held = re.split(r"(?<=\s)", self._held + piece)
        if cell_len(self._held) >= self._out.width:  # some scripts have no spaces: such a line ends where it must
            words, self._held = [*words, self._held], ""
        for word in words:
            self._flow(word)

    def end(self) -> None:
        """Write what is held, and end the line if there is one."""
        self._flow(self._held)
        self._held = ""
        if self._column:
            self._put("\n")

    def _flow(self, word: str) -> None:
        """Write a word and the white space behind it, in the next line where this one has no room."""
        room, text = self._out.width - self._column, word.rstrip()
        if self._column and cell_len(text) > room:
            self._put("\n")
            room = self._out.width
        self._put(word if "\n" in word or cell_len(word) <= room else text)

    def _put(self, text: str) -> None:
        self._out.out(text, end="")
        self._column = cell_len(text[text.rfind("\n") + 1 :]) + (0 if "\n" in text else self._column)


def print_indented(out: Console, text: str, style: str) -> None:
    """Print a paragraph four columns in."""
    for line in Text(text, style).wrap(out, out.width - 4 if out.is_terminal else len(text)):
        out.print("   ", line)
