"""Models that fail: tried again, replaced by another, left alone; and what each try costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from prometheus_client import REGISTRY
from pydantic import SecretStr

from chains.expand import PROMPT, ExpandInput
from citewell.errors import (
    BudgetExceeded,
    CircuitOpen,
    CitewellError,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    RateLimited,
)
from citewell.limits import Limits, open_limits
from citewell.models.chat import open_chat_models
from citewell.models.circuit import Circuit, Circuits
from citewell.service import Result
from citewell.settings import Settings
from citewell.wiring import open_service
from graph.calls import Calls, finish_reason
from graph.parts import Parts
from graph.state import RunContext
from tests.clock import Forward
from tests.models.scripted_server import ANSWER, USED, ScriptedServer

QUESTION = "How high is the tower of the lighthouse?"
DEAR, OTHER = "openai:dear", "openai:other"
MODEL_S = 60.0
"""How long a model may say nothing."""
PRICES = {DEAR: (10.0, 30.0), OTHER: (1.0, 3.0)}

Open = Callable[..., AbstractAsyncContextManager["Asker"]]


@dataclass
class Asker:
    """What makes the graph's calls, over real models and limits, without an index."""

    calls: Calls
    limits: Limits
    circuits: Circuits

    async def ask(self) -> tuple[str, dict[str, Any]]:
        """The words, and how the call went."""
        context = RunContext()
        call = self.calls.prepare(context)
        try:
            pieces = [piece.text async for piece in self.calls.stream(context, call, [HumanMessage(QUESTION)])]
        except CitewellError as exc:
            exc.add_note(repr(call.as_dict()))
            raise
        return "".join(pieces), call.as_dict()

    async def spent_usd(self) -> float:
        return (await self.limits.spent("local"))["usd"]


def made(told: ScriptedServer, **settings: Any) -> Settings:
    given = {"chat_model": DEAR, "openai_base_url": told.base_url, "prices": PRICES}
    return Settings(_env_file=None, **given | settings)


@pytest.fixture
def opened(told: ScriptedServer) -> Open:
    """Models and limits over the told server: `opened(fallback_models=(OTHER,))`."""

    @asynccontextmanager
    async def opening(**changes: Any) -> AsyncIterator[Asker]:
        settings = made(told, **changes)
        no: Any = None  # parts that calls have nothing to do with
        async with open_chat_models(settings) as models, open_limits(settings) as limits:
            parts = Parts(
                settings=settings, models=models, limits=limits, index=no, extractive=no, guards=no, evidence=no
            )
            yield Asker(Calls(parts), limits, models.circuits)

    return opening


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_another_model_answers_and_says_so(opened: Open, told: ScriptedServer) -> None:
    told.always["dear"] = 503
    before = counted("citewell_model_changes_total", model=OTHER, why="model_unavailable")
    async with opened(fallback_models=(OTHER,), model_retries=1) as asker:
        text, call = await asker.ask()
    assert text == ANSWER
    assert call == {
        "asked": DEAR, "answered": OTHER, "why": "model_unavailable", "attempts": 3,
        "failures": [{"model": DEAR, "code": "model_unavailable"}] * 2,
    }  # fmt: skip
    assert told.calls == ["dear", "dear", "other"]
    assert counted("citewell_model_changes_total", model=OTHER, why="model_unavailable") == before + 1


@asynccontextmanager
async def silence_cut_short(told: ScriptedServer, forward: Forward) -> AsyncIterator[None]:
    """Where a model says nothing, as much time passes at once as it may take."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.01)
            if told.is_silent:
                forward(MODEL_S)
                while told.is_silent:
                    await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


@pytest.mark.parametrize(
    ("deeds", "attempts", "code"),
    [([429], 2, "rate_limited"), ([500, 503], 3, "model_unavailable"), (["silent"], 2, "model_timeout")],
)
async def test_a_passing_failure_is_tried_again(
    opened: Open, told: ScriptedServer, forward: Forward, deeds: list[Any], attempts: int, code: str
) -> None:
    told.deeds["dear"] = deeds
    before = counted("citewell_model_calls_total", model=DEAR, outcome=code)
    async with opened(model_timeout_s=MODEL_S) as asker, silence_cut_short(told, forward):
        _, call = await asker.ask()
    assert (call["attempts"], call["answered"], call["why"]) == (attempts, DEAR, None)
    assert call["failures"][-1]["code"] == code
    assert counted("citewell_model_calls_total", model=DEAR, outcome=code) > before


@pytest.mark.parametrize("deed", ["silent", 401, 429])
async def test_what_a_second_try_would_not_mend_goes_to_the_other_model_at_once(
    opened: Open, told: ScriptedServer, forward: Forward, deed: Any
) -> None:
    told.always["dear"] = deed
    if deed == 429:
        told.headers = {"retry-after": "60"}
    async with (
        opened(fallback_models=(OTHER,), model_timeout_s=MODEL_S) as asker,
        silence_cut_short(told, forward),
    ):
        _, call = await asker.ask()
    assert told.calls == ["dear", "other"]
    assert (call["answered"], call["attempts"]) == (OTHER, 2)


@pytest.mark.parametrize(
    ("deed", "code"), [("page", "model_unavailable"), ("hollow", "model_error"), ("null", "model_error")]
)
async def test_what_is_no_answer_is_a_failure_and_the_other_model_answers(
    opened: Open, told: ScriptedServer, deed: Any, code: str
) -> None:
    told.always["dear"] = deed
    async with opened(fallback_models=(OTHER,), model_retries=0) as asker:
        text, call = await asker.ask()
    assert (text, call["answered"], call["failures"]) == (ANSWER, OTHER, [{"model": DEAR, "code": code}])


@pytest.mark.parametrize("deed", ["page", "null"])
async def test_what_is_no_answer_to_a_smaller_call_is_a_failure_too(
    opened: Open, told: ScriptedServer, deed: Any
) -> None:
    told.always["dear"] = deed
    async with opened(fallback_models=(OTHER,), model_retries=0) as asker:
        call = asker.calls.prepare(RunContext())
        given = ExpandInput(question=QUESTION, count=1)
        assert await asker.calls.text(RunContext(), call, PROMPT, given) == ANSWER
    assert (call.answered, call.why) == (OTHER, "model_error")


async def test_an_end_for_a_tool_that_nobody_offered_is_no_answer(opened: Open, told: ScriptedServer) -> None:
    told.deeds["dear"], told.finish_reason = ["hollow"], "tool_calls"
    async with opened(model_retries=0) as asker:
        with pytest.raises(ModelError, match="empty answer"):
            await asker.ask()


@pytest.mark.parametrize("used", [(-100, -10), (100, -10), (0, 0)])
async def test_who_says_what_cannot_be_used_is_paid_in_full(
    opened: Open, told: ScriptedServer, used: tuple[int, int]
) -> None:
    told.used = used
    async with opened(budget_usd_per_day=1.0) as asker:
        context = RunContext()
        call = asker.calls.prepare(context)
        said = [piece.usage_metadata async for piece in asker.calls.stream(context, call, [HumanMessage(QUESTION)])]
        assert await asker.spent_usd() == pytest.approx((len(QUESTION) * 10 + 500 * 30) / 1e6)
    assert all(min(usage["input_tokens"], usage["output_tokens"]) >= 0 for usage in said if usage)


async def test_a_hollow_answer_is_paid_for(opened: Open, told: ScriptedServer) -> None:
    told.always["dear"] = "hollow"
    async with opened(model_retries=0, budget_usd_per_day=1.0) as asker:
        with pytest.raises(ModelError, match="empty answer"):
            await asker.ask()
        assert await asker.spent_usd() == pytest.approx(spent_usd(DEAR))


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({"finish_reason": "STOP"}, "stop"), ({"stop_reason": "max_tokens"}, "max_tokens"),
        ({"done_reason": "length", "done": True}, "length"), ({"finish_reason": None}, ""),
    ],
)  # fmt: skip
def test_the_reason_is_read_wherever_a_provider_gives_it(response: dict[str, Any], reason: str) -> None:
    assert finish_reason(response) == reason


async def test_a_host_that_is_not_there_is_replaced_and_costs_nothing(opened: Open) -> None:
    async with opened(openai_base_url="http://127.0.0.1:9/v1", model_retries=0, budget_usd_per_day=1.0) as asker:
        with pytest.raises(ModelUnavailable):
            await asker.ask()
        assert await asker.spent_usd() == 0


async def test_a_request_at_fault_is_no_reason_to_ask_another_model(opened: Open, told: ScriptedServer) -> None:
    told.always["dear"] = 400
    async with opened(fallback_models=(OTHER,), circuit_failures=1) as asker:
        with pytest.raises(ModelRefused):
            await asker.ask()
        assert asker.circuits.states()[DEAR] == "closed"
    assert told.calls == ["dear"]


async def test_a_model_that_keeps_failing_is_left_alone_then_tried_by_one_call(
    opened: Open, told: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.always["dear"] = 503
    async with opened(circuit_failures=2, circuit_pause_s=60, model_retries=0) as asker:
        for _ in range(2):
            with pytest.raises(ModelUnavailable):
                await asker.ask()
        assert asker.circuits.states() == {DEAR: "open"}
        assert counted("citewell_model_circuit_open", model=DEAR) == 1
        with pytest.raises(CircuitOpen) as refused:
            await asker.ask()
        assert refused.value.retry_after_s > 0
        assert len(told.calls) == 2
        monkeypatch.setattr(asker.circuits[DEAR], "_clock", lambda: time.monotonic() + 61)
        assert asker.circuits.states() == {DEAR: "half_open"}
        told.always.clear()
        told.pause_s = 0.2
        results = await asyncio.gather(*(asker.ask() for _ in range(3)), return_exceptions=True)
        assert len(told.calls) == 3  # one trial; the others did not wait for it
        assert sorted(type(result).__name__ for result in results) == ["CircuitOpen", "CircuitOpen", "tuple"]
        assert asker.circuits.states() == {DEAR: "closed"}
    assert counted("citewell_model_circuit_open", model=DEAR) == 0


def test_a_circuit_counts_failures_in_a_row_within_its_window() -> None:
    now = 0.0
    circuit = Circuit(DEAR, failures=3, window_s=10, pause_s=5, clock=lambda: now)

    def call(fails: bool, *, at: float) -> None:
        nonlocal now
        now = at
        try:
            with circuit.watching(lambda error: isinstance(error, ModelError)):
                if fails:
                    raise ModelUnavailable()
        except ModelUnavailable as exc:
            if isinstance(exc, CircuitOpen):
                raise

    for at, fails in enumerate((True, True, False, True, True)):
        call(fails, at=at)
    assert circuit.state == "closed"  # a success lay between
    call(True, at=20)
    assert circuit.state == "closed"  # the first of the three was too long ago
    call(True, at=21)
    call(True, at=22)
    assert circuit.state == "open"
    with pytest.raises(CircuitOpen):
        call(False, at=26)
    call(True, at=27)  # the trial fails
    assert circuit.state == "open"
    now = 32
    with pytest.raises(asyncio.CancelledError), circuit.watching(lambda _: True):
        raise asyncio.CancelledError  # one whose caller left tells nothing, and lets the next one try
    call(False, at=32)
    assert circuit.state == "closed"


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_call_from_before_the_circuit_opened_says_nothing_and_lets_no_second_one_try(succeeds: bool) -> None:
    now = 0.0
    circuit = Circuit(DEAR, failures=1, window_s=10, pause_s=5, clock=lambda: now)

    def begin() -> ExitStack:
        call = ExitStack()
        call.enter_context(circuit.watching(lambda error: isinstance(error, ModelError)))
        return call

    def end(call: ExitStack, *, well: bool) -> None:
        with suppress(ModelUnavailable), call:
            if not well:
                raise ModelUnavailable

    old, failing = begin(), begin()
    end(failing, well=False)
    assert circuit.state == "open"
    now = 6
    trial = begin()
    end(old, well=succeeds)
    assert circuit.state == "half_open"
    with pytest.raises(CircuitOpen):
        begin()
    end(trial, well=True)
    assert circuit.state == "closed"


def spent_usd(*models: str) -> float:
    return sum(USED[0] * PRICES[model][0] + USED[1] * PRICES[model][1] for model in models) / 1e6


@pytest.mark.parametrize("place", ["in process", "redis"])
async def test_each_try_is_paid_for_by_itself_and_a_refused_one_costs_nothing(
    opened: Open, told: ScriptedServer, place: str, request: pytest.FixtureRequest
) -> None:
    told.deeds["dear"] = [503, 429, 503]
    url = SecretStr(request.getfixturevalue("redis_url")) if place == "redis" else None
    async with opened(fallback_models=(OTHER,), budget_usd_per_day=1.0, redis_url=url) as asker:
        await asker.ask()
        assert await asker.spent_usd() == pytest.approx(spent_usd(OTHER))
        await asker.ask()
        assert await asker.spent_usd() == pytest.approx(spent_usd(OTHER, DEAR))


async def test_an_answer_says_when_the_budget_is_nearly_used_up(opened: Open) -> None:
    async with opened(budget_usd_per_day=0.019) as asker:
        calls = [(await asker.ask())[1] for _ in range(2)]
    assert [call.get("budget_share") for call in calls] == [
        pytest.approx(0.805, abs=0.05),
        pytest.approx(0.9, abs=0.05),
    ]


async def test_a_try_that_may_have_been_charged_stays_charged(
    opened: Open, told: ScriptedServer, forward: Forward
) -> None:
    told.deeds["dear"] = ["silent", "answer", "cut"]
    whole = 500 * PRICES[DEAR][1] / 1e6  # the silent model may have written all of its 500 tokens
    async with (
        opened(budget_usd_per_day=1.0, model_timeout_s=MODEL_S) as asker,
        silence_cut_short(told, forward),
    ):
        await asker.ask()
        once = await asker.spent_usd()
        assert once > spent_usd(DEAR) + whole
        with pytest.raises(ModelUnavailable):
            await asker.ask()
        assert await asker.spent_usd() > once + whole


async def test_many_calls_over_failing_models_never_overspend(opened: Open, told: ScriptedServer) -> None:
    """Half of the dear model's calls fail, and the budget is enough for a few calls at a time."""
    told.deeds["dear"] = [503, "answer"] * 60
    told.pause_s = 0.05
    budget = 0.06
    seen: list[float] = []
    async with opened(
        budget_usd_per_day=budget, fallback_models=(OTHER,), model_retries=0, circuit_failures=0
    ) as asker:

        async def one(number: int) -> tuple[str, dict[str, Any]]:
            await asyncio.sleep(0.01 * number)
            seen.append(await asker.spent_usd())
            return await asker.ask()

        results = await asyncio.gather(*(one(number) for number in range(60)), return_exceptions=True)
        spent = await asker.spent_usd()
    answered = [result[1]["answered"] for result in results if isinstance(result, tuple)]
    assert {type(result) for result in results} == {tuple, BudgetExceeded}
    assert set(answered) == {DEAR, OTHER}
    assert spent == pytest.approx(spent_usd(*answered))
    assert max(seen) <= budget


async def test_what_is_set_aside_for_a_text_holds_the_whole_prompt(opened: Open, told: ScriptedServer) -> None:
    given = ExpandInput(question="Domes?", count=5)
    async with opened(tokens_per_day=len(PROMPT.invoke(dict(given)).to_string()) + 500 - 1) as asker:
        call = asker.calls.prepare(RunContext())
        with pytest.raises(RateLimited):
            await asker.calls.text(RunContext(), call, PROMPT, given)
    assert told.calls == []


async def test_a_cheaper_model_that_only_the_budget_chooses_can_be_called(opened: Open, told: ScriptedServer) -> None:
    async with opened(budget_usd_per_day=0.01, budget_model=OTHER) as asker:
        _, call = await asker.ask()
    assert (call["asked"], call["answered"], call["why"]) == (DEAR, OTHER, "budget")
    assert told.calls == ["other"]


@pytest.mark.parametrize("limit", [{"budget_usd_per_day": 0.000001}, {"tokens_per_day": 10}])
async def test_a_day_that_is_used_up_is_no_end_where_the_settings_let_quotes_stand_in(
    told: ScriptedServer, indexed: Path, limit: dict[str, Any]
) -> None:
    settings = made(told, data_dir=indexed, budget_model="extractive", **limit)
    async with open_service(settings) as service:
        first = await service.ask(service.prepare(QUESTION))
        second = await service.ask(service.prepare("And when was it first lit?", thread_id=first.thread_id))
    assert "42 metres" in first.answer
    assert "14 March 1871" in second.answer
    for result in (first, second):
        assert result.metadata["answerer"] == "extractive"
        for call in result.metadata["calls"].values():
            assert (call["answered"], call["why"], call["attempts"]) == ("extractive", "budget", 0)
    assert "condense" in second.metadata["calls"]
    assert told.calls == []


async def test_a_turn_says_what_became_of_its_calls(told: ScriptedServer, indexed: Path) -> None:
    told.always = {"dear": 503, "other": 429}
    settings = made(told, data_dir=indexed, fallback_models=(OTHER, "extractive"), model_retries=0)
    async with open_service(settings) as service:
        first = await service.ask(service.prepare(QUESTION))
        second = await service.ask(service.prepare("And when was it first lit?", thread_id=first.thread_id))
        assert (await service.checks()["model"]())["circuits"] == {DEAR: "closed", OTHER: "closed"}
        told.always = {"dear": "cut"}
        said: list[str | Result] = []
        with pytest.raises(ModelUnavailable):  # nothing is papered over after the first token
            said.extend([event async for event in service.stream(service.prepare(QUESTION))])
        told.always = {"dear": 503}
        third = await service.ask(service.prepare(QUESTION))
    assert "42 metres" in first.answer
    assert first.metadata["answerer"] == first.metadata["model"] == "extractive"
    call = first.metadata["calls"]["answer"]
    assert (call["answered"], call["why"], call["attempts"]) == ("extractive", "rate_limited", 2)
    assert {citation["status"] for citation in first.citations} == {"verified"}
    assert "14 March 1871" in second.answer
    assert second.metadata["calls"]["condense"]["answered"] == "extractive"
    assert (third.answer, third.metadata["model"]) == (ANSWER, "other")
    assert third.metadata["calls"]["answer"]["why"] == "model_unavailable"


async def test_what_stands_in_for_a_model_quotes_nothing_that_does_not_answer(
    told: ScriptedServer, indexed: Path
) -> None:
    told.always = {"dear": 503}
    settings = made(told, data_dir=indexed, fallback_models=("extractive",), model_retries=0)
    async with open_service(settings) as service:
        result = await service.ask(service.prepare("How many steps does the tower have?"))
    assert (result.metadata["answerer"], result.metadata["finish_reason"]) == ("none", "no_evidence")
    assert result.citations == []
    assert result.metadata["calls"]["answer"]["why"] == "model_unavailable"
