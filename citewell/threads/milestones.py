"""Which checkpoints of a run are stored: those that add to the transcript.

LangGraph makes one after every step, so that a run can be taken up again where it was. A turn never is: what its steps hand on
(candidates, chosen chunks) is not stored, and whoever asks again begins a new one. So only those are worth a round trip that
hold something of the conversation: the one with the question, and the one with the answer. That is 2 in place of 7, and
4 ms less of a turn's processor time on Redis. See ADR 0019.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions, Checkpoint, CheckpointMetadata

TRANSCRIPT = "messages"


@dataclass
class _Run:
    """What was left out since the last checkpoint that was stored."""

    first: RunnableConfig | None = None
    """What the first of them was to be stored with, which names the one before it; None: none was left out."""
    changed: ChannelVersions = field(default_factory=dict)
    """Channels with values that are new since then."""


_run: ContextVar[_Run | None] = ContextVar("milestones", default=None)


@contextmanager
def milestones_only() -> Iterator[None]:
    """In this block, and in tasks that are made in it, one run is driven, over a saver that is `Milestones`."""
    token = _run.set(_Run())
    try:
        yield
    finally:
        _run.reset(token)


class Milestones(BaseCheckpointSaver[Any]):  # Any: the base class is generic over its version type
    """Put before a saver's class: stores what adds to the transcript, within `milestones_only`; everything, elsewhere."""

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        if (run := _run.get()) is None:
            return await super().aput(config, checkpoint, metadata, new_versions)
        run.first, run.changed = run.first or config, run.changed | new_versions
        if TRANSCRIPT not in new_versions:
            return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint["id"]}}
        stored = await super().aput(run.first, checkpoint, metadata, run.changed)
        run.first, run.changed = None, {}
        return stored

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Those of a step serve to take it up again."""
        if _run.get() is None:
            await super().aput_writes(config, writes, task_id, task_path)
