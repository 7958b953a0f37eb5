"""The live objects the nodes work with, and what they ask of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable

from chains.answer import AnswerInput
from citewell.cache import AnswerCache
from citewell.documents import Chunk, ScoredChunk
from citewell.limits import Limits
from citewell.models.circuit import Circuits
from citewell.retrieval import Trace
from citewell.settings import Settings


class Retriever(Protocol):
    """What the graph needs of an index; `citewell.retrieval.index.Index` is one."""

    @property
    def generation(self) -> str: ...
    async def search(
        self, question: str, *, candidates: int, where: dict[str, object] | None, access: frozenset[str] | None,
        trace: Trace | None = None,
    ) -> list[ScoredChunk]: ...  # fmt: skip
    async def rerank(
        self, question: str, candidates: Sequence[ScoredChunk], *, top_k: int, trace: Trace | None = None
    ) -> list[ScoredChunk]: ...

    async def neighbours(self, kept: Sequence[ScoredChunk]) -> list[ScoredChunk]: ...
    async def chunks(self, ids: Sequence[str]) -> list[Chunk]: ...
    async def view(self, access: frozenset[str] | None) -> str: ...
    async def page_at(self, source_uri: str, offset: int) -> int | None: ...


class ChatModels(Protocol):
    default: str
    circuits: Circuits

    def get(self, name: str | None = None, *, temperature: float | None = None, max_tokens: int | None = None) -> BaseChatModel: ...  # fmt: skip


class Guards(Protocol):
    async def screen(self, question: str) -> Any: ...
    async def screen_earlier(self, said: Sequence[tuple[Literal["question", "document"], str]]) -> list[Any]: ...
    async def keepable(self, text: str) -> str: ...
    async def screen_chunks(self, chunks: Sequence[ScoredChunk]) -> tuple[list[ScoredChunk], list[Any]]: ...
    async def screen_names(self, chunks: Sequence[ScoredChunk]) -> list[ScoredChunk]: ...
    def reads_apart(self, text: str, place: int) -> bool: ...
    def answer_screen(self, instructions: str = "", *, is_moderated: bool = False) -> Any: ...


class Evidence(Protocol):
    def confidence(self, question: str, chunks: Sequence[ScoredChunk]) -> float: ...
    def is_supported(self, confidence: float) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Live objects, opened and closed by whoever builds the graph."""

    settings: Settings
    retriever: Retriever
    models: ChatModels
    extractive: Runnable[AnswerInput, AIMessageChunk]
    guards: Guards
    evidence: Evidence
    limits: Limits
    cache: AnswerCache | None = None
    """None: every answer is made anew."""
