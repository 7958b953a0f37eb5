"""Makes an answer: a model's or the extractive answerer's pieces pass the guards and marker repair as they stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_usage

from chains.answer import PROMPT_VERSION, AnswerInput, answer_messages, own_words
from citewell.citations.streaming import MarkerRepair
from citewell.documents import ScoredChunk
from citewell.errors import CitewellError
from citewell.retrieval.neighbours import join
from citewell.settings import EXTRACTIVE
from graph.calls import Call, Calls, finish_reason
from graph.parts import Parts
from graph.state import RunContext


@dataclass
class Answered:
    """An answer that was made."""

    chunks: list[ScoredChunk]
    """What it was made from, in the order its markers number them."""
    answerer: str
    """`provider:model`, or `extractive`."""
    confidence: float
    """That the documents hold the answer, 0..1."""
    shown: list[str] = field(default_factory=list)
    """Its pieces, as they were shown."""
    usage: UsageMetadata | None = None
    response: dict[str, Any] = field(default_factory=dict)
    """The model's `response_metadata`."""
    guard: str | None = None
    """The guards' rule that changed or stopped it."""
    stopped: str = ""
    """The reason shown where a guard stopped it; empty where none did."""
    is_withheld: bool = False
    """Whether it was stopped before any of it was shown."""
    is_refused: bool = False
    """Whether it would only have quoted what does not answer. Nothing of it was shown."""

    @property
    def is_written(self) -> bool:
        """Whether a model wrote it; otherwise it is quoted from the documents."""
        return self.answerer != EXTRACTIVE

    def metadata(self) -> dict[str, Any]:
        """What the turn's metadata says of it."""
        finish = finish_reason(self.response) or ("unknown" if self.is_written else "stop")
        if self.stopped:
            finish = "blocked"
        return {
            "answerer": "model" if self.is_written else EXTRACTIVE,
            "model": self.response.get("model_name") or self.response.get("model") or self.answerer,
            "prompt": PROMPT_VERSION if self.is_written else None,
            "supported": not self.is_withheld,
            "guard": self.guard,
            "finish_reason": finish,
            "truncated": finish in ("length", "max_tokens"),
        } | ({"blocked": self.guard} if self.is_withheld else {})


class Answering:
    """Makes answers with the live parts."""

    def __init__(self, parts: Parts, calls: Calls) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._calls = calls

    async def make(
        self, context: RunContext, call: Call | None, given: AnswerInput, asked: str, confidence: float,
        emit: Callable[[str], None],
    ) -> Answered:  # fmt: skip
        """Make an answer and emit it piece by piece.

        Args:
            context: Of the run.
            call: To a chat model; None: sentences of the documents are quoted.
            given: What the answer is made from.
            asked: The question as it was asked; a model is given this one, together with the conversation.
            confidence: That the documents hold the answer (0..1), by the chunks alone.
            emit: Called with each piece that may be shown.

        Raises:
            CitewellError: No model answered, or one broke off.
        """
        wide = await self._widened(given["chunks"]) if call else given["chunks"]
        screen = self._parts.guards.answer_screen(own_words(self._settings.instructions) if call else "")
        markers = MarkerRepair(wide) if call else None  # quotations come with the right markers
        answer = Answered(chunks=list(wide), answerer=EXTRACTIVE, confidence=confidence)

        def show(text: str) -> None:
            if text:
                answer.shown.append(text)
                emit(text)

        def repaired(text: str) -> str:
            return markers.feed(text) if markers else text

        if call:
            told = AnswerInput(**given | {"question": asked, "chunks": await self._parts.guards.screen_names(wide)})
            pieces = self._write(context, call, told, given)
        else:
            pieces = self._quote(given)
        async with aclosing(pieces):
            async for piece in pieces:
                head = piece.response_metadata
                if "sentences" in head:  # the first of quotations, which says how likely they answer
                    answer.confidence, is_supported = self._parts.evidence.quoted(
                        confidence, head.get("answers"), given["chunks"]
                    )
                    answer.is_refused = not (head["sentences"] and is_supported)
                    if answer.is_refused:
                        return answer
                show(repaired(screen.feed(piece.text)))
                if piece.usage_metadata:
                    answer.usage = add_usage(answer.usage, piece.usage_metadata)
                answer.response |= piece.response_metadata
                if screen.is_blocked:
                    break
        show(repaired(await screen.finish()))
        if markers:
            show(markers.finish())
        answer.guard = screen.verdict.rule
        if screen.is_blocked:
            answer.stopped, answer.is_withheld = screen.verdict.reason, not answer.shown
            show(("\n\n" if answer.shown else "") + answer.stopped)
        if call:
            answer.answerer = call.answered
        return answer

    async def _widened(self, kept: Sequence[ScoredChunk]) -> list[ScoredChunk]:
        """The chunks joined with their neighbours, as far as the guards pass these and the settings leave room."""
        if not self._settings.neighbour_chars:
            return list(kept)
        found = await self._parts.index.neighbours(kept)
        fit, _ = await self._parts.guards.screen_chunks(found)
        return join(kept, fit, max_chars=self._settings.neighbour_chars, apart=self._parts.guards.reads_apart)

    async def _write(
        self, context: RunContext, call: Call, given: AnswerInput, quoted: AnswerInput
    ) -> AsyncGenerator[AIMessageChunk, None]:
        """What a model writes from `given`; where none answers and the settings allow it, quotations from `quoted`.

        Quotations are taken from the chunks as they were found: with their neighbours, worse sentences are chosen.
        """
        begun = False
        try:
            async with aclosing(
                self._calls.stream(context, call, answer_messages(given, self._settings.instructions))
            ) as pieces:
                async for piece in pieces:
                    begun = True
                    yield piece
            return
        except CitewellError as exc:
            if begun:
                raise
            call.do_without(exc)
        async for piece in self._quote(quoted):
            yield piece

    async def _quote(self, given: AnswerInput) -> AsyncGenerator[AIMessageChunk, None]:
        async for piece in self._parts.extractive.astream(given):
            yield piece
