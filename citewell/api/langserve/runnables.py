"""The two runnables that LangServe serves: a question in and a cited answer out, and messages in and text out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig, RunnableLambda
from langchain_core.runnables.utils import AddableDict
from langchain_core.tracers.log_stream import LogStreamCallbackHandler
from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictStr, Tag
from typing_extensions import TypedDict

from citewell.api.requests import SAMPLE, run_context
from citewell.citations import Citation
from citewell.errors import InvalidRequest
from citewell.service import Result, Service, Turn
from citewell.settings import Settings

ABREAST = 8
"""Most turns of a `batch` call that run at the same time."""
IDENTITY = "__citewell_identity"
"""The caller's key in `configurable`, set over whatever a client put there; the underscores keep it out of traces."""


class Question(BaseModel):
    """A question to the documents."""

    model_config = ConfigDict(extra="forbid")
    question: StrictStr = Field(
        description="The question, at most CITEWELL_MAX_QUESTION_CHARS characters.", examples=[SAMPLE]
    )


_ROLES = {"human": "human", "user": "human", "ai": "ai", "assistant": "ai", "system": "system", "developer": "system"}
"""LangChain's names and OpenAI's of who said a message."""


def _speaker(message: Any) -> str | None:
    """The type of a message. LangChain's own classes would take one that names only a role for the user's."""
    if not isinstance(message, dict):
        return getattr(message, "type", None)
    kind = message.get("type") or message.get("role")
    return _ROLES.get(kind) if isinstance(kind, str) else None


Said = Annotated[
    Annotated[HumanMessage, Tag("human")] | Annotated[AIMessage, Tag("ai")] | Annotated[SystemMessage, Tag("system")],
    Discriminator(
        _speaker,
        custom_error_type="message_type",
        custom_error_message="A message needs a type that is human, ai or system, or a role that is user, assistant or system",
    ),
]


class Conversation(BaseModel):
    """A conversation whose last message is the question."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"messages": [{"type": "human", "content": SAMPLE}]}]}
    )
    messages: list[Said] = Field(description="Oldest first.")


class RagAnswer(TypedDict, total=False):
    answer: str
    citations: list[Citation]
    thread_id: str
    usage: dict[str, int]
    metadata: dict[str, Any]


class Door(RunnableLambda[Any, Any]):
    """A runnable over `Service.stream`, as LangServe serves it.

    Args:
        service: Called at each turn, because the service opens after the routes are added.
        settings: For the defaults that the playground shows.
        name: What traces call it.
    """

    def __init__(self, service: Callable[[], Service], settings: Settings, name: str) -> None:
        super().__init__(self.answer, name=name)
        self._service = service
        self._settings = settings

    def answer(self, value: Any, config: RunnableConfig) -> AsyncIterator[Any]:
        """Run one turn; the pieces add up to what `ainvoke` returns. An asynchronous generator in each door."""
        raise NotImplementedError

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        return cast("type[BaseModel]", self.InputType)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What a caller may set per call in `config["configurable"]`."""
        settings = self._settings
        return [
            _spec("thread_id", str, "", "Conversation to continue; empty starts a new one."),
            _spec("chat_model", str, settings.chat_model, "`extractive` or one of the models offered."),
            _spec("temperature", float, settings.temperature, "0 to 2."),
            _spec("max_tokens", int, settings.max_tokens, "Longest answer, in tokens."),
            _spec("top_k", int, settings.top_k, "Chunks that leave the reranker, 1 to 50."),
            _spec("filter", dict[str, Any], {}, "Metadata filter, see docs/filters.md."),
            _spec("thread_policy", str, settings.thread_policy, "When the thread is busy: queue, reject or replace."),
            _spec("trace", bool, False, "Whether metadata.trace says why these chunks."),
        ]

    async def abatch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Run the inputs in parallel, those of one thread in order."""
        if not inputs:
            return []
        configs: list[Any] = config if isinstance(config, list) else [config or {}] * len(inputs)
        lanes: dict[Any, list[int]] = {}
        for i, each in enumerate(configs):
            lanes.setdefault((each.get("configurable") or {}).get("thread_id") or i, []).append(i)
        outputs: list[Any] = [None] * len(inputs)
        abreast = asyncio.Semaphore(ABREAST)

        async def run(lane: Sequence[int]) -> None:
            for i in lane:
                async with abreast:
                    outputs[i] = await self.ainvoke(inputs[i], configs[i], **kwargs)

        tasks = [asyncio.create_task(run(lane)) for lane in lanes.values()]
        try:
            await asyncio.gather(*tasks)
        finally:  # the first failure cancels the rest, and so does a client that leaves
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return outputs

    def turn(self, value: Any, config: RunnableConfig) -> Turn:
        """Check an input and its options. Raises InvalidRequest or one of its kinds."""
        raise NotImplementedError

    def _prepare(self, question: object, config: RunnableConfig, history: Sequence[Any] | None = None) -> Turn:
        chosen = config.get("configurable") or {}
        return self._service().prepare(
            question,
            thread_id=chosen.get("thread_id"),
            context=run_context(chosen, chosen[IDENTITY]),
            policy=chosen.get("thread_policy") or None,
            history=history,
        )


class Rag(Door):
    """`{"question": ...}` in; dictionaries that add up to the answer with its citations out."""

    InputType = Question
    OutputType = RagAnswer

    def turn(self, value: Any, config: RunnableConfig) -> Turn:
        return self._prepare(value["question"], config)

    async def answer(self, value: Any, config: RunnableConfig) -> AsyncIterator[Any]:
        turn = self.turn(value, config)
        # The playground reads a log stream; it joins pieces of text, but shows dictionaries one by one.
        as_text = _in_playground(config)
        async with aclosing(self._service().stream(turn, _inner(config))) as events:
            async for event in events:
                if isinstance(event, Result):
                    whole = {
                        # The text has been streamed already; a turn that was stopped before its first word had none.
                        "answer": event.answer if as_text else "", "citations": event.citations,
                        "thread_id": event.thread_id, "usage": event.usage, "metadata": event.metadata,
                    }  # fmt: skip
                    if as_text:
                        yield "\n\n"  # the playground shows the dictionary right after the text
                    # In the log a plain dictionary replaces the text, which an AddableDict would not do.
                    yield whole if as_text else AddableDict(whole)
                else:
                    yield event if as_text else AddableDict({"answer": event})


class Chat(Door):
    """`{"messages": [...]}` in, the answer's text out: what the chat playground speaks.

    The caller keeps the transcript, so the turn is not remembered here unless a `thread_id` is given.
    """

    InputType = Conversation
    OutputType = str

    def turn(self, value: Any, config: RunnableConfig) -> Turn:
        messages = value["messages"]
        if not messages or not isinstance(messages[-1], HumanMessage):
            raise InvalidRequest("messages must end with a message of the user.")
        threaded = bool((config.get("configurable") or {}).get("thread_id"))
        # Only their text: what else a message can hold, such as an image's address, must not reach a model.
        history = [type(m)(_text(m)) for m in messages[:-1] if not isinstance(m, SystemMessage)]
        return self._prepare(_text(messages[-1]), config, None if threaded else history)

    async def answer(self, value: Any, config: RunnableConfig) -> AsyncIterator[Any]:
        turn = self.turn(value, config)
        async with aclosing(self._service().stream(turn, _inner(config))) as events:
            is_silent = True
            async for event in events:
                if isinstance(event, str):
                    is_silent = False
                    yield event
            if is_silent:  # stopped before its first word: the text is empty
                yield ""


def _text(message: BaseMessage) -> str:
    for part in [message.content] if isinstance(message.content, str) else message.content:
        if isinstance(part, dict) and part.get("type") != "text":
            raise InvalidRequest(f"messages: parts of type {part.get('type')!r:.40} cannot be read; only text can.")
    return message.text


def _spec(name: str, kind: Any, default: Any, description: str) -> ConfigurableFieldSpec:
    return ConfigurableFieldSpec(
        id=name, annotation=kind, default=default, name=name.replace("_", " "), description=description
    )


def _in_playground(config: RunnableConfig) -> bool:
    handlers = getattr(config.get("callbacks"), "handlers", None) or []
    return any(isinstance(handler, LogStreamCallbackHandler) for handler in handlers)


def _inner(config: RunnableConfig) -> RunnableConfig:
    """The part of the caller's config that the graph's run gets: who listens, not what was chosen."""
    return {key: config[key] for key in ("callbacks", "tags", "metadata") if key in config}  # type: ignore[return-value]
