"""Adding a document through the service, and forgetting it again."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Annotated, Any, BinaryIO, cast

import orjson
from fastapi import APIRouter, Query, Request, Response, UploadFile
from fastapi.openapi.models import Example
from fastapi.responses import JSONResponse
from sse_starlette import EventSourceResponse

from citewell.api.problems import to_problem
from citewell.api.requests import identity_of
from citewell.errors import BodyTooLarge, IngestBusy, InvalidRequest, NotAuthorized
from citewell.ingestion.report import FileReport
from citewell.ingestion.upload import Upload, ingest_upload, remove_upload, storing
from citewell.models.payer import paid_by
from citewell.service import Service
from citewell.settings import Settings

router = APIRouter(tags=["documents"])
UPLOADS = "/uploads"
"""This route reads its body in pieces and bounds it itself."""
_IN_MEMORY_BYTES = 1 << 20
_SAMPLE_NAME: dict[str, Example] = {"notes": {"value": "notes.md"}}


@router.post(
    UPLOADS,
    response_model=None,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        "responses": {"200": {"content": {"application/json": {}, "text/event-stream": {}}}},
    },
)  # fmt: skip
async def upload(
    request: Request,
    name: Annotated[str, Query(description="File name with its extension.", openapi_examples=_SAMPLE_NAME)],
    access: Annotated[
        list[str] | None,
        Query(
            description="Labels of who may read it; those the caller holds. Left out: as before, or the caller alone."
        ),
    ] = None,
) -> Response:
    """Add a document: the body is the file. The same name replaces what the same caller added.

    With `Accept: text/event-stream`: `progress` events (`stage`, `done`, `total`), then `done` with the report, or
    `error` with a problem. Otherwise the report alone.
    """
    service: Service = request.app.state.service
    _may_upload(service.settings)
    service.runs.check_open()
    # Not one of the types that a page of another origin may send without asking first.
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/octet-stream":
        raise InvalidRequest("Send the file as the body, with Content-Type: application/octet-stream.")
    file = Upload(name, owner=identity_of(request), access=access)
    await service.limits.admit(identity_of(request).caller)
    data = await _body(request, service.settings)
    if "text/event-stream" not in request.headers.get("accept", ""):
        return JSONResponse(asdict(await _ingest(service, file, data)))
    return EventSourceResponse(_events(service, file, data))


@router.delete(UPLOADS, status_code=204)
async def forget_upload(request: Request, name: Annotated[str, Query(openapi_examples=_SAMPLE_NAME)]) -> Response:
    """Forget a document that the caller uploaded, its file included."""
    service: Service = request.app.state.service
    _may_upload(service.settings)
    await remove_upload(service.index, service.settings, Upload(name, owner=identity_of(request)))
    return Response(status_code=204)


async def _ingest(
    service: Service, file: Upload, data: UploadFile, embedded: Callable[[int, int], None] | None = None
) -> FileReport:
    try:
        with service.runs.other(), paid_by(service.limits, file.owner.caller), _alone(service, file.owner.caller):
            return await ingest_upload(service.index, service.settings, file, data.file, embedded=embedded)
    finally:
        await data.close()


@contextmanager
def _alone(service: Service, caller: str) -> Iterator[None]:
    """One document of a caller's at a time: each is read by a process of its own, with gigabytes allowed to it."""
    if caller in service.uploading:
        raise IngestBusy("Another document of yours is being added. Send them one after the other.")
    service.uploading.add(caller)
    try:
        yield
    finally:
        service.uploading.discard(caller)


async def _events(service: Service, file: Upload, data: UploadFile) -> AsyncIterator[dict[str, str]]:
    events: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def embedded(done: int, total: int) -> None:  # called from the embedder's thread
        loop.call_soon_threadsafe(events.put_nowait, (done, total))

    async def run() -> FileReport:
        try:
            return await _ingest(service, file, data, embedded)
        finally:
            loop.call_soon_threadsafe(events.put_nowait, None)  # behind what the other thread has said

    yield _event("progress", {"stage": "reading"})
    work = asyncio.create_task(run())
    try:
        while (progress := await events.get()) is not None:
            yield _event("progress", {"stage": "embedding", "done": progress[0], "total": progress[1]})
        yield _event("done", asdict(await work))
    except Exception as exc:  # noqa: BLE001  # the response has begun: only the stream can say it
        yield _event("error", to_problem(exc).model_dump(exclude_none=True))
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await work


def _event(name: str, body: dict[str, Any]) -> dict[str, str]:
    return {"event": name, "data": orjson.dumps(body).decode()}


async def _body(request: Request, settings: Settings) -> UploadFile:
    """The body, on disk as soon as it is large, so that many slow uploads do not fill the memory."""
    held = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(settings.data_dir))  # noqa: SIM115  # closed by who gets it
    data = UploadFile(cast("BinaryIO", held), size=0)
    try:
        async for piece in request.stream():
            with storing():
                await data.write(piece)
            if (data.size or 0) > settings.max_source_bytes:
                raise BodyTooLarge(f"The file has more than {settings.max_source_bytes:,} bytes.")
        await data.seek(0)
    except BaseException:
        await data.close()
        raise
    return data


def _may_upload(settings: Settings) -> None:
    if settings.uploads == "off":
        raise NotAuthorized("Documents cannot be added here; the operator sets CITEWELL_UPLOADS=on to allow it.")
