"""A run's events as entries of the journal, and back.

The first entry of a run is its head: `thread` and `caller`. Each of the others has pieces of the answer in `said` and in `n`
how many came before; the last one also has the `result` or the `fault`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson
import structlog

from citewell.errors import CheckpointError, CitewellError, every_kind
from citewell.runs.run import Result, Run
from citewell.threads.journal import Journal

TICK_S = 0.25
"""Time between two entries of a run, in seconds. Each costs a round trip, and listeners do not wait for it: the journal is for
clients that come back."""
log = structlog.get_logger()


async def write(journal: Journal, run: Run, *, ttl_s: float) -> None:
    """Write a run to the journal until it ends. When Redis cannot be reached, the run goes on without a journal."""
    try:
        first = await journal.add(run.run_id, b"", _head(run), ttl_s=ttl_s)
        n = 0
        while first is not None:
            await asyncio.wait([run.task], timeout=TICK_S)
            is_over, said = run.task.done(), run.said[n:]
            if said or is_over:
                if await journal.add(run.run_id, first, _entry(run, n, said, is_over), ttl_s=ttl_s) is None:
                    return  # the conversation was deleted
                n += len(said)
            if is_over:
                return
    except CheckpointError as exc:
        log.warning("journal.failed", code=exc.code)


def _head(run: Run) -> bytes:
    return orjson.dumps({"thread": run.thread_id, "caller": run.caller})


def _entry(run: Run, n: int, said: Sequence[str], is_over: bool) -> bytes:
    entry: dict[str, Any] = {"n": n, "said": said}
    if is_over:
        entry |= {"fault": _fault(fault)} if (fault := run.fault) else {"result": asdict(run.task.result())}
    return orjson.dumps(entry, option=orjson.OPT_NON_STR_KEYS)


def _fault(exc: BaseException) -> dict[str, Any]:
    if not isinstance(exc, CitewellError):  # logged by the run; its text is not for callers
        return {"code": CitewellError.code, "detail": CitewellError.title}
    return {"code": exc.code, "detail": exc.detail, "retry_after_s": exc.retry_after_s}


def revive(fault: dict[str, Any]) -> CitewellError:
    """The exception that was raised in another process."""
    kind = _KINDS.get(fault["code"], CitewellError)
    exc = kind.__new__(kind)  # some classes take other arguments than the text
    CitewellError.__init__(exc, fault["detail"], retry_after_s=fault.get("retry_after_s"))
    return exc


def result(entry: dict[str, Any]) -> Result:
    """The result of a last entry."""
    return Result(**entry["result"])


_KINDS = {kind.code: kind for kind in every_kind()}
