"""Answers from the cache: what their key is made of, which are kept, and how a cached one is given."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import BaseMessage

from chains import answer, condense, expand
from citewell import __version__
from citewell.cache import AnswerCache, Kept
from citewell.citations import Citation
from citewell.settings import EXTRACTIVE, Settings
from graph.calls import SIMPLE
from graph.parts import Parts
from graph.state import RunContext, State

_ELSEWHERE: Final = frozenset(
    """data_dir redis_url thread_ttl_s thread_policy thread_wait_s host port workers on_disconnect resume_s drain_notice_s
    drain_s cors_origins log_level log_format otlp_endpoint ui_service_url ui_public_url ui_api_key api_keys_file
    metrics_access api_key answer_cache_s answer_cache_entries""".split()
)
"""Settings that say where and for whom a service runs, not what it answers. All others, future ones included, are part of the
key."""
_WHOLE: Final = ("stop", "end_turn", "stop_sequence")
"""Finish reasons of an answer that its model ended by itself."""
_OF_ONE_TURN: Final = frozenset({"calls", "cached", "earlier_withheld"})
"""Metadata that would not be true of an answer given again."""


def fingerprint(settings: Settings) -> str:
    """A digest of what all turns share and answers depend on: settings, prompts, this version."""
    words = [
        answer.PROMPT_VERSION, answer.SYSTEM, answer.INSTRUCTIONS, answer.SUMMARY, answer.NO_SOURCES,
        *(repr(message) for message in [*condense.PROMPT.messages, *expand.PROMPT.messages]),
    ]  # fmt: skip
    return _digest([__version__, settings.model_dump(mode="json", exclude=set(_ELSEWHERE)), words])


class Recall:
    """Finds and keeps answers for one service."""

    def __init__(self, parts: Parts, cache: AnswerCache) -> None:
        self.cache = cache
        self._parts = parts
        self._fingerprint = fingerprint(parts.settings)

    async def view(self, context: RunContext) -> str:
        """A digest of the documents that the caller can find now."""
        return await self._parts.index.view(context.labels)

    def key(self, state: State, context: RunContext, recent: Sequence[BaseMessage], *, asked: str, view: str) -> str:
        """A digest of everything an answer is made from.

        Args:
            state: With the standalone question.
            context: What the caller chose, and may read.
            recent: The messages that would go into a model's prompt.
            asked: The question as it was asked.
            view: As `view` returns it.
        """
        model = context.chat_model or self._parts.models.default
        # A model reads what was said before; the extractive answerer does not.
        before = [] if model == EXTRACTIVE else [state.get("summary", ""), *([m.type, m.text] for m in recent)]
        # A caller who chose the model is not given the answer of a cheaper one, so the choice itself is part of the key.
        return _digest([
            self._fingerprint, view, _plain(asked), _plain(state["standalone"]), before, state.get("cited", []) if recent else [],
            context.chat_model, context.temperature, context.max_tokens, context.top_k, context.filter,
        ])  # fmt: skip

    async def keep(
        self,
        state: State,
        context: RunContext,
        *,
        citations: Sequence[Citation],
        metadata: dict[str, Any],
        cited: list[str],
    ) -> None:
        """Keep an answer that is worth it, unless the documents have changed while it was made."""
        if "recalled" not in state or not _is_worth_keeping(metadata, citations):
            return
        key, view = state["recalled"]
        if await self.view(context) == view:
            about = {name: value for name, value in metadata.items() if name not in _OF_ONE_TURN}
            await self.cache.keep(
                key, answer=state["answer"], citations=[dict(one) for one in citations], metadata=about, cited=cited
            )

    async def pieces(self, kept: Kept, context: RunContext) -> list[str] | None:
        """A cached answer's words, one by one, after the guards have seen them again; None where these would change it now.

        Moderation is not asked again: the model that judges is a setting, so the same one has judged what is kept.
        """
        is_quoted = (context.chat_model or self._parts.models.default) == EXTRACTIVE
        screen = self._parts.guards.answer_screen(
            "" if is_quoted else answer.own_words(self._parts.settings.instructions), is_moderated=True
        )
        pieces = [screen.feed(word) for word in re.findall(r"\s*\S+|\s+$", kept["answer"])]
        pieces.append(await screen.finish())
        return None if screen.is_blocked or "".join(pieces) != kept["answer"] else pieces


def _is_worth_keeping(metadata: Mapping[str, Any], citations: Sequence[Citation]) -> bool:
    """Whether it is a whole answer of the model that was asked for, with a sentence that a source supports; no refusal is."""
    return (
        bool(metadata.get("supported"))
        and metadata.get("guard") is None
        and metadata.get("finish_reason") in _WHOLE
        and all(call["why"] in (None, SIMPLE) for call in metadata.get("calls", {}).values())
        and any(citation["status"] != "unsupported" for citation in citations)
    )


def _plain(text: str) -> str:
    """A question as it is compared: without regard to white space and to how its letters are encoded."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
