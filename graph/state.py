"""What flows through the graph: its input and output, the state, and the plain data of one run."""

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
    """The graph's input."""

    question: str
    messages: NotRequired[list[AnyMessage]]
    """The transcript so far, from callers that keep their own."""


class Answer(TypedDict, total=False):
    """The graph's output."""

    answer: str
    citations: list[Citation]
    usage: dict[str, int]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SingleHits:
    """What was found for one thing that is asked."""

    question: str
    """As it was searched for."""
    candidates: list[ScoredChunk]
    """Best first."""
    trace: Trace | None
    """How they were found; only where the caller asks for it."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What was found for a question."""

    question: str
    singles: list[SingleHits]
    """One for each thing that it asks, in order."""


class State(TypedDict, total=False):
    """What a thread keeps (checkpointed), and what one run hands from node to node (`UntrackedValue`, not checkpointed)."""

    question: Annotated[str, UntrackedValue]
    """As the caller asked it. The transcript holds what the guards left of it."""
    messages: Annotated[list[AnyMessage], add_messages]
    """The whole transcript. An answer carries its citations and metadata in `additional_kwargs`."""
    summary: str
    """Running summary of the oldest messages."""
    summarized: int
    """How many messages, from the first, the summary covers."""
    cited: list[str]
    """Ids of the chunks that the last answer cited, so that "and the second one?" finds them."""

    blocked: Annotated[str, UntrackedValue]
    """The rule that refused the question; empty when none did."""
    withheld: Annotated[int, UntrackedValue]
    """How many messages of a client's own transcript the guards kept out of prompts."""
    standalone: Annotated[str, UntrackedValue]
    """The question, made understandable without the conversation."""
    typed: Annotated[str, UntrackedValue]
    """The question without the words that a rule added for that; only where a rule did."""
    condense_call: Annotated[dict[str, Any], UntrackedValue]
    """How the call for the standalone question went (`graph.calls.Call.as_dict`); only where a model was asked."""
    folded: Annotated[bool, UntrackedValue]
    """Whether the summary was rewritten in this run; then the run must not end before `generate`, which waits for it."""
    summarize_call: Annotated[dict[str, Any], UntrackedValue]
    """How the call for the summary went."""
    wordings: Annotated[list[str], UntrackedValue]
    """Other wordings of the question that were searched too."""
    expand_call: Annotated[dict[str, Any], UntrackedValue]
    """How the call for the other wordings went."""
    recalled: Annotated[tuple[str, str], UntrackedValue]
    """The cache key of the answer and the view of the documents in it; only where the answer may be kept."""
    hits: Annotated[list[Hits], UntrackedValue]
    """What retrieval found for the standalone question and, where there is one, for the typed one."""
    sources: Annotated[list[ScoredChunk], UntrackedValue]
    """The chunks that reranking kept and the guards passed, best first; markers number them from 1. Those that a model was given are
    joined with their neighbours, as it was given them."""
    answer: Annotated[str, UntrackedValue]
    citations: Annotated[list[Citation], UntrackedValue]
    usage: Annotated[dict[str, int], UntrackedValue]
    """`input_tokens`, `output_tokens`, `total_tokens`."""
    metadata: Annotated[dict[str, Any], UntrackedValue]


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Plain data of one run, given by the door. None: as the settings say."""

    chat_model: str | None = None
    """`extractive` or `provider:model`."""
    temperature: float | None = None
    max_tokens: int | None = None
    top_k: int | None = None
    """Chunks that leave the reranker."""
    filter: dict[str, object] | None = None
    """Metadata filter, see docs/filters.md."""
    access: tuple[str, ...] | None = None
    """Access labels that the caller holds; None: everything may be read."""
    caller: str = "local"
    trace: bool = False
    """Whether the answer's metadata explains why these chunks were chosen."""

    @property
    def labels(self) -> frozenset[str] | None:
        """`access` as the index takes it."""
        return None if self.access is None else frozenset(self.access)


def check_context(context: RunContext) -> None:
    """Check the numbers that a caller chose. Every door does so, and the graph again for `langgraph dev`.

    Raises:
        InvalidRequest: One is not a number, or out of bounds; the message names it.
    """
    for name, kind, low, high in (("temperature", float, 0, 2), ("max_tokens", int, 1, 32_000), ("top_k", int, 1, 50)):
        value = getattr(context, name)
        if value is None:
            continue
        if not isinstance(value, (int, kind)) or isinstance(value, bool):
            raise InvalidRequest(f"{name} must be {'an integer' if kind is int else 'a number'}.")
        if not low <= value <= high:
            raise InvalidRequest(f"{name} must be between {low:,} and {high:,}.")
