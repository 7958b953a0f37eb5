"""The LangServe door: `/rag` (question in, cited answer out) and `/chat` (messages in, text out).

LangServe's own `APIHandler` does the work. The routes are added here instead of by `add_routes`, so that a fault before the first byte is a
problem response and a later one an `error` event with the same body.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Annotated, Any, Literal, cast

from fastapi import FastAPI, HTTPException, Path, Request, Response
from fastapi.responses import JSONResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig, RunnableLambda
from langchain_core.runnables.utils import AddableDict
from langchain_core.tracers.log_stream import LogStreamCallbackHandler
from langserve import APIHandler
from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictStr, Tag
from sse_starlette import EventSourceResponse
from typing_extensions import TypedDict

from citewell.api.problems import NO_JSON, to_problem
from citewell.api.requests import SAMPLE, identity_of, options, run_context
from citewell.citations import Citation
from citewell.errors import InvalidRequest
from citewell.service import Result, Service, Turn
from citewell.settings import Settings

MOST_IN_BATCH = 100
"""Most inputs of a `batch` call."""
ABREAST = 8
"""Most turns of a `batch` call that run at the same time."""
_IDENTITY = "__citewell_identity"
"""The caller's key in `configurable`, set over whatever a client put there; the underscores keep it out of traces."""
_FOREIGN = ("__", "checkpoint", "langgraph", "run_id", "assistant_id", "graph_id")
"""Beginnings of configurable keys that LangGraph's clients add by themselves, which are ignored."""


_UNSCREENED = ("chat_model", "llm", "prompt", "parser")
"""Kinds of runs inside the graph whose input or output the guards have not seen."""

ConfigHash = Annotated[str, Path(max_length=4096)]
"""A compressed configuration in a playground's address; a longer one could unpack to hundreds of megabytes."""


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
            context=run_context(chosen, chosen[_IDENTITY]),
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


class Handler(APIHandler):
    """LangServe's handler, with our faults."""

    def __init__(self, door: Door, **options: Any) -> None:
        super().__init__(door, per_req_config_modifier=_with_identity, **options)
        self._door = door

    async def _get_config_and_input(self, request: Request, config_hash: str, **kwargs: Any) -> tuple[Any, Any]:
        with _readable():
            config, value = await super()._get_config_and_input(request, config_hash, **kwargs)
        self._door.turn(value, config)  # checks it before a log stream begins
        return config, value

    async def batch(self, request: Request, **kwargs: Any) -> Response:
        inputs = (await _json(request)).get("inputs")
        if not isinstance(inputs, list):
            raise InvalidRequest("inputs must be a list.")
        if len(inputs) > MOST_IN_BATCH:
            raise InvalidRequest(f"The batch has {len(inputs):,} inputs; at most {MOST_IN_BATCH} are accepted.")
        with _readable():
            for value in inputs:
                self._door.get_input_schema().model_validate(value)
        return await super().batch(request, **kwargs)

    async def invoke(self, request: Request, **kwargs: Any) -> Response:
        await _json(request)
        return await super().invoke(request, **kwargs)

    async def stream(self, request: Request, **kwargs: Any) -> EventSourceResponse:
        await _json(request)
        return await _honest(await super().stream(request, **kwargs))

    async def stream_log(self, request: Request, **kwargs: Any) -> EventSourceResponse:
        _hide_models(await _json(request))
        return await _honest(await super().stream_log(request, **kwargs), held=2)

    async def astream_events(self, request: Request, **kwargs: Any) -> EventSourceResponse:
        _hide_models(await _json(request))
        return await _honest(await super().astream_events(request, **kwargs), held=2)


def _hide_models(body: dict[str, Any]) -> None:
    """Exclude the models' runs from a log: the guards have not seen what goes into a model and what comes out."""
    excluded = body.get("exclude_types") or []
    if isinstance(excluded, list):  # else refused as what it is
        body["exclude_types"] = [*excluded, *_UNSCREENED]


def _with_identity(config: dict[str, Any], request: Request) -> dict[str, Any]:
    """Put the caller into the configuration. LangServe calls this last, for every input that is run."""
    return {**config, "configurable": {**(config.get("configurable") or {}), _IDENTITY: identity_of(request)}}


@contextmanager
def _readable() -> Iterator[None]:
    """Turn the plain Python errors that LangChain's messages raise for some malformed input into InvalidRequest."""
    try:
        yield
    except (TypeError, AttributeError):
        raise InvalidRequest("The input cannot be read as what the schema describes.") from None


async def _honest(response: EventSourceResponse, held: int = 1) -> EventSourceResponse:
    """Wait for the first events, so that a fault before them gets a status; name a later fault in its `error` event.

    Args:
        held: How many to wait for: those that are sent before the turn is let in, and one.
    """
    events: AsyncIterator[Any] = response.body_iterator  # type: ignore[assignment]  # sse_starlette types it loosely
    first = []
    async for event in events:
        if event.get("event") == "error":
            await anext(events)  # raises what the error was
        first.append(event)
        if len(first) == held:
            break

    async def rest() -> AsyncIterator[Any]:
        async with aclosing(events):  # type: ignore[type-var]  # LangServe gives an async generator
            for event in first:
                yield event
            async for event in events:
                if event.get("event") != "error":
                    yield event
                    continue
                try:
                    await anext(events)
                except Exception as exc:  # noqa: BLE001  # the response has begun: only the stream can say it
                    problem = to_problem(exc)
                    body = problem.model_dump(exclude_none=True)
                    # RemoteRunnable reads these two names
                    body |= {"status_code": problem.status, "message": problem.detail}
                    yield {"event": "error", "data": json.dumps(body)}
                return

    response.body_iterator = rest()
    return response


async def _json(request: Request) -> dict[str, Any]:
    """The body as an object; LangServe reads it again from the request's cache.

    Raises:
        InvalidRequest: It is no JSON object, or holds what cannot be set, or not there.
    """
    try:
        body = json.loads(await request.body(), parse_int=_int)
    except json.JSONDecodeError as exc:
        raise InvalidRequest(f"The body is no valid JSON: it goes wrong at character {exc.pos}.") from None
    except (ValueError, RecursionError):  # ValueError: no UTF-8, or a number that is too large
        raise InvalidRequest(NO_JSON) from None
    request._json = body  # where Starlette keeps it too
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    if body.get("config") is None:
        body["config"] = {}  # LangServe takes an absent config, but not one that is null
    _check_places(body)
    for config in _each(body["config"]):
        if not isinstance(config, dict):
            raise InvalidRequest("config must be an object, or for a batch a list of objects.")
        chosen = config.get("configurable")
        if chosen is not None and not isinstance(chosen, dict):
            raise InvalidRequest("config.configurable must be an object.")
        for key in chosen or ():
            if key not in CONFIGURABLE and not key.startswith(_FOREIGN):
                raise InvalidRequest(f"config.configurable has no {key!a}. It has: {', '.join(CONFIGURABLE)}.")
        options(chosen or {})  # before LangServe makes numbers of words, and one of true
        if chosen:  # null is as good as absent, here as at the other doors
            config["configurable"] = {key: value for key, value in chosen.items() if value is not None}
    return body


def _check_places(body: dict[str, Any]) -> None:
    """LangServe reads only what it knows: a `thread_id` beside `config` would begin another conversation each time.

    Raises:
        InvalidRequest: An option stands where nothing looks for it, or the body has a key that no client of LangServe's sends.
    """
    for place in (body, *_each(body["config"]), *_each(body.get("kwargs"))):
        for key in CONFIGURABLE:
            if isinstance(place, dict) and key in place:
                raise InvalidRequest(f"{key} is read in config.configurable only.")
    for key in body:
        if key not in _KEYS:
            raise InvalidRequest(f"The body has no {key!a}. It has input, for a batch inputs, and config.")


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _int(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("an integer of more than 64 bits, which no JSON writer here could send back")
    return value


CONFIGURABLE = (
    "thread_id", "chat_model", "temperature", "max_tokens", "top_k", "filter", "thread_policy", "trace",
)  # fmt: skip
_KEYS = frozenset({
    "input", "inputs", "config", "kwargs", "diff", "version", "include_names", "include_types", "include_tags",
    "exclude_names", "exclude_types", "exclude_tags",
})  # fmt: skip
"""What the clients and playgrounds of LangServe put into a body."""


_EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}


class Events(Response):
    """Server-sent events, for the OpenAPI document."""

    media_type = "text/event-stream"


def install(app: FastAPI, settings: Settings) -> None:
    """Add the routes of both doors."""

    def service() -> Service:
        return app.state.service  # type: ignore[no-any-return]  # opened by the lifespan

    doors: list[tuple[str, Door, Literal["default", "chat"]]] = [
        ("/rag", Rag(service, settings, "rag"), "default"),
        ("/chat", Chat(service, settings, "chat"), "chat"),
    ]
    for path, door, playground in doors:
        _lay(app, path, Handler(door, path=path, config_keys=("configurable",), playground_type=playground))


def _lay(app: FastAPI, path: str, handler: Handler) -> None:
    tag = path.strip("/")

    def route(verb: str, name: str, call: Callable[..., Any]) -> None:
        async def plain(request: Request) -> Response:
            return await call(request)  # type: ignore[no-any-return]

        async def with_config(request: Request, config_hash: ConfigHash) -> Response:
            return await call(request, config_hash=config_hash)  # type: ignore[no-any-return]

        app.add_api_route(f"{path}/{name}", plain, methods=[verb], include_in_schema=False)
        app.add_api_route(f"{path}/c/{{config_hash}}/{name}", with_config, methods=[verb], include_in_schema=False)

    for name in ("invoke", "batch", "stream", "stream_log"):
        route("POST", name, getattr(handler, name))
    route("POST", "stream_events", handler.astream_events)
    for name in ("input_schema", "output_schema", "config_schema"):
        route("GET", name, _as_json(getattr(handler, name)))

    async def file(path: str, request: Request, config_hash: str = "") -> Response:
        with suppress(IsADirectoryError):
            response = await handler.playground(path, request, config_hash=config_hash)
            if response.status_code != 404:
                return response  # type: ignore[no-any-return]
        raise HTTPException(404)

    async def playground(request: Request, file_path: str = "") -> Response:
        return await file(file_path, request)

    async def shared_playground(request: Request, config_hash: ConfigHash, file_path: str = "") -> Response:
        return await file(file_path, request, config_hash)

    for suffix in ("/playground", "/playground/{file_path:path}"):
        app.add_api_route(f"{path}{suffix}", playground, methods=["GET"], include_in_schema=False)
        app.add_api_route(
            f"{path}/c/{{config_hash}}{suffix}", shared_playground, methods=["GET"], include_in_schema=False
        )
    _document(app, path, tag, handler)


def _document(app: FastAPI, path: str, tag: str, handler: Handler) -> None:
    """Describe the doors in the OpenAPI document, with routes that are never reached, as the real ones come first."""

    def describe(name: str, body: Any, answer: Any, kind: type[Response] = JSONResponse) -> None:
        async def never(request: Annotated[Any, body]) -> Any:
            raise AssertionError("reached a route that only documents")

        never.__annotations__["request"] = body
        app.add_api_route(
            f"{path}/{name}", never, methods=["POST"], response_model=answer, response_class=kind, tags=[tag],
            name=f"{tag} {name}", responses={200: {"content": {kind.media_type: {"schema": _EVENT}}}} if kind is Events else {},
        )  # fmt: skip

    describe("invoke", handler.InvokeRequest, handler.InvokeResponse)
    describe("batch", handler.BatchRequest, handler.BatchResponse)
    describe("stream", handler.StreamRequest, None, Events)
    describe("stream_events", handler.StreamEventsRequest, None, Events)


def _as_json(call: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Request, **kwargs: Any) -> Response:
        return Response(json.dumps(await call(request, **kwargs)), media_type="application/json")

    return answer


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
