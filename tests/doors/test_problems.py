"""One mapping from errors to problems, and a picture of the tree that is true."""

import re

import pytest
from starlette.exceptions import HTTPException

from citewell import errors
from citewell.api.problems import to_problem
from citewell.errors import BudgetExceeded, CitewellError, MissingExtra, ThreadBusy


def test_our_errors_keep_their_code_and_detail() -> None:
    problem = to_problem(ThreadBusy("busy"))
    assert (problem.code, problem.status, problem.detail, problem.retryable) == ("thread_busy", 409, "busy", True)
    assert to_problem(BudgetExceeded(retry_after_s=60)).retry_after_s == 60


def test_what_is_not_ours_says_nothing_of_its_insides() -> None:
    problem = to_problem(RuntimeError("password=hunter2"))
    assert problem.status == 500
    assert "hunter2" not in problem.model_dump_json()


def test_the_frameworks_refusals_keep_their_status() -> None:
    assert to_problem(HTTPException(405, "Method Not Allowed")).status == 405


def every_error() -> list[type[CitewellError]]:
    return [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, CitewellError)]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_the_drawn_tree_names_every_error(error: type[CitewellError]) -> None:
    drawn = re.search(rf"{error.__name__}\b(?: +(\d{{3}}))?", errors.__doc__ or "")
    assert drawn, f"{error.__name__} is not in the tree"
    if drawn[1]:
        assert int(drawn[1]) == error.status


def test_codes_are_one_each() -> None:
    codes = [error.code for error in every_error()]
    assert len(codes) == len(set(codes))


def test_a_missing_extra_says_how_to_get_it() -> None:
    assert "pip install 'citewell[ui]'" in MissingExtra("ui", "The chat page").detail
