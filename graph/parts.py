"""The live objects that the nodes work with."""

from dataclasses import dataclass

from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable

from chains.answer import AnswerInput
from chains.evidence import Evidence
from citewell.cache import AnswerCache
from citewell.guards.checks import Guards
from citewell.limits import Limits
from citewell.models.chat import ChatModels
from citewell.retrieval import Index
from citewell.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Live objects, opened and closed by whoever builds the graph."""

    settings: Settings
    index: Index
    models: ChatModels
    extractive: Runnable[AnswerInput, AIMessageChunk]
    guards: Guards
    evidence: Evidence
    limits: Limits
    cache: AnswerCache | None = None
    """None: every answer is made anew."""
