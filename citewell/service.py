"""Run turns: what every door calls.

One compiled graph, one run per thread at a time, a deadline for the turn, and a run that ends when whoever waits for
it goes away.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias, cast
from uuid import uuid4

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from citewell import telemetry
from citewell.documents import ScoredChunk
from citewell.errors import CheckpointError, InvalidRequest, ResumeOff, RunReplaced, ThreadNotFound, TurnTimeout
from citewell.identity import bind, given_id
from citewell.models.chat import not_offered
from citewell.questions import check_history, check_question, check_thread_id
from citewell.retrieval import filters
from citewell.runs import Result, Run, Runs
from citewell.threads import Policy, ThreadInfo, Threads, milestones_only
from citewell.threads.journal import new_run_id
from graph.events import Event, at_end, listener
from graph.parts import Parts
from graph.state import RunContext, check_context
from graph.transcript import answer_message, token_counts

Graph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]

__all__ = ["Found", "Result", "Service", "Transcript", "Turn"]

STOP_WITHIN_S = 8.0
"""Longest that a call to stop a run waits for its end: a process that died frees its thread within five."""
STOP_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One question, checked and ready to run."""

    question: str
    thread_id: str
    """As the caller knows it."""
    context: RunContext
    policy: Policy | None = None
    history: Sequence[BaseMessage] | None = None
    """Given by callers that keep their own transcript; such a turn is not remembered."""
    run_id: str
    is_kept: bool = False
    """Whether the run goes on when its client leaves, and can be resumed."""

    @property
    def stored_id(self) -> str:
        """The thread as it is stored and locked: the caller's own, whatever id was given."""
        return bind(self.context.caller, self.thread_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A conversation as it stands in its thread."""

    messages: list[BaseMessage]
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came upon."""

    chunks: list[ScoredChunk]
    """What a turn would have been answered from, best first."""
    trace: dict[str, Any]
    blocked: str | None = None
    """The rule that refused the question."""


class Service:
    """The compiled graph, the threads and the index, behind the calls that doors make."""

    def __init__(self, parts: Parts, threads: Threads, *, graph: Graph, stateless: Graph) -> None:
        """Args:
        parts: What the graphs were built over.
        threads: Where conversations are kept.
        graph: Compiled with the threads' checkpointer.
        stateless: The same without one, for turns that are not remembered.
        """
        self.settings = parts.settings
        self.index = parts.index
        self.limits = parts.limits
        self.circuits = parts.models.circuits
        self.threads = threads
        self.graph = graph
        self.runs = Runs(threads, keep_s=self.settings.resume_s, longest_s=self.settings.turn_timeout_s)
        self._stateless = stateless
        self._guards = parts.guards

    def prepare(
        self,
        question: object,
        *,
        thread_id: object = None,
        context: RunContext | None = None,
        policy: str | None = None,
        history: Sequence[BaseMessage] | None = None,
    ) -> Turn:
        """Check everything that can be checked before anything runs.

        Raises:
            InvalidRequest: The question, the id or an option cannot be used; the message names it.
            Draining: The process is shutting down.
        """
        self.runs.check_open()
        context = context or RunContext()
        text = check_question(question, limit=self.settings.max_question_chars)
        given = check_thread_id(thread_id)
        check_history(message.text for message in history or ())
        if policy not in (None, "queue", "reject", "replace"):
            raise InvalidRequest("The thread policy must be queue, reject or replace.")
        if context.chat_model is not None and context.chat_model not in self.settings.offered_models:
            raise not_offered(self.settings)
        check_context(context)
        if context.filter:
            filters.parse(context.filter)
        thread_id = given or str(uuid4())
        return Turn(
            question=text, thread_id=thread_id, context=context, policy=cast("Policy | None", policy), history=history,
            run_id=new_run_id(bind(context.caller, thread_id)),
            is_kept=self.settings.on_disconnect == "continue" and history is None,
        )  # fmt: skip

    async def stream(self, turn: Turn, config: RunnableConfig | None = None) -> AsyncGenerator[str | Result, None]:
        """Run a turn: the answer's pieces as they come, then the result.

        The pieces joined are `Result.answer`. Closing the iterator cancels a run that is not kept.

        Args:
            turn: From `prepare`.
            config: Callbacks, tags and metadata of whoever calls; `configurable` is ours.

        Raises:
            CitewellError: What stopped the turn; the question is in the thread all the same.
        """
        run = Run(turn.run_id, turn.stored_id, turn.context.caller, is_kept=turn.is_kept)
        self.runs.start(run, self._answer(turn, config or {}, run))
        async with self.runs.following(run) as events:
            async for event in events:
                yield event

    async def resume(self, caller: str, run_id: str, after: int) -> AsyncGenerator[str | Result, None]:
        """Go on with a run of the caller's whose events up to number `after` have arrived.

        Raises:
            ResumeOff: Runs end with the connection here.
            RunNotFound: There is none, it has been over for too long, or it is another caller's.
        """
        if self.settings.on_disconnect == "cancel":
            raise ResumeOff(
                "This service ends an answer when the connection to its client drops (CITEWELL_ON_DISCONNECT=cancel). "
                "Ask again."
            )
        return await self.runs.resume(caller, run_id, after)

    async def stop(self, caller: str, thread_id: str, run_id: str = "") -> bool:
        """End the turn of the caller's conversation that is being answered, in whichever process, and wait until it
        has. What it had said stays in the conversation, marked as stopped.

        Args:
            run_id: Only if this is the one; empty: whichever it is.

        Returns:
            Whether there was one.

        Raises:
            ThreadNotFound: There is no such conversation of the caller's.
        """
        await self.conversation(caller, thread_id)
        stored = _stored(caller, thread_id)
        if (ticket := await self.threads.stop(stored, run_id)) is None:
            return False
        deadline = time.monotonic() + STOP_WITHIN_S
        while time.monotonic() < deadline and await self.threads.lives(stored, ticket):  # noqa: ASYNC110  # it may end elsewhere
            await asyncio.sleep(STOP_POLL_S)
        return True

    async def ask(self, turn: Turn, config: RunnableConfig | None = None) -> Result:
        """Run a turn to its end."""
        async with aclosing(self.stream(turn, config)) as events:
            async for event in events:
                if isinstance(event, Result):
                    return event
        raise AssertionError("a turn ends with its result or an error")

    async def search(self, turn: Turn) -> Found:
        """Find passages as a turn would, guards and the limit on requests included, and stop before an answer is made.

        Raises:
            CitewellError: What stopped the search.
        """
        context = replace(turn.context, trace=True)
        state = {"question": turn.question, "messages": []}
        try:
            async with asyncio.timeout(self.settings.turn_timeout_s):
                await self.limits.admit(turn.context.caller)
                stream = self._stateless.astream(state, context=context, stream_mode="updates")
                async with aclosing(cast("AsyncGenerator[dict[str, Any], None]", stream)) as updates:
                    async for update in updates:
                        if blocked := (update.get("screen") or {}).get("blocked"):
                            return Found(chunks=[], trace={}, blocked=blocked)
                        if found := update.get("rerank"):
                            return Found(chunks=found["sources"], trace=found["metadata"]["trace"])
        except TimeoutError as exc:
            raise TurnTimeout(f"The search took longer than {self.settings.turn_timeout_s:g} s.") from exc
        raise AssertionError("a search ends at the guards or at the reranker")

    async def transcript(self, caller: str, thread_id: str) -> Transcript | None:
        """The caller's whole conversation; None when there is none.

        Raises:
            CheckpointError: The threads cannot be read. Never mistaken for an empty conversation.
        """
        config: RunnableConfig = {"configurable": {"thread_id": _stored(caller, thread_id)}}
        values = (await self.graph.aget_state(config)).values
        if not values.get("messages"):
            return None
        await self.threads.touch(_stored(caller, thread_id))  # who reads it wants it, in the list of threads too
        return Transcript(messages=values["messages"], summary=values.get("summary", ""))

    async def conversations(self, caller: str, *, limit: int, before: datetime | None = None) -> list[ThreadInfo]:
        """The caller's conversations, the one used last first."""
        return [_as_given(info) for info in await self.threads.list(caller, limit=limit, before=before)]

    async def conversation(self, caller: str, thread_id: str) -> ThreadInfo:
        """One conversation of the caller's.

        Raises:
            ThreadNotFound: There is none, or it is another caller's, which is not told apart.
        """
        info = await self.threads.info(_stored(caller, thread_id))
        if info is None or info.owner != caller:
            raise ThreadNotFound("There is no such conversation, or it has expired.")
        return _as_given(info)

    async def rename(self, caller: str, thread_id: str, title: str) -> ThreadInfo:
        """Give a conversation of the caller's another title. Raises ThreadNotFound as `conversation` does."""
        await self.conversation(caller, thread_id)
        await self.threads.rename(_stored(caller, thread_id), title)
        return await self.conversation(caller, thread_id)

    async def forget(self, caller: str, thread_id: str) -> None:
        """Delete every trace of a conversation of the caller's."""
        stored = _stored(caller, thread_id)
        await self.threads.delete(stored)
        await self.runs.forget(stored)

    def checks(self) -> dict[str, Callable[[], Awaitable[dict[str, Any]]]]:
        """What readiness looks at, by name; each call raises a CitewellError when its part cannot be used."""
        return {"index": self._check_index, "threads": self._check_threads, "model": self._check_model}

    async def _check_index(self) -> dict[str, Any]:
        await self.index.ping()
        return await self.index.stats()

    async def _check_threads(self) -> dict[str, Any]:
        await self.threads.ping()
        return {"store": "redis" if self.settings.redis_url else "sqlite"}

    async def _check_model(self) -> dict[str, Any]:
        # An open circuit is no reason to take an instance out of service: retrieval, quotes and other models go on.
        return {"name": self.settings.chat_model, "circuits": self.circuits.states()}

    async def _answer(self, turn: Turn, config: RunnableConfig, run: Run) -> Result:
        stages: dict[str, float | str] = {}
        with telemetry.turn(turn.thread_id) as record:

            def hear(event: Event) -> None:
                if "token" in event:
                    record.token()
                    run.say(str(event["token"]))
                elif "stage" in event:
                    stages[str(event["stage"])] = event["ms"]

            final = await self._run(turn, config, hear, run.said)
            metadata = final["metadata"] | {"stages_ms": stages}
            record.end(metadata, final["usage"])
        return Result(
            answer=final["answer"],
            citations=final["citations"],
            thread_id=turn.thread_id,
            usage=final["usage"],
            metadata=metadata,
        )

    async def _run(
        self, turn: Turn, config: RunnableConfig, hear: Callable[[Event], None], said: Sequence[str]
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self.settings.turn_timeout_s) as deadline:
                await self.limits.admit(turn.context.caller)
                if turn.history is not None:
                    return await self._drive(self._stateless, {"messages": list(turn.history)}, turn, config, {}, hear)
                async with self.threads.turn(turn.stored_id, turn.policy, turn.run_id) as held:
                    title = await self._guards.keepable(turn.question)
                    await self.threads.record(turn.stored_id, turn.context.caller, title, ticket=held.ticket)
                    running = asyncio.create_task(self._drive(self.graph, {}, turn, config, held.config, hear))
                    lost = asyncio.create_task(held.lost.wait())
                    try:
                        await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        lost.cancel()
                        if not running.done():
                            running.cancel()
                            await asyncio.wait([running])
                    if running.cancelled():
                        if held.stopped:
                            return await self._keep_stopped(held.config, "".join(said))
                        if held.is_cut_off:
                            raise CheckpointError(
                                "The store that keeps the conversations could not be reached for too long."
                            )
                        raise RunReplaced()
                    return running.result()
        except TimeoutError as exc:
            if deadline.expired():
                raise TurnTimeout(f"The answer took longer than {self.settings.turn_timeout_s:g} s.") from exc
            raise

    async def _keep_stopped(self, held: dict[str, str], answer: str) -> dict[str, Any]:
        """Put what was said into the thread, unchecked, and make a turn's outcome of it."""
        metadata = {"answerer": "stopped", "stopped": True, "finish_reason": "stopped"}
        if answer:
            reply = answer_message(answer, [], metadata)
            await self.graph.aupdate_state({"configurable": held}, {"messages": [reply]}, as_node="verify")
        return {"answer": answer, "citations": [], "usage": token_counts(), "metadata": metadata}

    async def _drive(
        self, graph: Graph, state: dict[str, Any], turn: Turn, config: RunnableConfig, held: dict[str, Any],
        hear: Callable[[Event], None],
    ) -> dict[str, Any]:  # fmt: skip
        # Whoever watches the run sees the thread's id as the caller knows it.
        watched = {**(config.get("metadata") or {}), "thread_id": turn.thread_id}
        config = {**config, "metadata": watched, "configurable": {"thread_id": turn.stored_id, **held}}
        listener.set(hear)  # for this task and those the graph starts from it
        with ExitStack() as ending, milestones_only():
            at_end.set(ending)
            final = await graph.ainvoke(
                state | {"question": turn.question},
                config,
                context=turn.context,
                output_keys=["answer", "citations", "usage", "metadata"],
                durability="async",
            )
        return cast("dict[str, Any]", final)


def _stored(caller: str, thread_id: str) -> str:
    return bind(caller, check_thread_id(thread_id) or "")


def _as_given(info: ThreadInfo) -> ThreadInfo:
    return replace(info, thread_id=given_id(info.thread_id))
