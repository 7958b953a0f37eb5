"""All checks of one turn: the question, what was found for it, the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from citewell.documents import ScoredChunk
from citewell.guards.features import Form, ends_at
from citewell.guards.injection import InjectionScanner, open_scanner
from citewell.guards.moderation import RETRIES, Moderator
from citewell.guards.names import open_names
from citewell.guards.output import AnswerScreen
from citewell.guards.personal import Detector
from citewell.guards.verdict import INJECTION, PERSONAL_DATA, TOO_LONG_AGO, UNDECIDED, Verdict, allow, block, change
from citewell.models.embedder import Embedder
from citewell.settings import Settings
from citewell.telemetry import metrics

if TYPE_CHECKING:
    from citewell.models.chat import ChatModels

GUARD_TIMEOUT_S: Final = 10.0
"""Longest one check may take, in seconds; a check that takes longer has not decided."""
EARLIER_MESSAGES: Final = 200
"""Most messages of a client's own transcript that are judged in one turn; the newest are."""
EARLIER_CHARS: Final = 100_000
"""Most characters of those messages together. To judge so many takes two seconds of processor time the first time."""

T = TypeVar("T")
log = structlog.get_logger()


class Guards:
    """All checks of one turn. Every method is safe to call from many tasks at once."""

    def __init__(
        self,
        settings: Settings,
        scanner: InjectionScanner | None,
        detector: Detector,
        moderator: Moderator | None = None,
    ) -> None:
        self._scanner = scanner
        self._moderator = moderator
        self._detector = detector
        self._policy = settings.pii_policy

    @property
    def scanner(self) -> InjectionScanner | None:
        """Judges chunks when they are ingested; None where the settings turn it off."""
        return self._scanner

    async def screen(self, question: str) -> Verdict:
        """Judge a question: injection, personal data by policy, then moderation.

        Moderation comes last, so that its server sees neither an attack nor what was redacted.

        Returns:
            A verdict; its `text`, where set, replaces the question, also in the transcript if it is refused.
        """
        verdict = await self._judge(question)
        metrics.judged("question", verdict)
        if verdict.allowed or self._policy == "allow":
            return verdict
        return replace(verdict, text=await self.keepable(question))

    async def _judge(self, question: str) -> Verdict:
        if self._scanner is not None:
            score = await _decided(asyncio.to_thread(self._scanner.score_question, question))
            if isinstance(score, Verdict):
                return score
            if not score < self._scanner.threshold("question"):  # written so that NaN blocks
                return block(INJECTION, score)
        else:
            score = 0.0
        verdict = await self._personal(question, score)
        if verdict.allowed and self._moderator is not None:
            moderated = await self._moderate(verdict.text or question)
            return verdict if moderated.allowed else moderated
        return verdict

    async def screen_earlier(self, said: Sequence[tuple[Form, str]]) -> list[Verdict]:
        """Judge the earlier messages that a client sends, as `screen` judges a question, without moderation.

        Args:
            said: Messages, oldest first: the user's as a `question`, the assistant's as a `document`.

        Returns:
            A verdict for each; its `text`, where set, replaces the message. Those that are too far back to be judged in one turn are
            blocked, and all are where the guard cannot decide.
        """
        if self._scanner is None and self._policy == "allow":
            return [allow()] * len(said)
        older = len(said) - _newest([len(text) for _, text in said])
        verdicts = [block(TOO_LONG_AGO)] * older
        if older:
            metrics.judged("earlier", verdicts[0], times=older)
        return verdicts + await self._said_lately(said[older:])

    async def _said_lately(self, said: Sequence[tuple[Form, str]]) -> list[Verdict]:
        scores = [0.0] * len(said)
        if self._scanner is not None and said:
            found = await _decided(asyncio.to_thread(self._scanner.scores, said))
            if isinstance(found, Verdict):
                return [found] * len(said)
            scores = found
        verdicts = []
        for (form, text), score in zip(said, scores, strict=True):
            is_attack = self._scanner is not None and not score < self._scanner.threshold(form)
            verdicts.append(block(INJECTION, score) if is_attack else await self._personal(text, score))
            metrics.judged("earlier", verdicts[-1])
        return verdicts

    async def screen_chunks(
        self, chunks: Sequence[ScoredChunk]
    ) -> tuple[list[ScoredChunk], list[tuple[ScoredChunk, Verdict]]]:
        """Divide retrieved chunks into those that may be used and those that address the assistant.

        Args:
            chunks: In order. Only those without a `suspicion` are scanned.

        Returns:
            Kept chunks in their order, and the others each with its verdict.
        """
        kept, quarantined = await self._divide(chunks)
        if kept:
            metrics.judged("chunk", allow(), times=len(kept))
        for _, verdict in quarantined:
            metrics.judged("chunk", verdict)
        return kept, quarantined

    async def _divide(
        self, chunks: Sequence[ScoredChunk]
    ) -> tuple[list[ScoredChunk], list[tuple[ScoredChunk, Verdict]]]:
        if self._scanner is None or not chunks:
            return list(chunks), []
        scores = {one.chunk.id: one.suspicion for one in chunks if one.suspicion is not None}
        undecided: Verdict | None = None
        if new := [one.chunk for one in chunks if one.suspicion is None]:
            found = await _decided(asyncio.to_thread(self._scanner.score_documents, [chunk.text for chunk in new]))
            if isinstance(found, Verdict):
                undecided = found
            else:
                scores |= {chunk.id: score for chunk, score in zip(new, found, strict=True)}
        kept: list[ScoredChunk] = []
        quarantined: list[tuple[ScoredChunk, Verdict]] = []
        for one in chunks:
            score = scores.get(one.chunk.id)
            if score is None:
                assert undecided is not None
                quarantined.append((one, undecided))
            elif score < self._scanner.threshold("document"):
                kept.append(one)
            else:
                quarantined.append((one, block(INJECTION, score)))
        return kept, quarantined

    async def screen_names(self, chunks: Sequence[ScoredChunk]) -> list[ScoredChunk]:
        """The chunks, each without its source, title and headings if one of these addresses the assistant or cannot be judged.

        Authors choose titles just like the text. As these are short and plain, they are judged both as documents and as questions.
        """
        if self._scanner is None or not chunks:
            return list(chunks)
        names = [(one.chunk.source, one.chunk.title, *one.chunk.headings) for one in chunks]
        forms: tuple[Form, ...] = ("document", "question")
        asked = list(dict.fromkeys((form, name) for each in names for name in each if name for form in forms))
        # Mostly those of documents found before, for which going to a thread and back would take longer than all else here.
        known = self._scanner.remembered(asked)
        found = await _decided(asyncio.to_thread(self._scanner.scores, asked)) if known is None else known
        scores = {} if isinstance(found, Verdict) else dict(zip(asked, found, strict=True))
        fit = {name for _, name in scores if all(scores[form, name] < self._scanner.threshold(form) for form in forms)}
        return [
            one if fit.issuperset(filter(None, each))
            else replace(one, chunk=replace(one.chunk, source="", title="", headings=()))
            for one, each in zip(chunks, names, strict=True)
        ]  # fmt: skip

    def reads_apart(self, text: str, place: int) -> bool:
        """Whether verdicts on the two parts of a text, before and after a place, hold for the whole text: no sentence crosses the
        place."""
        return self._scanner is None or ends_at(text, place)

    def answer_screen(self, instructions: str = "", *, is_moderated: bool = False) -> AnswerScreen:
        """A screen for one answer: leaked instructions, active markup, personal data by policy, moderation.

        Args:
            instructions: The system prompt that the model was given, without the documents; empty: none.
            is_moderated: Whether the answer has passed moderation before.
        """
        moderate = None if self._moderator is None or is_moderated else self._moderate
        return AnswerScreen(instructions, self._policy, self._detector, moderate)

    async def keepable(self, text: str) -> str:
        """What may be stored of a question or quoted from a passage: the text without personal data, unless the policy allows that."""
        return text if self._policy == "allow" else await asyncio.to_thread(self._detector.redact, text)

    async def _personal(self, text: str, score: float) -> Verdict:
        if self._policy == "allow" or not await asyncio.to_thread(self._detector.find, text):
            return allow(score)
        if self._policy == "refuse":
            return block(PERSONAL_DATA)
        return change(PERSONAL_DATA, await asyncio.to_thread(self._detector.redact, text))

    async def _moderate(self, text: str) -> Verdict:
        assert self._moderator is not None
        return await _decided(self._moderator.judge(text))


async def _decided(check: Awaitable[T]) -> T | Verdict:
    """The result of a check; a verdict that blocks where it fails, for whatever reason, or takes too long."""
    try:
        async with asyncio.timeout(GUARD_TIMEOUT_S):
            return await check
    except Exception as exc:  # noqa: BLE001  # a caller who leaves raises CancelledError, which passes
        log.error("guard.failed", error=type(exc).__name__)
        return block(UNDECIDED)


def _newest(sizes: Sequence[int]) -> int:
    """How many messages, counted from the last one, are judged in one turn."""
    count = total = 0
    for size in reversed(sizes[-EARLIER_MESSAGES:]):
        total += size
        if total > EARLIER_CHARS:
            break
        count += 1
    return count


def open_guards(settings: Settings, embedder: Embedder, models: ChatModels | None = None) -> Guards:
    """Open the guards that the settings name.

    Args:
        settings: `injection_guard`, `pii_policy`, `pii_names` and `moderation` are read.
        embedder: As for `open_scanner`.
        models: Provides the connections for moderation; needed if that is on.

    Raises:
        ConfigurationError: A guard cannot start; the service must not start without it. The scanner loads its weights at first use or
            by `Guards.scanner.load`.
    """
    detector = Detector(None if settings.pii_names == "off" else open_names(settings.pii_names))
    return Guards(settings, open_scanner(settings, embedder), detector, _open_moderator(settings, models))


def _open_moderator(settings: Settings, models: ChatModels | None) -> Moderator | None:
    if settings.moderation == "off":
        return None
    assert models is not None, "moderation is on"
    client = models.openai_client(f"The moderation model {settings.moderation}", retries=RETRIES)
    return Moderator(client, settings.moderation.partition(":")[2])
