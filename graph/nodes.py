"""The nodes: each takes the state and the run's context and returns a partial update.

A node owns no retry loop, never mutates the state and can be called with a plain dictionary. What a client watches
as it happens goes through `graph.events`.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import END
from langgraph.runtime import Runtime

from chains import condense, expand, small_talk, summarize
from chains.compound import interleaved, singles
from chains.condense import CondenseInput, condense_rule, refers
from chains.evidence import is_about
from chains.expand import ExpandInput, wordings
from chains.extract import not_in_documents
from chains.prompts import AnswerInput
from chains.simple import is_simple
from chains.small_talk import is_small_talk
from chains.summarize import summarize_rule, summary_input, to_fold
from citewell.citations import Citation, requoted, unmarked, verify
from citewell.citations.review import review_reasons
from citewell.documents import ScoredChunk
from citewell.errors import CitewellError, SourceNotFound
from citewell.models.payer import paid_by
from citewell.questions import check_question
from citewell.retrieval import Trace, filters
from citewell.retrieval.trace import joined
from citewell.telemetry import tracing
from graph.answering import Answering
from graph.calls import Calls, Order
from graph.earlier import guarded
from graph.events import at_end, emit
from graph.parts import Parts
from graph.recall import Recall
from graph.state import Found, Hits, RunContext, State, check_context

LONG_ANSWER: Final = 4000
"""Characters of an answer that is checked off the event loop: ten milliseconds' work. A shorter one is not worth a thread."""


class Nodes:
    """The work of each step, over live parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._calls = Calls(parts)
        self._answering = Answering(parts, self._calls)
        self._recall = Recall(parts, parts.cache) if parts.cache is not None else None

    async def screen(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Check the question, let the guards judge it, and put it into the transcript."""
        with _stage(runtime, "screen"):
            check_context(_context(runtime))
            question = check_question(state.get("question"), limit=self._settings.max_question_chars)
            verdict = await self._parts.guards.screen(question)
            earlier: list[BaseMessage] = []
            if verdict.allowed and self._calls.name(_context(runtime)):  # without a model nobody reads them
                earlier, undecided = await guarded(state.get("messages", ()), self._parts.guards)
                verdict = undecided or verdict
        question = verdict.text or question  # redacted, where the settings ask for it
        asked = HumanMessage(question, id=str(uuid4()), additional_kwargs={"created_at": _now()})
        if verdict.allowed:
            withheld = sum(map(_is_blocked, earlier))
            return {"messages": [*earlier, asked], "blocked": "", "withheld": withheld}
        # A blocked question is an outcome, not an exception: the caller gets an answer that names the rule.
        answer = f"I can't answer that ({verdict.rule}): {verdict.reason}"
        emit(runtime, {"token": answer})
        metadata = {"answerer": "guard", "blocked": verdict.rule, "finish_reason": "blocked"}
        asked.additional_kwargs["blocked"] = verdict.rule
        return {
            "messages": [asked, _reply(answer, [], metadata, None) ],
            "blocked": verdict.rule, "answer": answer, "citations": [], "usage": _no_usage(), "metadata": metadata,
        }  # fmt: skip

    def after_screen(self, state: State) -> list[str]:
        """Where to go from `screen`; pure."""
        if state.get("blocked"):
            return [END]
        is_long = self._fold(state) > 0
        # An answer from the cache ends the run, which must not be while a summary is written beside it.
        search = "retrieve" if self._recall is None or is_long else "recall"
        steps = ["condense" if len(_talk(state)) > 1 else search]
        if is_long:
            steps.append("summarize")
        return steps

    async def condense(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Turn a follow-up into a question that stands alone."""
        with _stage(runtime, "condense"):
            *history, asked = _talk(state)
            recent = self._recent(history)
            standalone = await asyncio.to_thread(condense_rule, asked.text, recent)  # reads its word list at first use
            # The rule leaves a question alone that needs no context; then there is nothing to ask a model either, where
            # the rule can read it.
            context = _context(runtime)
            is_settled = standalone == asked.text and self._settings.language == "english"
            update: dict[str, Any] = {"standalone": standalone}
            if self._calls.name(context) and not is_settled:
                given = CondenseInput(question=asked.text, history=recent)
                written, update["condense_call"] = await self._written(context, condense.PROMPT, given)
                if written is not None:
                    return update | {"standalone": written.strip() or asked.text}
            # The rule cannot always tell a follow-up from a short question about something else.
            return update if standalone == asked.text else update | {"typed": asked.text}

    async def recall(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Give the answer that was given before, where everything it would be made from is the same."""
        assert self._recall is not None
        context = _context(runtime)
        *history, asked = _talk(state)
        question = state.get("standalone") or asked.text
        # who asks why wants it looked for; a summary under way is not there yet
        if context.trace or state.get("folded"):
            return {"standalone": question}
        with _stage(runtime, "recall"):
            view = await self._recall.view(context)
            known = cast("State", {**state, "standalone": question})
            key = self._recall.key(known, context, self._recent(history), asked=asked.text, view=view)
            kept = await self._recall.cache.find(key, at_end.get())
            pieces = await self._recall.pieces(kept, context) if kept else None
        if kept is None or pieces is None:
            return {"standalone": question, "recalled": (key, view)}
        for piece in pieces:
            if piece:
                emit(runtime, {"token": piece})
        about = {"cached": True, "cached_at": kept["at"]}
        metadata = kept["metadata"] | about | _withheld(state) | _calls(state, None)
        return {
            "messages": [_reply(kept["answer"], kept["citations"], metadata, _no_usage())], "cited": kept["cited"],
            "answer": kept["answer"], "citations": kept["citations"], "usage": _no_usage(), "metadata": metadata,
        }  # fmt: skip

    def after_recall(self, state: State) -> str:
        """Where to go from `recall`; pure."""
        return END if "answer" in state else "retrieve"

    async def retrieve(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Search by meaning and by words side by side, within what the caller may read."""
        context = _context(runtime)
        question = state.get("standalone") or _talk(state)[-1].text
        access = None if context.access is None else frozenset(context.access)

        async def search(wording: str, most: int, trace: Trace | None = None) -> list[ScoredChunk]:
            return await self._parts.retriever.search(
                wording, candidates=most, where=context.filter, access=access, trace=trace
            )

        with _stage(runtime, "retrieve"), paid_by(self._parts.limits, context.caller):
            typed = state.get("typed", question)
            wordings = [question] if typed == question or refers(typed) else [question, typed]
            hits = []
            for wording in wordings:
                found = []
                for single in singles(wording, typed):
                    trace = Trace() if context.trace else None
                    candidates = await search(single.question, self._settings.candidates, trace)
                    found.append(Found(single.question, candidates, trace))
                hits.append(Hits(wording, found))
            # How well further candidates answer is judged by the question as it was asked.
            further = []
            said = await self._reworded(context, question)
            for wording in said.get("wordings", ()):
                further += await search(wording, self._settings.candidates // 2)
            # What the last answer cited stays in the running, so that "and the second one?" finds it.
            cited = state.get("cited", ()) if len(_talk(state)) > 1 else ()
            if cited:
                tree = filters.parse(context.filter)
                further += [
                    ScoredChunk(chunk=chunk, score=0.0)
                    for chunk in await self._parts.retriever.chunks(cited)
                    if (access is None or not access.isdisjoint(chunk.access))
                    and (tree is None or filters.holds(tree, chunk))
                ]
            for one in hits[0].singles:
                known = {scored.chunk.id for scored in one.candidates}
                new = {scored.chunk.id: scored.chunk for scored in further if scored.chunk.id not in known}
                one.candidates.extend(ScoredChunk(chunk=chunk, score=0.0) for chunk in new.values())
        return {"standalone": question, "hits": hits, **said}

    async def _reworded(self, context: RunContext, question: str) -> dict[str, Any]:
        """Other wordings of the question by a chat model, where the settings ask for some and there is a model."""
        most = self._settings.query_variants
        if not most or not self._calls.name(context):
            return {}
        written, call = await self._written(context, expand.PROMPT, ExpandInput(question=question, count=most))
        said = wordings(written or "", question, most=most, longest=self._settings.max_question_chars)
        return {"wordings": said, "expand_call": call}

    async def rerank(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Order the candidates by late interaction (or a cross-encoder) and let the guards see what is kept."""
        top_k = _context(runtime).top_k or self._settings.top_k
        with _stage(runtime, "rerank"):
            looked = []
            for one in state["hits"]:
                rankings = [
                    await self._parts.retriever.rerank(
                        single.question, single.candidates, top_k=top_k, trace=single.trace
                    )
                    for single in one.singles
                ]
                looked.append((one, interleaved(rankings, top_k)))
            if len(looked) > 1:  # a follow-up, or about something else: the documents tell
                typed = state["typed"]
                looked = [one for one in looked if one[0].question == typed or is_about(typed, one[1])]
                looked.sort(key=lambda one: -self._parts.evidence.confidence(one[0].question, one[1]))
            hits, ranked = looked[0]
            kept, quarantined = await self._parts.guards.screen_chunks(ranked)
        found = {scored.chunk.id for single in hits.singles for scored in single.candidates}
        metadata: dict[str, Any] = {
            "retrieved": len(found), "kept": len(kept), "quarantined": len(quarantined),
            "index": self._parts.retriever.generation, "cached": False,
        } | _withheld(state)  # fmt: skip
        if said := state.get("wordings"):
            metadata["wordings"] = said
        if traces := [single.trace for single in hits.singles if single.trace is not None]:
            metadata["trace"] = joined(traces, [scored.chunk.id for scored in ranked]).as_dict() | {
                "quarantined": [{"id": scored.chunk.id, "rule": verdict.rule} for scored, verdict in quarantined]
            }
        return {"standalone": hits.question, "sources": kept, "metadata": metadata}

    async def summarize(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Fold the oldest messages into the running summary."""
        with _stage(runtime, "summarize"):
            fold = self._fold(state)
            done = state.get("summarized", 0)
            old = [message for message in state["messages"][done : done + fold] if not _is_blocked(message)]
            before = state.get("summary", "")
            context = _context(runtime)
            if not self._calls.name(context):
                return {"summary": summarize_rule(before, old), "summarized": done + fold, "folded": True}
            summary, call = await self._written(context, summarize.PROMPT, summary_input(before, old))
            if summary is None:
                summary = summarize_rule(before, old)
            return {"summary": summary, "summarized": done + fold, "folded": True, "summarize_call": call}

    async def generate(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Stream the answer, or say that the documents do not hold one."""
        question, sources, context = state["standalone"], state["sources"], _context(runtime)
        metadata = dict(state["metadata"])
        *history, asked = _talk(state)
        if question != asked.text:
            metadata["standalone_question"] = question
        with _stage(runtime, "generate"), paid_by(self._parts.limits, context.caller):
            confidence = self._parts.evidence.confidence(question, sources) if sources else 0.0
            metadata["confidence"] = round(confidence, 3)
            is_talk = is_small_talk(asked.text) and not self._calls.name(context)
            if is_talk or not sources or not self._parts.evidence.is_supported(confidence):
                said, rule = (small_talk.REPLY, None) if is_talk else await self._none(sources)
                emit(runtime, {"token": said})
                metadata |= {
                    "answerer": "service" if is_talk else "none", "supported": False,
                    "finish_reason": "stop" if is_talk else "no_evidence",
                } | ({"guard": rule} if rule else {}) | _calls(state, None)  # fmt: skip
                return {"answer": said, "usage": _no_usage(), "metadata": metadata}
            order = None
            if self._calls.name(context):
                stands_alone = question == asked.text
                order = self._calls.order(
                    context, is_simple=stands_alone and is_simple(question, confidence=confidence)
                )
            top_n = self._settings.top_n
            given = AnswerInput(
                question=question,
                chunks=sources[:top_n],
                history=self._recent(history),
                summary=state.get("summary", ""),
            )
            if "typed" in state:
                given["typed"] = state["typed"]
            answer = await self._answering(
                context, order, given, asked.text, lambda piece: emit(runtime, {"token": piece})
            )
        if answer.is_written:  # it is checked against what it was written from
            sources = [*answer.chunks, *sources[top_n:]]
        return {
            "answer": "".join(answer.shown), "sources": sources, "usage": _counts(answer.usage),
            "metadata": metadata | answer.metadata() | _calls(state, order),
        }  # fmt: skip

    async def verify(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Match each cited sentence to the text of the chunk it cites, and close the turn."""
        metadata = dict(state["metadata"])
        with _stage(runtime, "verify"):
            shown = state["sources"][: self._settings.top_n] if metadata.get("supported") else []
            # else it has markers throughout, or ends in a guard's words
            is_models = metadata.get("answerer") == "model" and metadata.get("finish_reason") != "blocked"

            def check() -> tuple[list[Citation], dict[str, list[str]]]:
                answer = state["answer"]
                return verify(answer, shown), {"unmarked": unmarked(answer)} if is_models else {}

            # each sentence takes its time, and no other turn waits for them all
            is_long = len(state["answer"]) > LONG_ANSWER
            citations, alone = await asyncio.to_thread(check) if is_long else check()
            await self._name_copies(citations, shown)
            for number, citation in enumerate(citations):
                quote = await self._parts.guards.keepable(citation["quote"])
                if quote != citation["quote"]:
                    citations[number] = citation = requoted(citation, quote)
                if citation["page"] is not None:  # of the chunk so far, and a chunk may run over the end of a page
                    with suppress(SourceNotFound):  # removed meanwhile
                        citation["page"] = await self._parts.retriever.page_at(citation["source"], citation["start"])
        metadata |= alone
        if self._settings.review_below and metadata.get("supported"):
            reasons = review_reasons(metadata, citations, below=self._settings.review_below)
            metadata = metadata | {"needs_review": bool(reasons), "review_reasons": reasons}
        kept = {key: value for key, value in metadata.items() if key != "trace"}  # too much to keep
        reply = _reply(state["answer"], citations, kept, state["usage"])
        cited = list(dict.fromkeys(citation["chunk_id"] for citation in citations if citation["chunk_id"]))
        if self._recall and "recalled" in state and self._recall.is_worth_keeping(state, citations):
            key, view = state["recalled"]
            if await self._recall.view(_context(runtime)) == view:  # else it was made while the documents changed
                about = {
                    name: value for name, value in kept.items() if name not in ("calls", "cached", "earlier_withheld")
                }
                await self._recall.cache.keep(
                    key, answer=state["answer"], citations=[dict(one) for one in citations], metadata=about, cited=cited
                )
        return {"citations": citations, "messages": [reply], "cited": cited, "metadata": metadata}

    async def _written(
        self, context: RunContext, prompt: ChatPromptTemplate, given: Mapping[str, Any]
    ) -> tuple[str | None, dict[str, Any]]:
        """What a model writes that is no answer, None where it fails and the settings let a rule stand in; and how the call
        went."""
        order = self._calls.order(context)
        try:
            # It is stored and shown too, with a question's way through the graph.
            written = await self._parts.guards.keepable(await self._calls.text(context, order, prompt, given))
        except CitewellError as exc:
            order.do_without(exc)
            written = None
        return written, order.as_dict()

    async def _none(self, sources: Sequence[ScoredChunk]) -> tuple[str, str | None]:
        """That the documents hold no answer, as the guards let it be shown, and the rule that changed it: documents have the
        titles that their authors gave them."""
        screen = self._parts.guards.answer_screen(is_moderated=True)
        answer = screen.feed(not_in_documents(sources)) + await screen.finish()
        return not_in_documents(()) if screen.is_blocked else answer, screen.verdict.rule

    async def _name_copies(self, citations: Sequence[Citation], shown: Sequence[ScoredChunk]) -> None:
        """Add to each citation the other documents that hold its passage."""
        copies = {one.chunk.id: list(one.chunk.also_in) for one in shown if one.chunk.also_in}
        # As they lie in the index: what a chunk has been grown by may stand in one of the documents alone.
        found = {chunk.id: chunk for chunk in await self._parts.retriever.chunks(list(copies))} if copies else {}
        for citation in citations:
            chunk = found.get(citation["chunk_id"])
            if chunk and citation["quote"] and chunk.start <= citation["start"] and citation["end"] <= chunk.end:
                citation["also_in"] = copies[chunk.id]

    def _fold(self, state: State) -> int:
        waiting = state["messages"][state.get("summarized", 0) : -1]
        return to_fold(waiting, most=self._settings.history_messages, tokens=self._settings.history_tokens)

    def _recent(self, history: Sequence[BaseMessage]) -> list[BaseMessage]:
        """The newest messages that go to the model as they are; the first of them is a question."""
        fold = to_fold(history, most=self._settings.history_messages, tokens=self._settings.history_tokens)
        return list(history[fold:])


def _talk(state: State) -> list[BaseMessage]:
    """The transcript not yet summarized, without blocked questions and their refusals; the last is the question."""
    return [message for message in state["messages"][state.get("summarized", 0) :] if not _is_blocked(message)]


def _calls(state: State, order: Order | None) -> dict[str, dict[str, Any]]:
    """For the answer's metadata: how each call to a chat model went, by what it was for."""
    went = {
        "condense": state.get("condense_call"), "summarize": state.get("summarize_call"), "expand": state.get("expand_call"),
        "answer": order.as_dict() if order else None,
    }  # fmt: skip
    made = {name: call for name, call in went.items() if call}
    return {"calls": made} if made else {}


def _withheld(state: State) -> dict[str, int]:
    """For the answer's metadata: how many messages of the client's own transcript it was made without."""
    count = state.get("withheld", 0)
    return {"earlier_withheld": count} if count else {}


def _is_blocked(message: BaseMessage) -> bool:
    extra = message.additional_kwargs
    return bool(extra.get("blocked") or extra.get("metadata", {}).get("blocked"))


def _context(runtime: Runtime[RunContext]) -> RunContext:
    return runtime.context or RunContext()  # `langgraph dev` may give none


def _reply(answer: str, citations: Sequence[Any], metadata: dict[str, Any], usage: dict[str, int] | None) -> AIMessage:
    return AIMessage(
        answer,
        id=str(uuid4()),
        additional_kwargs={"citations": list(citations), "metadata": metadata, "created_at": _now()},
        usage_metadata=cast("UsageMetadata", usage) if usage else None,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _counts(usage: UsageMetadata | None) -> dict[str, int]:
    return {key: usage[key] for key in ("input_tokens", "output_tokens", "total_tokens")} if usage else _no_usage()


def _no_usage() -> dict[str, int]:
    return {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


@contextmanager
def _stage(runtime: Runtime[RunContext], name: str) -> Iterator[None]:
    """Tell whoever watches how long the step took."""
    started = time.perf_counter()
    with tracing.stage(name):
        yield
    emit(runtime, {"stage": name, "ms": round((time.perf_counter() - started) * 1000, 2)})
