"""The REST door: one message, one JSON answer; and the conversations themselves."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from citewell.api.events import MEDIA_TYPE, asked, resumed, server_sent
from citewell.api.requests import SAMPLE, identity_of, run_context
from citewell.citations import Citation
from citewell.errors import ThreadNotFound
from citewell.identity import bind
from citewell.service import Service
from citewell.threads.history import said

router = APIRouter(tags=["chat"])


class ChatRequest(BaseModel):
    """One message. `conversation_id` continues a conversation; absent, null or empty starts one."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"message": SAMPLE, "include_sources": True}]}
    )
    message: StrictStr
    conversation_id: StrictStr | None = None
    include_sources: StrictBool = False
    chat_model: StrictStr | None = Field(None, description="`extractive` or one of the models offered.")
    temperature: StrictFloat | None = Field(None, ge=0, le=2)
    max_tokens: StrictInt | None = Field(None, ge=1, le=32_000)
    top_k: StrictInt | None = Field(None, ge=1, le=50)
    filter: dict[str, Any] | None = Field(None, description="Metadata filter, see docs/filters.md.")
    thread_policy: StrictStr | None = Field(None, description="`queue`, `reject` or `replace` when the thread is busy.")
    trace: StrictBool = False


class ChatResponse(BaseModel):
    response: str
    conversation_id: str
    sources: list[Citation] | None = Field(default=None, description="The citations; only with `include_sources`.")
    metadata: dict[str, Any]


class Message(BaseModel):
    role: str = Field(description="`user` or `assistant`.")
    content: str
    created_at: str | None = Field(None, description="ISO 8601, UTC.")
    citations: list[Citation] = []
    metadata: dict[str, Any] = {}


class Statistics(BaseModel):
    total: int
    user: int
    assistant: int
    first: str | None = Field(description="Time of the first message, ISO 8601, UTC.")
    last: str | None = None


class ConversationPage(BaseModel):
    conversation_id: str
    history: list[Message] = Field(description="Oldest first.")
    statistics: Statistics
    summary: str = ""
    before: int | None = Field(None, description="Give this as `before` for the page of older messages; null at the start.")  # fmt: skip


@router.post(
    "/chat", response_model=ChatResponse, response_model_exclude_unset=True,
    responses={
        200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
        204: {"description": "A stream that was to go on: all of it has arrived."},
    },
)  # fmt: skip
async def chat(body: ChatRequest, request: Request) -> ChatResponse | Response:
    """Ask one question and get the whole answer; with `Accept: text/event-stream`, as it comes.

    Such a stream goes on after the event that the header `Last-Event-ID` names, and the question is not asked again.
    """
    service: Service = request.app.state.service
    is_streamed = MEDIA_TYPE in request.headers.get("accept", "")
    if is_streamed and (last := request.headers.get("last-event-id")):
        return await server_sent(await resumed(service, identity_of(request).caller, last))
    turn = service.prepare(
        body.message,
        thread_id=body.conversation_id,
        context=run_context(body.model_dump(), identity_of(request)),
        policy=body.thread_policy,
    )
    if is_streamed:
        return await server_sent(asked(service, turn), {"x-thread-id": quote(turn.thread_id)})
    result = await service.ask(turn)
    response = ChatResponse(
        response=result.answer,
        conversation_id=result.thread_id,
        metadata=result.metadata | {"usage": result.usage},
    )
    if body.include_sources:
        response.sources = result.citations
    return response


@router.get("/conversation/{conversation_id:path}")
async def conversation(
    request: Request,
    conversation_id: str,
    before: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ConversationPage:
    """Read a conversation, newest page first."""
    service: Service = request.app.state.service
    thread = await service.transcript(identity_of(request).caller, conversation_id)
    if thread is None:
        raise ThreadNotFound("There is no such conversation, or it has expired.")
    messages = [Message.model_validate(said(message)) for message in thread.messages]
    end = len(messages) if before is None else min(before, len(messages))
    start = max(0, end - limit)
    users = sum(message.role == "user" for message in messages)
    return ConversationPage(
        conversation_id=conversation_id,
        history=messages[start:end],
        statistics=Statistics(
            total=len(messages),
            user=users,
            assistant=len(messages) - users,
            first=messages[0].created_at if messages else None,
            last=messages[-1].created_at if messages else None,
        ),
        summary=thread.summary,
        before=start or None,
    )


@router.delete("/conversation/{conversation_id:path}", status_code=204)
async def forget(request: Request, conversation_id: str) -> Response:
    """Delete every trace of a conversation. It need not exist."""
    service: Service = request.app.state.service
    caller = identity_of(request).caller
    await service.forget(caller, conversation_id)
    await request.app.state.feedback.forget(bind(caller, conversation_id))
    return Response(status_code=204)
