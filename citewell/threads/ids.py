"""Ids of checkpoints that come after those there are, whatever the clock says.

LangGraph draws a checkpoint's id from the clock, and a thread's newest checkpoint is the one with the largest id. So what is said would be
lost in a process whose clock is behind that of the process before it: on another machine, or on the same one after its clock was set back.
"""

from __future__ import annotations

import contextlib

from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.base import id as drawing

_FAR = 1 << 59
"""Some 1,700 years on, in the 100 ns that ids count: half of what they have room for. After its end they would begin anew."""


def draw_after(checkpoint: Checkpoint) -> None:
    """Let every id that this process draws from now on come after this checkpoint's."""
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):  # one of somebody else's making
        found = drawing.UUID(checkpoint["id"])
        if found.version == 6 and found.time < _FAR:
            drawing._last_v6_timestamp = max(drawing._last_v6_timestamp or 0, found.time)  # type: ignore[assignment]
