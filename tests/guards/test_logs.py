"""No text of a user or a document above DEBUG, no personal data at any level."""

from __future__ import annotations

import json

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from citewell.guards.logs import LONGEST_VALUE, TEXT_KEYS, RedactText
from citewell.guards.personal import find


def logged(level: str, **values: object) -> dict[str, object]:
    logger = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            RedactText(),
            structlog.processors.JSONRenderer(),
        ],
    )
    line = getattr(logger, level)("run.finished", **values)
    return dict(json.loads(line))


@pytest.mark.parametrize("level", ["info", "warning", "error", "critical"])
@pytest.mark.parametrize("key", sorted(TEXT_KEYS - {"event"}))
def test_text_is_left_out_above_debug(level: str, key: str) -> None:
    entry = logged(level, **{key: "who is the spy", "nested": {key: ["who is the spy"]}})
    assert "spy" not in json.dumps(entry)
    assert entry["event"] == "run.finished"


@pytest.mark.parametrize("level", ["debug", "info"])
def test_long_values_are_cut(level: str) -> None:
    assert logged(level, note="x" * (LONGEST_VALUE + 1))["note"] == "x" * LONGEST_VALUE


def test_at_debug_text_is_shown_without_personal_data() -> None:
    entry = logged("debug", question="is ann@firm.example the spy?")
    assert entry["question"] == "is [email] the spy?"


def test_figures_names_and_urls_stay_and_secrets_go() -> None:
    entry = logged("info", duration_ms=12.5, model="openai:gpt-5-mini", ok=True, url="redis://u:hunter2@db:6379/0")
    assert entry["duration_ms"] == 12.5
    assert entry["model"] == "openai:gpt-5-mini"
    assert entry["ok"] is True
    assert entry["url"] == "redis://[url_credentials]@db:6379/0"


def test_what_a_library_says_loses_secrets_and_personal_data_and_is_whole() -> None:
    said = f"{'It failed. ' * 100}Header invalid: Bearer our-own-key of ada@example.com"
    entry = RedactText({"our-own-key"})(None, "warning", {"event": said})
    assert entry["event"] == f"{'It failed. ' * 100}Header invalid: Bearer [secret] of [email]"


def test_tracebacks_lose_personal_data() -> None:
    try:
        raise ValueError("cannot reach ann@firm.example")
    except ValueError as exc:
        entry = logged("error", exc_info=exc)
    assert "ann@" not in json.dumps(entry)
    assert "ValueError" in str(entry["exception"])


def test_objects_are_named_not_printed() -> None:
    class Question:
        def __repr__(self) -> str:
            return "who is the spy"

    assert logged("info", thing=Question())["thing"] == "<Question>"


@given(st.dictionaries(st.sampled_from(["question", "path", "note"]), st.text(max_size=2 * LONGEST_VALUE)))
def test_no_detected_entity_is_ever_logged(values: dict[str, str]) -> None:
    entry = RedactText()(None, "info", {"event": "x", **values})
    assert all(find(str(value)) == [] for value in entry.values())
