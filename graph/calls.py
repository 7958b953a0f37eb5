"""Calls to chat models: paid for before they are made, with their providers' faults turned into our errors.

A failed attempt is repeated, and then another model is asked, as long as nothing of the answer has been shown. Each attempt is
paid for separately, so a budget holds however many there are.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from citewell.errors import (
    BudgetExceeded,
    CircuitOpen,
    CitewellError,
    ModelError,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
)
from citewell.limits import WARN_AT, Reservation
from citewell.models.faults import asked_pause_s, is_free, is_models, map_model_errors
from citewell.settings import EXTRACTIVE
from citewell.telemetry import metrics, tracing
from graph.events import at_model
from graph.parts import Parts
from graph.state import RunContext

Piece = TypeVar("Piece")

SIMPLE: Final = "simple_question"
"""Why a cheaper model answers."""
PAUSE_S: Final = 0.5
"""Pause before the second attempt, doubled before each further one. The OpenAI SDK's default, like the next constant."""
LONGEST_PAUSE_S: Final = 8.0
"""No pause is longer; a provider that asks for a longer one is not tried again."""
_ALWAYS_SAY_WHY: Final = ("anthropic:", "ollama:")
"""Providers that end every stream with a finish reason, so that a stream without one was cut. Not every OpenAI-compatible server
does; `citewell.models.deltas` checks their streams."""
_ENDS_AFTER_TEXT: Final = ("", "stop", "end_turn", "tool_calls", "tool_use", "function_call")
"""Finish reasons that imply some text (no tools are offered). An answer that was cut or filtered may have none."""

log = structlog.get_logger()


class Call:
    """One call of one turn: which models to try, in which order, and how each attempt went.

    Args:
        asked: The model that the caller or the settings chose, `provider:model`.
        others: Fallback models, in order; `extractive` among them allows a rule to stand in after all others have failed.
        cheaper: A model to try first, because the question is simple.
        quotes_unpaid: Whether a rule also stands in where the day's budget has no room for the call.
    """

    def __init__(
        self, asked: str, others: Sequence[str], *, cheaper: str | None = None, quotes_unpaid: bool = False
    ) -> None:
        models = dict.fromkeys([*([cheaper] if cheaper else []), asked, *others])
        self.models = [name for name in models if name != EXTRACTIVE]
        self._cheaper = cheaper
        self._may_quote = EXTRACTIVE in others
        self._quotes_unpaid = quotes_unpaid
        self._asked = asked
        self._answered: str | None = None
        self._by_budget = False
        self._share = 0.0
        self._attempts = 0
        self._failures: list[dict[str, str]] = []

    def attempted(self, model: str, *, by_budget: bool, share: float) -> None:
        """Note an attempt that is about to be made.

        Args:
            model: The model that is asked.
            by_budget: Whether the budget chose the model.
            share: Share (0..1) of the day's budget or tokens that is spent or reserved so far.
        """
        self._attempts += 1
        self._answered, self._by_budget, self._share = model, by_budget, share

    def failed(self, model: str, code: str) -> None:
        """Note an attempt that failed, or was not made because the model's circuit is open."""
        self._answered = None
        self._failures.append({"model": model, "code": code})

    def do_without(self, exc: CitewellError) -> None:
        """Note that a rule stands in for all models.

        Raises:
            CitewellError: `exc`, where the settings do not allow that.
        """
        is_unpaid = self._quotes_unpaid and isinstance(exc, BudgetExceeded)
        if not is_unpaid and not (self._may_quote and is_models(exc)):
            raise exc
        log.warning("model.replaced", model=self._asked, by=EXTRACTIVE, code=exc.code)
        self._answered, self._by_budget = EXTRACTIVE, is_unpaid
        metrics.MODEL_CHANGES.labels(EXTRACTIVE, self.why).inc()

    @property
    def answered(self) -> str:
        """The model that answers; the one asked for until there is one."""
        return self._answered or self._asked

    @property
    def why(self) -> str | None:
        """Why another model than the one asked for answers: `simple_question`, `budget`, or the last failure's error code."""
        if self._answered in (None, self._asked):
            return None
        if self._by_budget:
            return "budget"
        return SIMPLE if self._answered == self._cheaper else self._failures[-1]["code"]

    def as_dict(self) -> dict[str, Any]:
        """For the answer's metadata."""
        return {
            "asked": self._asked, "answered": self._answered, "why": self.why, "attempts": self._attempts,
            "failures": self._failures,
        } | ({"budget_share": round(self._share, 3)} if self._share >= WARN_AT else {})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attempt:
    """The right to ask one model once."""

    model: BaseChatModel
    reservation: Reservation
    note: tracing.Note

    def used(self, usage: UsageMetadata) -> None:
        """Pay for what the provider says was used; impossible figures are ignored."""
        if not _is_possible(usage) or not usage["input_tokens"]:  # no prompt of ours has no tokens
            return
        self.reservation.settle(usage)
        self.note({"gen_ai.usage.input_tokens": usage["input_tokens"], "gen_ai.usage.output_tokens": usage["output_tokens"]})  # fmt: skip


class Calls:
    """Makes the calls of all nodes; there is no other way to a chat model, so no budget can be bypassed."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings

    def name(self, context: RunContext) -> str | None:
        """The chat model of this run; None for the extractive answerer."""
        name = context.chat_model or self._parts.models.default
        return None if name == EXTRACTIVE else name

    def prepare(self, context: RunContext, *, is_simple: bool = False) -> Call:
        """A call to the chosen model, or to a cheaper one for a simple question, with the fallbacks that the settings name."""
        asked = self.name(context)
        assert asked is not None
        cheaper = self._settings.simple_model if is_simple and context.chat_model is None else None
        return Call(
            asked, self._settings.fallback_models, cheaper=cheaper,
            quotes_unpaid=self._settings.budget_model == EXTRACTIVE,
        )  # fmt: skip

    async def text(self, context: RunContext, call: Call, prompt: ChatPromptTemplate, given: Mapping[str, Any]) -> str:
        """Run prompt | model | text to its end."""

        async def once(attempt: Attempt) -> AsyncGenerator[str, None]:
            with get_usage_metadata_callback() as used:
                written = await (prompt | attempt.model | StrOutputParser()).ainvoke(dict(given))
            for usage in used.usage_metadata.values():
                attempt.used(usage)
            yield written

        asked = prompt.invoke(dict(given)).to_string()  # includes the roles' names, which cost tokens as well
        async with aclosing(self._try(context, call, asked, once)) as written:
            return "".join([text async for text in written])

    async def stream(
        self, context: RunContext, call: Call, messages: Sequence[BaseMessage]
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """The model's pieces as they come.

        The model is asked directly: a RunnableSequence of prompt and model adds up all pieces so far at every token, which
        costs more than everything else the graph does per token.
        """

        async def once(attempt: Attempt) -> AsyncGenerator[AIMessageChunk, None]:
            usage: UsageMetadata | None = None
            silent: list[AIMessageChunk] = []
            has_spoken, ended = False, ""
            async with aclosing(attempt.model.astream(list(messages))) as pieces:  # type: ignore[type-var]  # it is a generator
                async for piece in pieces:
                    if not _is_possible(piece.usage_metadata):
                        piece.usage_metadata = None
                    if piece.usage_metadata:
                        usage = add_usage(usage, piece.usage_metadata)
                    ended = finish_reason(piece.response_metadata) or ended
                    silent.append(piece)
                    if piece.text:  # pieces without text are held back: they are worthless if none with text follows
                        has_spoken = True
                        for each in silent:
                            yield each
                        silent.clear()
            if usage:
                attempt.used(usage)
            if not ended and attempt.reservation.model.startswith(_ALWAYS_SAY_WHY):
                raise ModelUnavailable("The chat model's answer ended before it was whole.")
            if not has_spoken and ended in _ENDS_AFTER_TEXT:
                raise ModelError("The chat model gave an empty answer.")
            for each in silent:
                yield each

        text = "".join(message.text for message in messages)
        async with aclosing(self._try(context, call, text, once)) as pieces:
            async for piece in pieces:
                yield piece

    async def _try(
        self, context: RunContext, call: Call, prompt: str, once: Callable[[Attempt], AsyncGenerator[Piece, None]]
    ) -> AsyncGenerator[Piece, None]:
        """Make attempts until one succeeds; the last failure is the one that is raised."""
        for place, model in enumerate(call.models):
            is_last = place + 1 == len(call.models)
            for tried in range(self._settings.model_retries + 1):
                begun = False
                try:
                    async with self._paid(context, call, model, prompt) as attempt, aclosing(once(attempt)) as pieces:
                        async for piece in pieces:
                            begun = True
                            yield piece
                    return
                except CitewellError as exc:
                    if begun or not is_models(exc):
                        raise
                    pause_s = None if tried == self._settings.model_retries else _pause_s(exc, tried, is_last=is_last)
                    if pause_s is None and is_last:
                        raise
                    failed = exc
                if pause_s is None:
                    break
                await asyncio.sleep(pause_s)
            log.warning("model.replaced", model=model, by=call.models[place + 1], code=failed.code)

    @asynccontextmanager
    async def _paid(self, context: RunContext, call: Call, name: str, prompt: str) -> AsyncIterator[Attempt]:
        """One attempt: its cost reserved, then settled or released, and its outcome reported to the model's circuit."""
        longest = context.max_tokens or self._settings.max_tokens
        # No tokenizer makes more tokens than the text has bytes, so this is an upper bound for any model.
        async with self._parts.limits.reserve(context.caller, name, len(prompt.encode()), longest) as reservation:
            model_name = reservation.model
            outcome, is_sent = "left", False
            try:
                model = self._parts.models.get(
                    model_name, temperature=context.temperature, max_tokens=context.max_tokens
                )
                circuit = self._parts.models.circuits[model_name]
                span = tracing.model_call(
                    model_name, max_tokens=longest,
                    temperature=self._settings.temperature if context.temperature is None else context.temperature,
                )  # fmt: skip
                with circuit.watching(is_models), span as note, map_model_errors():
                    is_sent = True
                    call.attempted(model_name, by_budget=model_name != name, share=reservation.share)
                    if (asking := at_model.get()) is not None:
                        asking()
                    yield Attempt(model, reservation, note)
                outcome = "answered"
            except CitewellError as exc:
                outcome = exc.code
                call.failed(model_name, exc.code)
                if not is_sent or is_free(exc):
                    reservation.release()
                raise
            finally:
                metrics.MODEL_CALLS.labels(model_name, outcome).inc()
                if outcome == "answered" and (why := call.why):
                    metrics.MODEL_CHANGES.labels(model_name, why).inc()


def _is_possible(usage: UsageMetadata | None) -> bool:
    return usage is None or min(usage["input_tokens"], usage["output_tokens"]) >= 0


def finish_reason(response: Mapping[str, Any]) -> str:
    """Why a model stopped, in its provider's own word (OpenAI's, Anthropic's, Ollama's), in lower case; empty where it does not say.

    Args:
        response: A message's `response_metadata`.
    """
    return str(next(filter(None, map(response.get, ("finish_reason", "stop_reason", "done_reason"))), "")).lower()


def _pause_s(error: CitewellError, tried: int, *, is_last: bool) -> float | None:
    """Seconds to wait before the same model is tried again; None: do not try it again."""
    if isinstance(error, CircuitOpen | ModelRefused):
        return None
    if isinstance(error, ModelTimeout) and not is_last:
        return None  # the caller has waited long enough for this model
    asked_s = asked_pause_s(error)
    if asked_s is not None:
        return asked_s if asked_s <= LONGEST_PAUSE_S else None
    return float(min(LONGEST_PAUSE_S, PAUSE_S * 2**tried) * random.uniform(0.5, 1.0))  # noqa: S311  # spreads, hides nothing
