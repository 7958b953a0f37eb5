"""Code blocks of the pages, as a reader sees them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
NOT_RUN = re.compile(r"^\*Not run by the tests: .{10,}\*$", re.DOTALL)
"""What a page says before a block that is not run, with the reason."""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    is_run: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def lines(self) -> list[str]:
        """With those joined that a backslash divides."""
        return re.sub(r"\\\n\s+", " ", self.text).splitlines()

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Of a console block: what is typed, and the lines that are shown after it."""
        lines = self.lines()
        starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            yield lines[start][2:].split("  #")[0].strip(), lines[start + 1 : end]


def blocks() -> list[Block]:
    return [
        block
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
        for block in _of(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]


def _of(page: str, text: str) -> Iterator[Block]:
    tokens = MarkdownIt().enable("table").parse(text)
    before = ""
    for token in tokens:
        if token.type == "inline":
            before = token.content
        elif token.type in ("fence", "code_block") and token.map:
            language = token.info.split()[0] if token.info.strip() else ""
            yield Block(page, token.map[0] + 1, language, token.content, not NOT_RUN.match(before))
            before = ""


def shown(expected: list[str]) -> re.Pattern[str]:
    """What output must look like: as the page shows it, with anything for … and for figures of time and confidence."""
    text = re.sub(r"\s+", " ", " ".join(expected)).strip()
    pattern = re.escape(text).replace("…", ".*?").replace(r"\ ", r"\s*")
    pattern = re.sub(r"[0-9a-f]{8}(\\-[0-9a-f]{4}){3}\\-[0-9a-f]{12}", "[0-9a-f-]{36}", pattern)
    pattern = re.sub(r"cw_\w+", r"cw_[\\w-]+", re.sub(r"in\\s\*[\d.\\]+\\s\*s$", r"in\\s*[\\d.]+\\s*s", pattern))
    pattern = re.sub(r"confidence\\s\*\d+", r"confidence\\s*\\d+", pattern)
    return re.compile(pattern, re.DOTALL)
