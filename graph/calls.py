"""Calls to chat models: paid for before they are made, their faults in our words, nothing done per token in vain.

A call is tried again, and then another model is, as long as nothing of the answer has been shown. Each try is paid for by
itself, so a budget holds however many are made.
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
from citewell.models.chat import EXTRACTIVE, map_model_errors
from citewell.models.faults import asked_pause_s, is_free, is_models
from citewell.telemetry import metrics, tracing
from graph.parts import Parts
from graph.state import RunContext

Piece = TypeVar("Piece")

SIMPLE: Final = "simple_question"
"""Why a cheaper model answers."""
SAY_WHY: Final = ("anthropic:", "ollama:")
"""Who ends each stream with the reason why it ends, so that one without was cut. Of the servers that speak OpenAI's language not
all do; `citewell.models.deltas` looks after their streams."""
PAUSE_S: Final = 0.5
"""Before the second try; twice as long before each further one ..."""
_WITH_WORDS: Final = ("", "stop", "end_turn", "tool_calls", "tool_use", "function_call")
"""Ends that come after words; no tool was offered. An answer that was cut, or held back, may have none."""
LONGEST_PAUSE_S: Final = 8.0
"""... but never longer, and who asks for more is not tried again. Both as the OpenAI SDK has them."""

log = structlog.get_logger()


class Order:
    """What is to be called, and how it went. For one call of one turn.

    Args:
        asked: The model that the caller or the settings chose, `provider:model`.
        others: Those that stand in for it, in this order; `extractive` among them lets a rule do so after all others.
        cheaper: To be asked first, for the question is simple.
        quotes_unpaid: A rule stands in too where the day's budget holds no call.
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
        self._is_budgets = False
        self._share = 0.0
        self._attempts = 0
        self._failures: list[dict[str, str]] = []

    def called(self, model: str, *, by_budget: bool, share: float) -> None:
        """Note a try that is about to be made.

        Args:
            model: Whom it is made to.
            by_budget: Whether the budget chose the model.
            share: Of the day's budget or tokens, spent and set aside so far, 0..1.
        """
        self._attempts += 1
        self._answered, self._is_budgets, self._share = model, by_budget, share

    def failed(self, model: str, code: str) -> None:
        """Note a try that failed, or was not made because the model's circuit is open."""
        self._answered = None
        self._failures.append({"model": model, "code": code})

    def do_without(self, exc: CitewellError) -> None:
        """Note that what needs no model stands in for them all.

        Raises:
            CitewellError: `exc`, where the settings do not name `extractive` for it.
        """
        is_unpaid = self._quotes_unpaid and isinstance(exc, BudgetExceeded)
        if not is_unpaid and not (self._may_quote and is_models(exc)):
            raise exc
        log.warning("model.replaced", model=self._asked, by=EXTRACTIVE, code=exc.code)
        self._answered, self._is_budgets = EXTRACTIVE, is_unpaid
        metrics.MODEL_CHANGES.labels(EXTRACTIVE, self.why).inc()

    @property
    def answered(self) -> str:
        """Who answers; the one asked for as long as nobody does."""
        return self._answered or self._asked

    @property
    def why(self) -> str | None:
        """Why another model than the one asked for answers: `simple_question`, `budget`, or the error code of the one that
        failed."""
        if self._answered in (None, self._asked):
            return None
        if self._is_budgets:
            return "budget"
        return SIMPLE if self._answered == self._cheaper else self._failures[-1]["code"]

    def as_dict(self) -> dict[str, Any]:
        """For the answer's metadata."""
        return {
            "asked": self._asked, "answered": self._answered, "why": self.why, "attempts": self._attempts,
            "failures": self._failures,
        } | ({"budget_share": round(self._share, 3)} if self._share >= WARN_AT else {})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """The right to call one model once."""

    model: BaseChatModel
    reservation: Reservation
    note: tracing.Note

    def used(self, usage: UsageMetadata) -> None:
        """Pay for what it used, as its provider says; who says what cannot be has said nothing."""
        if not _is_possible(usage) or not usage["input_tokens"]:  # no prompt of ours has no tokens
            return
        self.reservation.settle(usage)
        self.note({"gen_ai.usage.input_tokens": usage["input_tokens"], "gen_ai.usage.output_tokens": usage["output_tokens"]})  # fmt: skip


class Calls:
    """Makes the calls of all nodes. Every one of them goes through here, so no budget can be walked round."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings

    def name(self, context: RunContext) -> str | None:
        """The chat model of this run; None when the extractive answerer is to answer."""
        name = context.chat_model or self._parts.models.default
        return None if name == EXTRACTIVE else name

    def order(self, context: RunContext, *, is_simple: bool = False) -> Order:
        """Whom to ask: the chosen model, or a cheaper one for a simple question; then those that stand in for it."""
        asked = self.name(context)
        assert asked is not None
        cheaper = self._settings.simple_model if is_simple and context.chat_model is None else None
        return Order(
            asked, self._settings.fallback_models, cheaper=cheaper,
            quotes_unpaid=self._settings.budget_model == EXTRACTIVE,
        )  # fmt: skip

    async def text(
        self, context: RunContext, order: Order, prompt: ChatPromptTemplate, given: Mapping[str, Any]
    ) -> str:
        """Run prompt | model | text to its end."""

        async def once(call: Call) -> AsyncGenerator[str, None]:
            with get_usage_metadata_callback() as used:
                written = await (prompt | call.model | StrOutputParser()).ainvoke(dict(given))
            for usage in used.usage_metadata.values():
                call.used(usage)
            yield written

        asked = prompt.invoke(dict(given)).to_string()  # names the roles too, which cost tokens as well
        async with aclosing(self._made(context, order, asked, once)) as written:
            return "".join([text async for text in written])

    async def stream(
        self, context: RunContext, order: Order, messages: Sequence[BaseMessage]
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """The model's pieces as they come.

        The model is asked directly: between a prompt and a model, a RunnableSequence adds up all pieces so far at
        every token, which costs more than everything else the graph does for it.
        """

        async def once(call: Call) -> AsyncGenerator[AIMessageChunk, None]:
            usage: UsageMetadata | None = None
            silent: list[AIMessageChunk] = []
            has_spoken, ended = False, ""
            async with aclosing(call.model.astream(list(messages))) as pieces:  # type: ignore[type-var]  # it is a generator
                async for piece in pieces:
                    if not _is_possible(piece.usage_metadata):
                        piece.usage_metadata = None
                    if piece.usage_metadata:
                        usage = add_usage(usage, piece.usage_metadata)
                    ended = finish_reason(piece.response_metadata) or ended
                    silent.append(piece)
                    has_spoken = has_spoken or bool(piece.text)
                    if piece.text:  # what comes before the first word is worth nothing if no word follows
                        for each in silent:
                            yield each
                        silent.clear()
            if usage:
                call.used(usage)
            if not ended and call.reservation.model.startswith(SAY_WHY):
                raise ModelUnavailable("The chat model's answer ended before it was whole.")
            if not has_spoken and ended in _WITH_WORDS:
                raise ModelError("The chat model gave an empty answer.")
            for each in silent:
                yield each

        text = "".join(message.text for message in messages)
        async with aclosing(self._made(context, order, text, once)) as pieces:
            async for piece in pieces:
                yield piece

    async def _made(
        self, context: RunContext, order: Order, prompt: str, once: Callable[[Call], AsyncGenerator[Piece, None]]
    ) -> AsyncGenerator[Piece, None]:
        """Try until one is answered; the last failure is the one that is raised."""
        for place, model in enumerate(order.models):
            is_last = place + 1 == len(order.models)
            for tried in range(self._settings.model_retries + 1):
                begun = False
                try:
                    async with self._paid(context, order, model, prompt) as call, aclosing(once(call)) as pieces:
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
            log.warning("model.replaced", model=model, by=order.models[place + 1], code=failed.code)

    @asynccontextmanager
    async def _paid(self, context: RunContext, order: Order, name: str, prompt: str) -> AsyncIterator[Call]:
        """One try: money set aside, made, settled, and told to the model's circuit."""
        longest = context.max_tokens or self._settings.max_tokens
        # No tokenizer makes more tokens than the text has bytes, so this is an upper bound for any model.
        async with self._parts.limits.reserve(context.caller, name, len(prompt.encode()), longest) as reservation:
            called = reservation.model
            outcome, is_sent = "left", False
            try:
                model = self._parts.models.get(called, temperature=context.temperature, max_tokens=context.max_tokens)
                circuit = self._parts.models.circuits[called]
                asked = tracing.model_call(
                    called, max_tokens=longest,
                    temperature=self._settings.temperature if context.temperature is None else context.temperature,
                )  # fmt: skip
                with circuit.watching(is_models), asked as note, map_model_errors():
                    is_sent = True
                    order.called(called, by_budget=called != name, share=reservation.share)
                    yield Call(model, reservation, note)
                outcome = "answered"
            except CitewellError as exc:
                outcome = exc.code
                order.failed(called, exc.code)
                if not is_sent or is_free(exc):
                    reservation.release()
                raise
            finally:
                metrics.MODEL_CALLS.labels(called, outcome).inc()
                if outcome == "answered" and (why := order.why):
                    metrics.MODEL_CHANGES.labels(called, why).inc()


def _is_possible(usage: UsageMetadata | None) -> bool:
    return usage is None or min(usage["input_tokens"], usage["output_tokens"]) >= 0


def finish_reason(response: Mapping[str, Any]) -> str:
    """Why a model stopped, in its provider's word in small letters: OpenAI's and most others', Anthropic's, Ollama's.

    Args:
        response: A message's `response_metadata`; empty is returned where it does not say.
    """
    return str(next(filter(None, map(response.get, ("finish_reason", "stop_reason", "done_reason"))), "")).lower()


def _pause_s(error: CitewellError, tried: int, *, is_last: bool) -> float | None:
    """How long to wait before the same model is tried again; None: not at all."""
    if isinstance(error, CircuitOpen | ModelRefused):
        return None
    if isinstance(error, ModelTimeout) and not is_last:
        return None  # the one who asked has waited long enough for this model
    asked_s = asked_pause_s(error)
    if asked_s is not None:
        return asked_s if asked_s <= LONGEST_PAUSE_S else None
    return float(min(LONGEST_PAUSE_S, PAUSE_S * 2**tried) * random.uniform(0.5, 1.0))  # noqa: S311  # spreads, hides nothing
