"""Thumbs up, thumbs down: kept with the question and the answer; `python -m evals.feedback` makes test rows of them."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, StringConstraints

from citewell.api.requests import identity_of
from citewell.errors import InvalidRequest, ThreadNotFound
from citewell.feedback import FeedbackStore, Rating, Reason, Row
from citewell.identity import bind, given_id
from citewell.service import Service
from citewell.telemetry import metrics

router = APIRouter(tags=["feedback"])


class FeedbackRequest(BaseModel):
    """What somebody thought of one answer. A later one on the same answer takes its place."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"thread_id": "ID", "rating": "up"}]})
    thread_id: StrictStr
    message: StrictInt | None = Field(None, ge=0, description="Position of the answer, from 0; null: the last one.")
    rating: Rating
    reason: Reason = ""
    comment: Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)] = ""


class Feedback(BaseModel):
    thread_id: str
    message: int
    rating: Rating
    reason: Reason
    comment: str
    created: str


class FeedbackList(BaseModel):
    feedback: list[Feedback] = Field(description="In the order of the conversation.")


@router.post("/feedback", status_code=201)
async def rate(request: Request, body: FeedbackRequest) -> Feedback:
    """Rate an answer."""
    service: Service = request.app.state.service
    store: FeedbackStore = request.app.state.feedback
    caller = identity_of(request).caller
    await service.conversation(caller, body.thread_id)
    thread = await service.transcript(caller, body.thread_id)
    if thread is None:
        raise ThreadNotFound("There is no such conversation, or it has expired.")
    position = len(thread.messages) - 1 if body.message is None else body.message
    answer = thread.messages[position] if position < len(thread.messages) else None
    if not isinstance(answer, AIMessage):
        raise InvalidRequest(f"message: there is no answer at position {position} of this conversation.")
    asked = next((one for one in reversed(thread.messages[:position]) if isinstance(one, HumanMessage)), None)
    question = asked.text if asked else ""
    metadata = answer.additional_kwargs.get("metadata", {})
    row = Row(
        thread_id=bind(caller, body.thread_id),
        message=position,
        caller=caller,
        rating=body.rating,
        reason=body.reason,
        comment=body.comment,
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        question=question,
        standalone=metadata.get("standalone_question") or question,
        answer=answer.text,
        citations=answer.additional_kwargs.get("citations", []),
        model=metadata.get("model") or metadata.get("answerer") or "",
    )
    await store.put(row)
    try:
        await service.conversation(caller, body.thread_id)
    except ThreadNotFound:  # deleted meanwhile, and its ratings with it: nobody would delete this one
        await store.forget(bind(caller, body.thread_id))
        raise
    metrics.RATINGS.labels(body.rating, body.reason or "none").inc()
    return _shown(row)


@router.get("/feedback")
async def ratings(request: Request, thread_id: str) -> FeedbackList:
    """What was said about a conversation's answers."""
    service: Service = request.app.state.service
    store: FeedbackStore = request.app.state.feedback
    caller = identity_of(request).caller
    await service.conversation(caller, thread_id)
    return FeedbackList(feedback=[_shown(row) for row in await store.of_thread(bind(caller, thread_id))])


def _shown(row: Row) -> Feedback:
    return Feedback.model_validate({**row, "thread_id": given_id(row["thread_id"])})
