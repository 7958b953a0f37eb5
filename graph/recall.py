"""Answers from the cache: what their key holds, which are kept, and how one that was found is given."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

from langchain_core.messages import BaseMessage

from chains import condense, expand, prompts
from citewell import __version__
from citewell.cache import AnswerCache, Kept
from citewell.models.chat import EXTRACTIVE
from citewell.settings import Settings
from graph.calls import SIMPLE
from graph.parts import Parts
from graph.state import RunContext, State

_ELSEWHERE: Final = frozenset(
    """data_dir redis_url thread_ttl_s thread_policy thread_wait_s host port workers on_disconnect resume_s drain_notice_s
    drain_s cors_origins log_level log_format otlp_endpoint ui_service_url ui_public_url ui_api_key api_keys_file
    metrics_access api_key answer_cache_s answer_cache_entries""".split()
)
"""Settings that say where and for whom a service runs, not what it answers. All others are part of the key, those to come
too."""
_WHOLE: Final = ("stop", "end_turn", "stop_sequence")
"""How providers call an answer that its model ended by itself."""


def fingerprint(settings: Settings) -> str:
    """Of everything that is the same for all turns and an answer depends on: settings, prompts, this version."""
    words = [
        prompts.PROMPT_VERSION, prompts.SYSTEM, prompts.INSTRUCTIONS, prompts.SUMMARY, prompts.NO_SOURCES,
        *(repr(message) for message in [*condense.PROMPT.messages, *expand.PROMPT.messages]),
    ]  # fmt: skip
    return _digest([__version__, settings.model_dump(mode="json", exclude=set(_ELSEWHERE)), words])


class Recall:
    """Looks answers up and keeps them. For one service."""

    def __init__(self, parts: Parts, cache: AnswerCache) -> None:
        self.cache = cache
        self._parts = parts
        self._fingerprint = fingerprint(parts.settings)

    async def view(self, context: RunContext) -> str:
        """The documents as the caller can see them now."""
        return await self._parts.retriever.view(None if context.access is None else frozenset(context.access))

    def key(self, state: State, context: RunContext, recent: Sequence[BaseMessage], *, asked: str, view: str) -> str:
        """Everything an answer is made from.

        Args:
            state: With the standalone question.
            context: What the caller chose, and may read.
            recent: The messages that would go to a model.
            asked: The question as it was asked.
            view: Of the documents.
        """
        model = context.chat_model or self._parts.models.default
        # What was said before goes into a model's prompt, and from there into its answer.
        before = [] if model == EXTRACTIVE else [state.get("summary", ""), *([m.type, m.text] for m in recent)]
        # Whether the caller chose the model counts too: who did is not given a cheaper one's answer.
        return _digest([
            self._fingerprint, view, _plain(asked), _plain(state["standalone"]), before, state.get("cited", []) if recent else [],
            context.chat_model, context.temperature, context.max_tokens, context.top_k, context.filter,
        ])  # fmt: skip

    def is_worth_keeping(self, state: State, citations: Sequence[Any]) -> bool:
        """Whole answers of the model that was asked for, with a sentence that a source bears out. No refusal is."""
        metadata = state["metadata"]
        return (
            bool(metadata.get("supported"))
            and metadata.get("guard") is None
            and metadata.get("finish_reason") in _WHOLE
            and all(call["why"] in (None, SIMPLE) for call in metadata.get("calls", {}).values())
            and any(citation["status"] != "unsupported" for citation in citations)
        )

    async def pieces(self, kept: Kept, context: RunContext) -> list[str] | None:
        """Its words, one by one, past the guards once more; None where these have something to say now.

        Moderation is not asked again: it is a setting, so what is kept has been judged by the same model.
        """
        is_quoted = (context.chat_model or self._parts.models.default) == EXTRACTIVE
        screen = self._parts.guards.answer_screen(
            "" if is_quoted else prompts.own_words(self._parts.settings.instructions), is_moderated=True
        )
        pieces = [screen.feed(word) for word in re.findall(r"\s*\S+|\s+$", kept["answer"])]
        pieces.append(await screen.finish())
        return None if screen.is_blocked or "".join(pieces) != kept["answer"] else pieces


def _plain(text: str) -> str:
    """A question as it is compared: white space and the ways to encode a letter do not count."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
