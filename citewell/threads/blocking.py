"""The synchronous methods of a saver that works asynchronously.

On an event loop, use the `a...` methods. From a thread without one, the methods here hand the work to the loop on which the saver was
opened: the service's or, after a plain `with`, one of the saver's own in a background thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

T = TypeVar("T")


class BlockingSaver(BaseCheckpointSaver[Any]):
    """Base of a saver that implements the asynchronous methods."""

    def __init__(self, *, serde: SerializerProtocol) -> None:
        super().__init__(serde=serde)
        self._loop = asyncio.get_running_loop()

    async def asetup(self) -> None:
        """Get ready; nothing has to be created on the server."""

    async def aclose(self) -> None:
        """Close the connections."""
        raise NotImplementedError

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            work.close()
            raise asyncio.InvalidStateError(
                "This call would block the event loop the saver works on. Use the asynchronous method "
                "(`aget_tuple`, `aput`, ...; `graph.ainvoke`, `graph.aget_state`, ...)."
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        found = self.alist(config, filter=filter, before=before, limit=limit)
        try:
            while True:
                try:
                    yield self._wait(_next(found))
                except StopAsyncIteration:
                    return
        finally:
            self._wait(_end(found))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        self._wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._wait(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._wait(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._wait(self.aprune(thread_ids, strategy=strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._wait(self.aget_delta_channel_history(config=config, channels=channels))


async def _next(found: AsyncIterator[CheckpointTuple]) -> CheckpointTuple:
    return await anext(found)


async def _end(found: AsyncIterator[CheckpointTuple]) -> None:
    if hasattr(found, "aclose"):
        await found.aclose()


S = TypeVar("S", bound=BlockingSaver)


class Opening(Generic[S]):
    """A saver that is open during an `async with` or `with` block."""

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make

    async def __aenter__(self) -> S:
        self._saver = self._make()
        await self._saver.asetup()
        return self._saver

    async def __aexit__(self, *_: object) -> None:
        await self._saver.aclose()

    def __enter__(self) -> S:
        self._own = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._own.run_forever, name="citewell-threads", daemon=True)
        self._thread.start()
        try:
            self._saver = asyncio.run_coroutine_threadsafe(self.__aenter__(), self._own).result()
        except BaseException:
            self._stop()
            raise
        return self._saver

    def __exit__(self, *_: object) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self.__aexit__(), self._own).result()
        finally:
            self._stop()

    def _stop(self) -> None:
        self._own.call_soon_threadsafe(self._own.stop)
        self._thread.join()
        with contextlib.suppress(RuntimeError):
            self._own.close()
