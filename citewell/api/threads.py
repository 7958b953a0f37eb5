"""A caller's conversations: list and rename. Reading and deleting one is `citewell.api.rest`."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from citewell.api.requests import identity_of
from citewell.questions import check_text
from citewell.service import Service
from citewell.threads import ThreadInfo

router = APIRouter(tags=["conversations"])


class ThreadEntry(BaseModel):
    thread_id: str
    title: str = Field(description="The first question, or what the conversation was renamed to.")
    created: datetime
    updated: datetime
    size_bytes: int


class ThreadPage(BaseModel):
    threads: list[ThreadEntry] = Field(description="The one used last first.")
    before: datetime | None = Field(None, description="Give this as `before` for older ones; null at the end.")


class Renaming(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


@router.get("/threads")
async def threads(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: Annotated[datetime | None, Query(description="Only those used before this moment.")] = None,
) -> ThreadPage:
    """List the caller's conversations, the one used last first."""
    service: Service = request.app.state.service
    if before is not None and before.tzinfo is None:
        before = before.replace(tzinfo=UTC)
    found = await service.conversations(identity_of(request).caller, limit=limit, before=before)
    return ThreadPage(
        threads=[_entry(info) for info in found], before=found[-1].updated if len(found) == limit else None
    )


@router.patch("/threads/{thread_id:path}")
async def rename(request: Request, thread_id: str, body: Renaming) -> ThreadEntry:
    """Give a conversation another title."""
    service: Service = request.app.state.service
    check_text(body.title, "title")
    return _entry(await service.rename(identity_of(request).caller, thread_id, body.title))


def _entry(info: ThreadInfo) -> ThreadEntry:
    return ThreadEntry(
        thread_id=info.thread_id, title=info.title, created=info.created, updated=info.updated,
        size_bytes=info.size_bytes,
    )  # fmt: skip
