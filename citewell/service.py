"""The service behind every door: turns, searches and conversations.

One compiled graph, one run per thread at a time, a deadline for each turn, and a run that ends when the client that waits for it
leaves, unless it is kept.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing, suppress
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
from citewell.runs.turnstile import Turnstile
from citewell.threads import Policy, ThreadInfo, Threads, milestones_only
from citewell.threads.journal import new_run_id
from graph.events import Event, at_end, at_model, listener
from graph.parts import Parts
from graph.state import RunContext, check_context
from graph.transcript import answer_message, token_counts

Graph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]

__all__ = ["Result", "SearchResult", "Service", "Transcript", "Turn"]

STOP_WITHIN_S = 8.0
"""Longest wait for a run to end that was asked to stop, in seconds. A process that died frees its threads after five."""
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
    """The earlier messages, from callers that keep their own transcript; such a turn is not remembered."""
    run_id: str
    is_kept: bool = False
    """Whether the run goes on when its client leaves and can be resumed."""

    @property
    def stored_id(self) -> str:
        """The id under which the thread is stored and locked, which no other caller's thread can have."""
        return bind(self.context.caller, self.thread_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A whole conversation."""

    messages: list[BaseMessage]
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found."""

    chunks: list[ScoredChunk]
    """The chunks that a turn would have been answered from, best first."""
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
        self.uploading: set[str] = set()
        """Callers of whom a document is being added."""
        self._stateless = stateless
        self._turnstile = Turnstile()
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
        """Check all that can be checked before a turn runs.

        Raises:
            InvalidRequest: The question, the thread's id or an option cannot be used; the message names it.
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
            raise not_offered(self.settings.offered_models)
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
            config: The caller's callbacks, tags and metadata; its `configurable` is replaced.

        Raises:
            CitewellError: The turn failed; its question is in the thread nevertheless.
        """
        run = Run(turn.run_id, turn.stored_id, turn.context.caller, is_kept=turn.is_kept)
        self.runs.start(run, self._answer(turn, config or {}, run))
        async with self.runs.following(run) as events:
            async for event in events:
                yield event

    async def resume(self, caller: str, run_id: str, after: int) -> AsyncGenerator[str | Result, None]:
        """The events of one of the caller's runs after number `after`, see `Runs.resume`.

        Raises:
            ResumeOff: By the settings, runs end with the connection.
            RunNotFound: There is no such run, it ended too long ago, or it is another caller's.
        """
        if self.settings.on_disconnect == "cancel":
            raise ResumeOff(
                "This service ends an answer when the connection to its client drops (CITEWELL_ON_DISCONNECT=cancel). "
                "Ask again."
            )
        return await self.runs.resume(caller, run_id, after)

    async def stop(self, caller: str, thread_id: str, run_id: str = "") -> bool:
        """Stop the run of a conversation of the caller's, in whichever process it is, and wait until it has ended. What it had
        said so far stays in the conversation, marked as stopped.

        Args:
            caller: Whose conversation it is.
            thread_id: The conversation.
            run_id: Stop only this run; empty: whichever is running.

        Returns:
            Whether there was such a run.

        Raises:
            ThreadNotFound: The caller has no such conversation.
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

    async def search(self, turn: Turn) -> SearchResult:
        """Find passages as a turn would, guards and the limit on requests included, and stop before an answer is made.

        Raises:
            CitewellError: The search failed.
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
                            return SearchResult(chunks=[], trace={}, blocked=blocked)
                        if found := update.get("rerank"):
                            return SearchResult(chunks=found["sources"], trace=found["metadata"]["trace"])
        except TimeoutError as exc:
            raise TurnTimeout(f"The search took longer than {self.settings.turn_timeout_s:g} s.") from exc
        raise AssertionError("a search ends at the guards or at the reranker")

    async def transcript(self, caller: str, thread_id: str) -> Transcript | None:
        """A whole conversation of the caller's; None where there is none.

        Raises:
            CheckpointError: The threads cannot be read; that never looks like an empty conversation.
        """
        config: RunnableConfig = {"configurable": {"thread_id": _stored(caller, thread_id)}}
        values = (await self.graph.aget_state(config)).values
        if not values.get("messages"):
            return None
        with suppress(CheckpointError):  # a full disk can be read
            await self.threads.touch(_stored(caller, thread_id))  # being read keeps it alive
        return Transcript(messages=values["messages"], summary=values.get("summary", ""))

    async def conversations(self, caller: str, *, limit: int, before: datetime | None = None) -> list[ThreadInfo]:
        """The caller's conversations, the most recently used first."""
        return [_as_given(info) for info in await self.threads.list(caller, limit=limit, before=before)]

    async def conversation(self, caller: str, thread_id: str) -> ThreadInfo:
        """One conversation of the caller's.

        Raises:
            ThreadNotFound: There is none, or it is another caller's; callers cannot tell which.
        """
        info = await self.threads.info(_stored(caller, thread_id))
        if info is None or info.owner != caller:
            raise ThreadNotFound("There is no such conversation, or it has expired.")
        return _as_given(info)

    async def rename(self, caller: str, thread_id: str, title: str) -> ThreadInfo:
        """Change the title of a conversation of the caller's. Raises ThreadNotFound as `conversation` does."""
        await self.conversation(caller, thread_id)
        await self.threads.rename(_stored(caller, thread_id), title)
        return await self.conversation(caller, thread_id)

    async def forget(self, caller: str, thread_id: str) -> None:
        """Delete a conversation of the caller's and every trace of it."""
        stored = _stored(caller, thread_id)
        await self.threads.delete(stored)
        await self.runs.forget(stored)

    def checks(self) -> dict[str, Callable[[], Awaitable[dict[str, Any]]]]:
        """The checks of readiness by name; each raises a CitewellError where its part cannot be used."""
        return {"index": self._check_index, "threads": self._check_threads, "model": self._check_model}

    async def _check_index(self) -> dict[str, Any]:
        await self.index.ping()
        return await self.index.stats()

    async def _check_threads(self) -> dict[str, Any]:
        await self.threads.ping()
        return {"store": "redis" if self.settings.redis_url else "sqlite"}

    async def _check_model(self) -> dict[str, Any]:
        # An open circuit does not make an instance unready: retrieval, quotations and other models still work.
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
        """Store what was said so far in the thread, its citations unchecked, and return it as the turn's outcome."""
        metadata = {"answerer": "stopped", "stopped": True, "finish_reason": "stopped"}
        if answer:
            reply = answer_message(answer, [], metadata)
            await self.graph.aupdate_state({"configurable": held}, {"messages": [reply]}, as_node="verify")
        return {"answer": answer, "citations": [], "usage": token_counts(), "metadata": metadata}

    async def _drive(
        self, graph: Graph, state: dict[str, Any], turn: Turn, config: RunnableConfig, held: dict[str, Any],
        hear: Callable[[Event], None],
    ) -> dict[str, Any]:  # fmt: skip
        # The caller's callbacks see the thread's id as the caller knows it.
        watched = {**(config.get("metadata") or {}), "thread_id": turn.thread_id}
        config = {**config, "metadata": watched, "configurable": {"thread_id": turn.stored_id, **held}}
        listener.set(hear)  # for this task and those the graph starts from it
        leave = await self._turnstile.enter()
        with ExitStack() as ending, milestones_only():
            ending.callback(leave)
            at_end.set(ending)
            at_model.set(leave)
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
