"""Text on a terminal of few columns."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from citewell.flowing import Flowing, print_indented

WIDTH = 30
ANSWER = "The domes are closed when the mean wind exceeds 65 kilometres an hour, or any gust 85. [1]\n\nThey  stay closed. [2]"


def terminal(*, is_one: bool = True) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    out = Console(file=written, force_terminal=is_one, width=WIDTH, highlight=False, color_system=None)
    out.soft_wrap = not is_one
    return out, written


def flowed(text: str, size: int, *, is_one: bool = True) -> str:
    out, written = terminal(is_one=is_one)
    flowing = Flowing(out)
    for start in range(0, len(text), size):
        flowing.write(text[start : start + size])
    flowing.end()
    return written.getvalue()


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_lines_end_between_words_wherever_the_pieces_end(size: int) -> None:
    lines = flowed(ANSWER, size).splitlines()
    assert max(map(cell_len, lines)) <= WIDTH
    assert " ".join(lines).split() == ANSWER.split()
    assert lines[0] == "The domes are closed when the "
    assert "" in lines


def test_a_word_shows_as_soon_as_it_is_whole_and_one_without_end_as_the_line_is_full() -> None:
    out, written = terminal()
    flowing = Flowing(out)
    flowing.write("The dom")
    assert written.getvalue() == "The "
    flowing.write("es " + "風" * WIDTH)
    assert "風" * WIDTH in written.getvalue()


def test_a_line_that_is_full_to_the_last_column_leaves_no_empty_one_behind() -> None:
    assert flowed("a" * (WIDTH - 1) + "b cd", 3).splitlines() == ["a" * (WIDTH - 1) + "b", "cd"]


def test_elsewhere_than_on_a_terminal_it_is_written_as_it_comes() -> None:
    assert flowed(ANSWER, 5, is_one=False) == ANSWER + "\n"


def test_a_quote_keeps_its_distance_from_the_margin_in_every_line() -> None:
    for is_one in (True, False):
        out, written = terminal(is_one=is_one)
        print_indented(out, "“The domes are closed at night and in storms.\nThe park is not.”", "dim")
        assert all(line.startswith("    ") for line in written.getvalue().splitlines())
        assert len(written.getvalue().splitlines()) == (3 if is_one else 2)
