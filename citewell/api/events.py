"""An answer as frames, the same over WebSocket and server-sent events.

Where the run can be resumed, a frame has an `id`, `<run>.<number>`, which a client gives back to continue after it.
"""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.responses import Response

from citewell.api.problems import to_problem
from citewell.errors import InvalidRequest
from citewell.service import Result, Service, Turn

Events = AsyncGenerator[str | Result, None]
Frames = AsyncGenerator[dict[str, Any], None]
_ID = re.compile(r"([0-9a-f]{32})\.(\d{1,9})")
MEDIA_TYPE = "text/event-stream"


def event_id(run_id: str, number: int) -> str:
    return f"{run_id}.{number}"


def parse_event_id(text: str) -> tuple[str, int]:
    """The run and the number in an event's id. Raises InvalidRequest."""
    match = _ID.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest("The event id is none of this service's; give back the last one that came, unchanged.")
    return match[1], int(match[2])


async def asked(service: Service, turn: Turn) -> Frames:
    """Run a turn. If it can be resumed, a frame with its id comes first, so that nothing is lost before the first word."""
    if turn.is_kept:
        start = {"token": "", "done": False, "conversation_id": turn.thread_id}
        yield start | {"id": event_id(turn.run_id, 0)}
    async with aclosing(_frames(service.stream(turn), turn.run_id if turn.is_kept else "")) as frames:
        async for frame in frames:
            yield frame


async def resumed(service: Service, caller: str, last: str) -> Frames:
    """The frames of a run after the event with the id `last`.

    Raises:
        InvalidRequest: `last` is not the id of an event.
        ResumeOff: By the settings, runs end with the connection.
        RunNotFound: The caller has no such run, or no longer.
    """
    run_id, number = parse_event_id(last)
    return _frames(await service.resume(caller, run_id, number), run_id, number)


async def _frames(events: Events, run_id: str, number: int = 0) -> Frames:
    async with aclosing(events):
        async for event in events:
            number += 1
            frame = _frame(event)
            yield frame | {"id": event_id(run_id, number)} if run_id else frame


def _frame(event: str | Result) -> dict[str, Any]:
    if isinstance(event, str):
        return {"token": event, "done": False}
    return {
        "token": "", "done": True, "conversation_id": event.thread_id,
        "sources": event.citations, "metadata": event.metadata | {"usage": event.usage},
    }  # fmt: skip


async def server_sent(frames: Frames, headers: dict[str, str] | None = None) -> Response:
    """Frames as events `token` and `done`, or `error`. A fault before the first frame is raised, so that it gets a status."""
    if (first := await anext(frames, None)) is None:
        return Response(status_code=204)  # at which a browser's EventSource stops asking for more

    async def events() -> AsyncGenerator[dict[str, str], None]:
        async with aclosing(frames):
            try:
                yield _event(first)
                async for frame in frames:
                    yield _event(frame)
            except Exception as exc:  # noqa: BLE001  # the response has begun: only the stream can say it
                yield {"event": "error", "data": json.dumps(to_problem(exc).model_dump(exclude_none=True))}

    return EventSourceResponse(events(), headers=headers, sep="\n")


def _event(frame: dict[str, Any]) -> dict[str, str]:
    event = {"event": "done" if frame["done"] else "token", "data": json.dumps(frame, ensure_ascii=False)}
    return event | ({"id": frame["id"]} if "id" in frame else {})
