"""Runs: resume one whose connection dropped, stop one."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictStr
from sse_starlette import EventSourceResponse

from citewell.api.events import MEDIA_TYPE, event_id, resumed, server_sent
from citewell.api.requests import identity_of
from citewell.service import Service

router = APIRouter(tags=["chat"])
STREAM = {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}, "description": "Events `token`, `done`, `error`."}

OVER = {"description": "All of it has arrived."}


class Stopping(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{}]})
    run_id: StrictStr | None = Field(
        None, pattern="^[0-9a-f]{32}$", description="Only this run: the part of an event's id before the dot."
    )


class Stopped(BaseModel):
    conversation_id: str
    stopped: bool = Field(description="Whether a run was under way and has been ended.")


@router.get("/runs/{run_id}/events", response_class=EventSourceResponse, responses={200: STREAM, 204: OVER})
async def events(
    request: Request,
    run_id: str,
    last_event_id: Annotated[
        str | None, Header(description="The last event that arrived; none: from the start.")
    ] = None,
) -> Response:
    """Go on with an answer after the last event that arrived, as a browser's EventSource asks for it."""
    service: Service = request.app.state.service
    last = last_event_id or event_id(run_id, 0)
    return await server_sent(await resumed(service, identity_of(request).caller, last))


@router.post("/conversation/{conversation_id:path}/stop")
async def stop(request: Request, conversation_id: str, body: Stopping | None = None) -> Stopped:
    """End the answer under way in a conversation, in whichever process; what was said stays, marked as stopped.

    Where nothing is under way, nothing happens.
    """
    service: Service = request.app.state.service
    run_id = (body.run_id if body else None) or ""
    stopped = await service.stop(identity_of(request).caller, conversation_id, run_id)
    return Stopped(conversation_id=conversation_id, stopped=stopped)
