"""The OpenAI door: `POST /v1/chat/completions` and `GET /v1/models`, for the clients people already have.

A conversation is kept here when the `X-Thread-Id` header names one, or `user` does and the messages hold no answers;
otherwise the messages sent are the history. Citations come in the fields that other programs read: `annotations`
(OpenAI), `citations` (a list of URLs, as Perplexity has it), `sources` (Open WebUI), and `citewell` with all of it.
"""

import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Literal
from urllib.parse import quote, unquote, urlencode

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr
from starlette.requests import HTTPConnection

from citewell.api import problems
from citewell.api.events import event_id, parse_event_id
from citewell.api.problems import METHODS, Problem, to_problem
from citewell.api.requests import SAMPLE, identity_of, run_context
from citewell.citations import Citation
from citewell.errors import ContextOverflow, InvalidRequest, NotFound, UnknownModel
from citewell.models.chat import not_offered
from citewell.service import Result, Service, Turn
from citewell.settings import Settings

DEFAULT = "citewell"
"""The name of the model that the settings say."""
_WITHOUT_EFFECT = frozenset({
    "frequency_penalty", "functions", "metadata", "moderation", "parallel_tool_calls", "prediction", "presence_penalty",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "safety_identifier",
    "seed", "service_tier", "store", "tools", "top_p", "verbosity",
})  # fmt: skip
"""Standard parameters that are ignored: they tune how a model writes, or offer it tools, of which it may use none."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "tool_choice": ("none", "auto"), "function_call": ("none", "auto"),
    "logprobs": (False,), "top_logprobs": (0,), "logit_bias": ({},), "response_format": ({"type": "text"},),
    "stop": ([], ""), "modalities": (["text"],), "audio": (), "web_search_options": (),
}  # fmt: skip
"""Parameters that would change what comes back, and the values at which they do not."""
_WITHHELD = ("blocked", "content_filter", "refusal")
"""Finish reasons of an answer that a guard or the model's provider stopped."""
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""Characters that stand for themselves in the header X-Thread-Id; all others are percent-encoded, both ways."""

_AT_ONCE = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""So that no proxy collects a stream before it hands it on; the other doors' streams say so by themselves."""


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="allow")
    include_usage: StrictBool = False


class Message(BaseModel):
    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: StrictStr | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        if not isinstance(self.content, list):
            return self.content or ""
        for part in self.content:
            if part.get("type") not in ("text", "refusal"):
                raise _unusable("messages", f"parts of type {part.get('type')!r:.40} cannot be read; only text can.")
        return "".join(str(part.get("text") or part.get("refusal") or "") for part in self.content)


class CompletionRequest(BaseModel):
    """OpenAI's request; `thread_id`, `top_k`, `filter`, `thread_policy` and `trace` are ours (`extra_body`)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"examples": [{"model": DEFAULT, "messages": [{"role": "user", "content": SAMPLE}]}]},
    )
    model: StrictStr
    messages: list[Message] = Field(
        min_length=1, description="The last one is the question. System messages are not used."
    )
    stream: StrictBool | None = False
    stream_options: StreamOptions | None = None
    temperature: StrictFloat | None = Field(None, ge=0, le=2)
    max_tokens: StrictInt | None = Field(None, ge=1, le=32_000)
    max_completion_tokens: StrictInt | None = Field(None, ge=1, le=32_000)
    user: StrictStr | None = Field(None, description="Names the conversation when `messages` holds no answers.")
    thread_id: StrictStr | None = Field(None, description="As the X-Thread-Id header.")
    top_k: StrictInt | None = Field(None, ge=1, le=50)
    filter: dict[str, Any] | None = None
    thread_policy: StrictStr | None = None
    trace: StrictBool = False

    def check(self) -> None:
        """Refuse parameters that change the meaning of a request and have no effect here.

        Raises:
            RequestValidationError: Names the parameter.
        """
        for name, value in (self.model_extra or {}).items():
            if value is None or name in _WITHOUT_EFFECT:
                continue
            if name not in _NEUTRAL:
                raise _unusable(name, f"Unrecognized request argument supplied: {name}")
            if value not in _NEUTRAL[name]:
                raise _unusable(name, "not supported here: answers come from the documents, one per request.")


def _unusable(name: str, message: str) -> RequestValidationError:
    """The error for a parameter, in the form of those that FastAPI finds: `error.param` names it."""
    return RequestValidationError([{"loc": (name,), "msg": message}])


def fault(exc: Exception) -> JSONResponse:
    """Any exception in the shape that OpenAI's clients read."""
    problem = to_problem(exc)
    headers = {"x-should-retry": f"{problem.retryable}".lower()}  # else their clients ask again after each 409 and 5xx
    if problem.retry_after_s is not None:
        headers["retry-after"] = f"{max(1, round(problem.retry_after_s))}"
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(_error(problem), _status(problem), headers=headers)


def response(exc: Exception, connection: HTTPConnection) -> JSONResponse:
    """What middleware, which comes before every route, answers with: in this door's shape for this door's clients."""
    return fault(exc) if connection.scope["path"].startswith("/v1/") else problems.response(exc, connection)


class OpenAIRoute(APIRoute):
    """A route whose errors have the shape that OpenAI's clients read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as exc:  # noqa: BLE001  # every fault of this door has one shape; to_problem logs unforeseen ones
                return fault(exc)

        return handled


_FAULT = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["message", "type", "code"]}},
}
_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"description": "OpenAI's shape of an error.", "content": {"application/json": {"schema": _FAULT}}}
    for status in ("4XX", 422, "5XX")
}
router = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute, responses=_FAULTS)
beside = APIRouter(route_class=OpenAIRoute)


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """The models offered: `citewell` is what the settings say."""
    return {"object": "list", "data": [_model(name) for name in _offered(request.app.state.service.settings)]}


@router.get("/models/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """One of the models offered."""
    _check_offered(name, request.app.state.service.settings)
    return _model(name)


@router.post(
    "/chat/completions",
    response_model=None,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def completions(request: Request, body: CompletionRequest) -> Response:
    """Answer the last message, streamed or whole."""
    body.check()
    service: Service = request.app.state.service
    _check_offered(body.model, service.settings)
    base_url = str(request.base_url).rstrip("/")
    if body.stream and (last := request.headers.get("last-event-id")):
        run_id, number = parse_event_id(last)
        events = await service.resume(identity_of(request).caller, run_id, number)
        rest = _Reply(body, base_url, service.settings.chat_model, run_id).rest(events, run_id, number)
        return StreamingResponse(rest, media_type="text/event-stream", headers=_AT_ONCE)
    turn = _turn(request, body)
    reply = _Reply(body, base_url, service.settings.chat_model, turn.run_id)
    headers = {} if turn.history is not None else {"x-thread-id": quote(turn.thread_id, safe=_PLAIN)}
    if not body.stream:
        return JSONResponse(reply.whole(await service.ask(turn)), headers=headers)
    events = service.stream(turn)
    first = await anext(events)  # a fault before the first byte gets a status of its own
    stream = reply.stream(first, events, turn.run_id if turn.is_kept else "")
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers | _AT_ONCE)


@router.api_route("/{path:path}", methods=list(METHODS), include_in_schema=False)
async def nothing_else() -> Response:
    """Refuses all else of OpenAI's API in a shape that its clients read."""
    raise NotFound(
        "Of OpenAI's API there are POST /v1/chat/completions, GET /v1/models and GET /v1/models/{model} here: "
        "use chat.completions of the client."
    )


@beside.get("/models", include_in_schema=False)
@beside.post("/chat/completions", include_in_schema=False)
async def beside_the_door(request: Request) -> Response:
    """Refuses a client that was told the service's address instead of the door's."""
    raise NotFound(f"OpenAI's API is at /v1 here: the client's base URL must be {request.base_url}v1.")


def _turn(request: Request, body: CompletionRequest) -> Turn:
    service: Service = request.app.state.service
    *earlier, last = body.messages
    if last.role != "user":
        raise _unusable("messages", "must end with a message of the user.")
    if any(message.role in ("tool", "function") for message in earlier):
        raise _unusable("messages", "results of tools cannot be used here.")
    history: list[BaseMessage] = [
        HumanMessage(message.text) if message.role == "user" else AIMessage(message.text)
        for message in earlier
        if message.role in ("user", "assistant")
    ]
    thread_id = _named(request.headers.get("x-thread-id", "")) or body.thread_id
    if not thread_id and not history:
        thread_id = body.user
    chosen = body.model_dump(include={"temperature", "top_k", "filter", "trace"})
    chosen["chat_model"] = None if body.model == DEFAULT else body.model
    chosen["max_tokens"] = body.max_completion_tokens or body.max_tokens
    return service.prepare(
        last.text,
        thread_id=thread_id,
        context=run_context(chosen, identity_of(request)),
        policy=body.thread_policy,
        history=None if thread_id else history,
    )


def _named(header: str) -> str:
    """The conversation that the header X-Thread-Id names; empty for none."""
    try:
        return unquote(header, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("X-Thread-Id is no percent-encoded UTF-8.") from None


class _Reply:
    """One answer in OpenAI's shape."""

    def __init__(self, body: CompletionRequest, base_url: str, default_model: str, run_id: str) -> None:
        self._base_url = base_url
        self._include_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._frame = {
            "id": f"chatcmpl-{run_id}", "created": int(time.time()),
            "model": default_model if body.model == DEFAULT else body.model,
        }  # fmt: skip

    def whole(self, result: Result) -> dict[str, Any]:
        message = {
            "role": "assistant", "content": result.answer, "refusal": None, "annotations": self._annotations(result),
        }  # fmt: skip
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(result)}
        return {
            **self._frame, "object": "chat.completion", "choices": [choice], "usage": _usage(result), **self._extra(result),
        }  # fmt: skip

    async def stream(
        self, first: str | Result, events: AsyncGenerator[str | Result, None], run_id: str
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events; closing it ends a run that is not kept. With `run_id`, they have ids."""
        async with aclosing(events), aclosing(self.rest(_behind(first, events), run_id, 0)) as rest:
            yield _id(run_id, 0) + self._chunk({"role": "assistant", "content": "", "refusal": None})
            async for event in rest:
                yield event

    async def rest(
        self, events: AsyncGenerator[str | Result, None], run_id: str, number: int
    ) -> AsyncGenerator[bytes, None]:
        """The events of a run after number `number`."""
        async with aclosing(events):
            try:
                async for event in events:
                    number += 1
                    if isinstance(event, Result) and self._include_usage:
                        # Two chunks of one event: its id comes with the second, so that a client cannot miss it.
                        yield self._piece(event)
                        yield _id(run_id, number) + self._event({"choices": [], "usage": _usage(event)})
                    else:
                        yield _id(run_id, number) + self._piece(event)
            except Exception as exc:  # noqa: BLE001  # the response has begun: only the stream can say it
                yield _data(_error(to_problem(exc)))
                return
            yield b"data: [DONE]\n\n"

    def _piece(self, event: str | Result) -> bytes:
        if isinstance(event, str):
            return self._chunk({"content": event})
        delta = {"annotations": annotations} if (annotations := self._annotations(event)) else {}
        return self._chunk(delta, _finish_reason(event), **self._extra(event))

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._event({"choices": [choice], **({"usage": None} if self._include_usage else {}), **extra})

    def _event(self, body: dict[str, Any]) -> bytes:
        return _data({**self._frame, "object": "chat.completion.chunk", **body})

    def _url(self, citation: Citation) -> str:
        query = {"uri": citation["source"], "start": citation["start"], "end": citation["end"]}
        return f"{self._base_url}/source?{urlencode(query)}"

    def _annotations(self, result: Result) -> list[dict[str, Any]]:
        """OpenAI's annotations, one per citation: where its sentence stands in the answer, and the passage's address."""
        found, at = [], 0
        for citation in result.citations:
            start = result.answer.find(citation["sentence"], at)
            if start < 0:  # the sentence was put together from several lines
                start = at
            end = min(len(result.answer), start + len(citation["sentence"]))
            at = start
            where = {"start_index": start, "end_index": end, "url": self._url(citation), "title": citation["title"]}
            found.append({"type": "url_citation", "url_citation": where})
        return found

    def _extra(self, result: Result) -> dict[str, Any]:
        by_chunk: dict[str, list[Citation]] = {}
        for citation in result.citations:
            by_chunk.setdefault(citation["chunk_id"], []).append(citation)
        sources = [
            {
                "source": {"id": group[0]["source"], "name": group[0]["title"], "url": self._url(group[0])},
                "document": [citation["quote"] for citation in group],
                "metadata": [
                    {
                        "source": citation["source"], "name": citation["title"], "page": citation["page"],
                        "status": citation["status"], "start": citation["start"], "end": citation["end"],
                    }
                    for citation in group
                ],
                "distances": [citation["score"] for citation in group],
            }
            for group in by_chunk.values()
        ]  # fmt: skip
        return {
            "citations": [source["source"]["url"] for source in sources],  # type: ignore[index]
            "sources": sources,
            "citewell": {
                "thread_id": result.thread_id, "citations": result.citations, "metadata": result.metadata,
            },
        }  # fmt: skip


def _finish_reason(result: Result) -> str:
    if result.metadata.get("blocked") or result.metadata.get("finish_reason") in _WITHHELD:
        return "content_filter"
    return "length" if result.metadata.get("truncated") else "stop"


def _usage(result: Result) -> dict[str, int]:
    usage = result.usage
    return {
        "prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
    }  # fmt: skip


async def _behind(
    first: str | Result, events: AsyncGenerator[str | Result, None]
) -> AsyncGenerator[str | Result, None]:
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


def _id(run_id: str, number: int) -> bytes:
    return f"id: {event_id(run_id, number)}\n".encode() if run_id else b""


def _data(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _offered(settings: Settings) -> tuple[str, ...]:
    return (DEFAULT, *settings.offered_models)


def _check_offered(name: str, settings: Settings) -> None:
    if name not in (offered := _offered(settings)):
        raise not_offered(offered)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "citewell"}


def _status(problem: Problem) -> int:
    match problem.code:
        case UnknownModel.code:
            return 404
        case ContextOverflow.code:
            return 400
    return 400 if problem.status == 422 else problem.status


_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def _error(problem: Problem) -> dict[str, Any]:
    status = _status(problem)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    # OpenAI's names, which programs match on; LangChain looks for the second.
    code = {UnknownModel.code: "model_not_found", ContextOverflow.code: "context_length_exceeded"}.get(
        problem.code, problem.code
    )
    field = problem.errors[0].field or None if problem.errors else None
    return {"error": {"message": problem.detail, "type": kind, "param": field, "code": code}}
