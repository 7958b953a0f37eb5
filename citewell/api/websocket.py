"""The WebSocket door: messages in, tokens out, many turns on one socket."""

import asyncio
import json
from contextlib import aclosing, suppress
from typing import Any

from fastapi import APIRouter, HTTPException, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, StrictStr

from citewell.api.events import asked, resumed
from citewell.api.identity import SUBPROTOCOL
from citewell.api.problems import to_problem
from citewell.api.requests import identity_now, run_context
from citewell.api.rest import ChatRequest
from citewell.errors import Draining, InvalidRequest
from citewell.service import Service

router = APIRouter()
_CLOSING = {401: 1008, 500: 1011}
"""Statuses of problems after which a socket is closed, with the close code."""
WAITING = 16
"""Most messages that a client may send ahead while one is being answered."""
RESTARTING, TRY_AGAIN = 1012, 1013
"""Close codes (IANA's WebSocket registry) for a socket that must move to another process, and for one that came too late."""


class Resuming(BaseModel):
    """The message of a client that lost its connection."""

    model_config = ConfigDict(extra="forbid")
    resume: StrictStr
    """`id` of the last frame that arrived."""


@router.websocket("/ws/chat")
async def chat(socket: WebSocket) -> None:
    """In: the body of `POST /chat`, or `{resume: id}`. Out: `{token, done: false}` many times, then `{token: "", done: true,
    conversation_id, sources, metadata}`; or `{error: problem}`.

    A socket without a `conversation_id` has one conversation of its own. Leaving ends the run, unless runs go on and
    can be resumed here; frames then carry an `id`, and one comes before the first token.
    """
    service: Service = socket.app.state.service
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", ()) else None)
    if service.runs.is_closed:
        await socket.close(TRY_AGAIN, Draining.title)
        return
    inbox: asyncio.Queue[str | bytes] = asyncio.Queue(WAITING)
    reader = asyncio.create_task(_read(socket, inbox))
    writer = asyncio.create_task(_answer(socket, service, inbox))
    try:
        await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        reader.cancel()
        writer.cancel()
        await asyncio.wait({reader, writer})
    for task in (reader, writer):
        if not task.cancelled() and (exc := task.exception()) and not isinstance(exc, WebSocketDisconnect):
            raise exc


@router.get("/ws/chat", include_in_schema=False)
async def no_socket() -> None:
    """What is left of a WebSocket behind a proxy that does not hand it on."""
    raise InvalidRequest(
        "This address takes WebSockets. A proxy in between must hand on the headers Upgrade and Connection, over HTTP/1.1."
    )


@router.websocket("/{path:path}")
async def nowhere(socket: WebSocket) -> None:
    """No other address takes WebSockets. Without a route the refusal is 403, as if a key were missing."""
    raise HTTPException(404)


async def _read(socket: WebSocket, inbox: asyncio.Queue[str | bytes]) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        await inbox.put(message.get("text") or message.get("bytes") or "")


async def _answer(socket: WebSocket, service: Service, inbox: asyncio.Queue[str | bytes]) -> None:
    own_thread: str | None = None
    while True:
        text = await inbox.get()
        try:
            value = _object(text)
            if "resume" in value:
                last = Resuming.model_validate(value).resume
                frames = await resumed(service, (await identity_now(socket)).caller, last)
            else:
                request = ChatRequest.model_validate(value)
                turn = service.prepare(
                    request.message,
                    thread_id=request.conversation_id or own_thread,
                    context=run_context(request.model_dump(), await identity_now(socket)),
                    policy=request.thread_policy,
                )
                own_thread = own_thread or turn.thread_id
                frames = asked(service, turn)
            async with aclosing(frames):
                async for frame in frames:
                    own_thread = own_thread or frame.get("conversation_id")
                    await _send(socket, frame)
        except WebSocketDisconnect:
            return
        except Exception as exc:  # noqa: BLE001  # an open socket has no status: only a frame can say it
            problem = to_problem(exc)
            await _send(socket, {"error": problem.model_dump(exclude_none=True)})
            if isinstance(exc, Draining):
                await socket.close(RESTARTING, exc.title)
                return
            if problem.status in _CLOSING:
                await socket.close(_CLOSING[problem.status])
                return


async def _send(socket: WebSocket, frame: dict[str, Any]) -> None:
    with suppress(RuntimeError):  # the client left; the reader sees it and ends the run
        await socket.send_text(json.dumps(frame, ensure_ascii=False))


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest('The frame is not valid JSON: send {"message": "..."}.') from None
    if not isinstance(value, dict):
        raise InvalidRequest('The frame must be a JSON object: {"message": "..."}.')
    return value
