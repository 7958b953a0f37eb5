"""Calls to chat models: paid for before they are made, their faults in our words, nothing done per token in vain."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.runnables import Runnable

from citewell.limits import Reservation
from citewell.models.chat import EXTRACTIVE, map_model_errors
from citewell.telemetry import tracing
from graph.parts import Parts
from graph.state import RunContext

Given = TypeVar("Given")


@dataclass(frozen=True, slots=True)
class Call:
    """The right to call one model once."""

    model: BaseChatModel
    reservation: Reservation
    note: tracing.Note

    def used(self, usage: UsageMetadata) -> None:
        """Pay for what it used."""
        self.reservation.settle(usage)
        self.note({"gen_ai.usage.input_tokens": usage["input_tokens"], "gen_ai.usage.output_tokens": usage["output_tokens"]})  # fmt: skip


class Calls:
    """Makes the calls of all nodes. Every one of them goes through here, so no budget can be walked round."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def name(self, context: RunContext) -> str | None:
        """The chat model of this run; None when the extractive answerer is to answer."""
        name = context.chat_model or self._parts.models.default
        return None if name == EXTRACTIVE else name

    @asynccontextmanager
    async def _paid(self, context: RunContext, prompt: str) -> AsyncIterator[Call]:
        name = self.name(context)
        assert name is not None
        longest = context.max_tokens or self._parts.settings.max_tokens
        # No tokenizer makes more tokens than the text has bytes, so this is an upper bound for any model.
        async with self._parts.limits.reserve(context.caller, name, len(prompt.encode()), longest) as reservation:
            model = self._parts.models.get(
                reservation.model, temperature=context.temperature, max_tokens=context.max_tokens
            )
            asked = tracing.model_call(
                reservation.model, max_tokens=longest,
                temperature=self._parts.settings.temperature if context.temperature is None else context.temperature,
            )  # fmt: skip
            with asked as note, map_model_errors():
                yield Call(model, reservation, note)

    async def text(
        self, context: RunContext, chain: Callable[[BaseChatModel], Runnable[Given, str]], given: Given
    ) -> str:
        """Run prompt | model | text to its end."""
        async with self._paid(context, str(given)) as call:
            with get_usage_metadata_callback() as used:
                written = await chain(call.model).ainvoke(given)
            for usage in used.usage_metadata.values():
                call.used(usage)
            return written

    async def stream(
        self, context: RunContext, messages: Sequence[BaseMessage]
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """The model's pieces as they come.

        The model is asked directly: between a prompt and a model, a RunnableSequence adds up all pieces so far at
        every token, which costs more than everything else the graph does for it.
        """
        usage: UsageMetadata | None = None
        async with self._paid(context, "".join(message.text for message in messages)) as call:
            async with aclosing(call.model.astream(list(messages))) as pieces:  # type: ignore[type-var]  # it is a generator
                async for piece in pieces:
                    if piece.usage_metadata:
                        usage = add_usage(usage, piece.usage_metadata)
                    yield piece
            if usage:
                call.used(usage)
