"""What flows through the graph: the thread's state, one run's plain data, what goes in and comes out."""

from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

from langchain_core.messages import AnyMessage
from langgraph.channels import UntrackedValue
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from citewell.citations import Citation
from citewell.documents import ScoredChunk
from citewell.errors import InvalidRequest
from citewell.retrieval import Trace


class Question(TypedDict):
    """What goes into the graph."""

    question: str
    messages: NotRequired[list[AnyMessage]]
    """An earlier transcript, from callers that keep their own."""


class Answer(TypedDict, total=False):
    """What comes out of it."""

    answer: str
    citations: list[Citation]
    usage: dict[str, int]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one thing that is asked."""

    question: str
    """As it was searched for."""
    candidates: list[ScoredChunk]
    """Best first."""
    trace: Trace | None
    """How that came about, for callers who ask."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What was found for a question."""

    question: str
    singles: list[Found]
    """One for each thing that it asks, in that order."""


class State(TypedDict, total=False):
    """The thread (checkpointed), and what one run hands from node to node (not checkpointed)."""

    question: Annotated[str, UntrackedValue]
    """As the caller asked it; the transcript has it as the guards let it through."""
    messages: Annotated[list[AnyMessage], add_messages]
    """The whole transcript. An answer carries its citations and metadata in `additional_kwargs`."""
    summary: str
    """Running summary of the oldest messages."""
    summarized: int
    """How many of the messages the summary covers, from the first."""
    cited: list[str]
    """Ids of the chunks the last answer cited, so that "and the second one?" finds them."""

    blocked: Annotated[str, UntrackedValue]
    """The rule that refused the question; empty when none did."""
    withheld: Annotated[int, UntrackedValue]
    """How many messages of a client's own transcript the guards keep out of prompts."""
    standalone: Annotated[str, UntrackedValue]
    """The question, understandable without the conversation."""
    typed: Annotated[str, UntrackedValue]
    """The question without the words that a rule added to make it so; only where a rule did."""
    condense_call: Annotated[dict[str, Any], UntrackedValue]
    """How the call that made it so went, where a model was asked: see `graph.calls.Call`."""
    folded: Annotated[bool, UntrackedValue]
    """Whether the summary was written anew in this run; `generate` waits for that, so the run cannot end before."""
    summarize_call: Annotated[dict[str, Any], UntrackedValue]
    """How the call for the summary went."""
    wordings: Annotated[list[str], UntrackedValue]
    """Other wordings of it that were searched too."""
    expand_call: Annotated[dict[str, Any], UntrackedValue]
    """How the call for those went."""
    recalled: Annotated[tuple[str, str], UntrackedValue]
    """Key of the answer in the cache, and the view of the documents that it holds; where the answer may be kept."""
    hits: Annotated[list[Hits], UntrackedValue]
    """What retrieval found for the standalone question and, where there is one, for the typed one."""
    sources: Annotated[list[ScoredChunk], UntrackedValue]
    """What reranking kept and the guards let through, best first; markers number these from 1. Where a model answered, those it
    was given are as it was given them, grown by their neighbours."""
    answer: Annotated[str, UntrackedValue]
    citations: Annotated[list[Citation], UntrackedValue]
    usage: Annotated[dict[str, int], UntrackedValue]
    """`input_tokens`, `output_tokens`, `total_tokens`."""
    metadata: Annotated[dict[str, Any], UntrackedValue]


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Plain data of one run, given by the door. None means: as the settings say."""

    chat_model: str | None = None
    """`extractive` or `provider:model`."""
    temperature: float | None = None
    max_tokens: int | None = None
    top_k: int | None = None
    """Chunks that leave the reranker."""
    filter: dict[str, object] | None = None
    """Metadata filter, see docs/filters.md."""
    access: tuple[str, ...] | None = None
    """Labels the caller holds; None: everything may be read."""
    caller: str = "local"
    trace: bool = False
    """Whether the answer's metadata explains why these chunks were chosen."""

    @property
    def labels(self) -> frozenset[str] | None:
        """`access` as the index takes it."""
        return None if self.access is None else frozenset(self.access)


def check_context(context: RunContext) -> None:
    """Check the numbers that a caller chose. Every door does, and the graph again.

    Raises:
        InvalidRequest: One is no number, or out of bounds; the message names it.
    """
    for name, kind, low, high in (("temperature", float, 0, 2), ("max_tokens", int, 1, 32_000), ("top_k", int, 1, 50)):
        value = getattr(context, name)
        if value is None:
            continue
        if not isinstance(value, (int, kind)) or isinstance(value, bool):
            raise InvalidRequest(f"{name} must be {'an integer' if kind is int else 'a number'}.")
        if not low <= value <= high:
            raise InvalidRequest(f"{name} must be between {low:,} and {high:,}.")
