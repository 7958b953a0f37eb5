"""LangServe's handler of requests, with our checks before it and our faults after it."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from fastapi import Request, Response
from langserve import APIHandler
from sse_starlette import EventSourceResponse

from citewell.api.langserve.runnables import IDENTITY, Door
from citewell.api.problems import NO_JSON, to_problem
from citewell.api.requests import identity_of, options
from citewell.errors import InvalidRequest

MOST_IN_BATCH = 100
"""Most inputs of a `batch` call."""
_FOREIGN = ("__", "checkpoint", "langgraph", "run_id", "assistant_id", "graph_id")
"""Beginnings of configurable keys that LangGraph's clients add by themselves, which are ignored."""
_UNSCREENED = ("chat_model", "llm", "prompt", "parser")
"""Kinds of runs inside the graph whose input or output the guards have not seen."""
_KEYS = frozenset({
    "input", "inputs", "config", "kwargs", "diff", "version", "include_names", "include_types", "include_tags",
    "exclude_names", "exclude_types", "exclude_tags",
})  # fmt: skip
"""What the clients and playgrounds of LangServe put into a body."""


class Handler(APIHandler):
    """LangServe's handler, with our faults."""

    def __init__(self, door: Door, **options: Any) -> None:
        super().__init__(door, per_req_config_modifier=_with_identity, **options)
        self._door = door
        self._configurable = [spec.id for spec in door.config_specs]

    async def _get_config_and_input(self, request: Request, config_hash: str, **kwargs: Any) -> tuple[Any, Any]:
        with _readable():
            config, value = await super()._get_config_and_input(request, config_hash, **kwargs)
        self._door.turn(value, config)  # checks it before a log stream begins
        return config, value

    async def batch(self, request: Request, **kwargs: Any) -> Response:
        inputs = (await self._body(request)).get("inputs")
        if not isinstance(inputs, list):
            raise InvalidRequest("inputs must be a list.")
        if len(inputs) > MOST_IN_BATCH:
            raise InvalidRequest(f"The batch has {len(inputs):,} inputs; at most {MOST_IN_BATCH} are accepted.")
        with _readable():
            for value in inputs:
                self._door.get_input_schema().model_validate(value)
        return await super().batch(request, **kwargs)

    async def invoke(self, request: Request, **kwargs: Any) -> Response:
        await self._body(request)
        return await super().invoke(request, **kwargs)

    async def stream(self, request: Request, **kwargs: Any) -> EventSourceResponse:
        await self._body(request)
        return await _honest(await super().stream(request, **kwargs))

    async def stream_log(self, request: Request, **kwargs: Any) -> EventSourceResponse:
        _hide_models(await self._body(request))
        return await _honest(await super().stream_log(request, **kwargs), held=2)

    async def astream_events(self, request: Request, **kwargs: Any) -> EventSourceResponse:
        _hide_models(await self._body(request))
        return await _honest(await super().astream_events(request, **kwargs), held=2)

    async def _body(self, request: Request) -> dict[str, Any]:
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
        self._check_places(body)
        for config in _each(body["config"]):
            if not isinstance(config, dict):
                raise InvalidRequest("config must be an object, or for a batch a list of objects.")
            chosen = config.get("configurable")
            if chosen is not None and not isinstance(chosen, dict):
                raise InvalidRequest("config.configurable must be an object.")
            for key in chosen or ():
                if key not in self._configurable and not key.startswith(_FOREIGN):
                    raise InvalidRequest(
                        f"config.configurable has no {key!a}. It has: {', '.join(self._configurable)}."
                    )
            options(chosen or {})  # before LangServe makes numbers of words, and one of true
            if chosen:  # null is as good as absent, here as at the other doors
                config["configurable"] = {key: value for key, value in chosen.items() if value is not None}
        return body

    def _check_places(self, body: dict[str, Any]) -> None:
        """LangServe reads only what it knows: a `thread_id` beside `config` would begin another conversation each time.

        Raises:
            InvalidRequest: An option stands where nothing looks for it, or the body has a key that no client of LangServe's sends.
        """
        for place in (body, *_each(body["config"]), *_each(body.get("kwargs"))):
            for key in self._configurable:
                if isinstance(place, dict) and key in place:
                    raise InvalidRequest(f"{key} is read in config.configurable only.")
        for key in body:
            if key not in _KEYS:
                raise InvalidRequest(f"The body has no {key!a}. It has input, for a batch inputs, and config.")


def _hide_models(body: dict[str, Any]) -> None:
    """Exclude the models' runs from a log: the guards have not seen what goes into a model and what comes out."""
    excluded = body.get("exclude_types") or []
    if isinstance(excluded, list):  # else refused as what it is
        body["exclude_types"] = [*excluded, *_UNSCREENED]


def _with_identity(config: dict[str, Any], request: Request) -> dict[str, Any]:
    """Put the caller into the configuration. LangServe calls this last, for every input that is run."""
    return {**config, "configurable": {**(config.get("configurable") or {}), IDENTITY: identity_of(request)}}


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


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _int(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("an integer of more than 64 bits, which no JSON writer here could send back")
    return value
