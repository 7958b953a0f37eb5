"""The nodes: each takes the state and the run's context and returns a partial update.

A node owns no retry loop, never mutates the state and can be called with a plain dictionary. What a client sees while the run
goes on is sent through `graph.events`.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import END
from langgraph.runtime import Runtime

from chains import condense, expand, summarize
from chains.answer import AnswerInput
from chains.condense import CondenseInput
from chains.extract import not_in_documents
from chains.simple import is_simple
from chains.summarize import summarize_rule, summary_input, to_fold
from citewell import small_talk
from citewell.citations import Citation, requoted, unmarked, verify
from citewell.citations.review import review_reasons
from citewell.documents import Chunk, ScoredChunk
from citewell.errors import CitewellError, SourceNotFound
from citewell.models.payer import paid_by
from citewell.questions import check_question
from citewell.retrieval.trace import joined
from citewell.telemetry import tracing
from graph.answering import Answering
from graph.calls import Call, Calls
from graph.earlier import guarded
from graph.events import at_end, emit
from graph.parts import Parts
from graph.recall import Recall
from graph.searching import Searching
from graph.state import RunContext, State, check_context
from graph.transcript import answer_message, is_blocked, question_message, token_counts

LONG_ANSWER: Final = 4000
"""Characters above which an answer is checked in a thread, off the event loop: checking so many takes ten milliseconds."""


class Nodes:
    """The steps of the graph, over live parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._calls = Calls(parts)
        self._searching = Searching(parts)
        self._answering = Answering(parts, self._calls)
        self._recall = Recall(parts, parts.cache) if parts.cache is not None else None

    async def screen(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Check the question, let the guards judge it, and add it to the transcript."""
        context = _context(runtime)
        with _stage(runtime, "screen"):
            check_context(context)
            question = check_question(state.get("question"), limit=self._settings.max_question_chars)
            verdict = await self._parts.guards.screen(question)
            earlier: list[BaseMessage] = []
            if verdict.allowed and self._calls.name(context):  # without a model nobody reads them
                earlier, undecided = await guarded(state.get("messages", ()), self._parts.guards)
                verdict = undecided or verdict
        question = verdict.text or question  # redacted, where the settings ask for it
        if verdict.allowed:
            withheld = sum(map(is_blocked, earlier))
            return {"messages": [*earlier, question_message(question)], "blocked": "", "withheld": withheld}
        # A blocked question is an outcome, not an exception: the caller gets an answer that names the rule.
        answer = f"I can't answer that ({verdict.rule}): {verdict.reason}"
        emit(runtime, {"token": answer})
        metadata = {"answerer": "guard", "blocked": verdict.rule, "finish_reason": "blocked"}
        return {
            "messages": [question_message(question, blocked=verdict.rule), answer_message(answer, [], metadata)],
            "blocked": verdict.rule, "answer": answer, "citations": [], "usage": token_counts(), "metadata": metadata,
        }  # fmt: skip

    async def after_screen(self, state: State) -> list[str]:
        """Where to go from `screen`; pure. LangGraph would call a plain function in a thread, for half a millisecond of processor time."""
        if state.get("blocked"):
            return [END]
        is_long = self._fold(state) > 0
        # An answer from the cache ends the run, which must not happen while a summary is being written in parallel.
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
            # in a thread, as it reads its word list at first use
            standalone, typed = await asyncio.to_thread(condense.by_rule, asked.text, recent)
            # Where the rule knows the language and leaves the question as it is, a model need not be asked either.
            context = _context(runtime)
            is_settled = standalone == asked.text and self._settings.language == "english"
            update: dict[str, Any] = {"standalone": standalone}
            if self._calls.name(context) and not is_settled:
                given = CondenseInput(question=asked.text, history=recent)
                written, update["condense_call"] = await self._written(context, condense.PROMPT, given)
                if written is not None:
                    return update | {"standalone": written.strip() or asked.text}
            # The rule cannot always tell a follow-up from a short question about something else.
            return update if standalone == typed else update | {"typed": typed}

    async def recall(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Give a cached answer, where everything it would be made from is unchanged."""
        assert self._recall is not None
        context = _context(runtime)
        *history, asked = _talk(state)
        question = state.get("standalone") or asked.text
        # a trace is of a search; a summary that is being written is not in the state yet
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
            "messages": [answer_message(kept["answer"], kept["citations"], metadata, token_counts())], "cited": kept["cited"],
            "answer": kept["answer"], "citations": kept["citations"], "usage": token_counts(), "metadata": metadata,
        }  # fmt: skip

    async def after_recall(self, state: State) -> str:
        """Where to go from `recall`; pure, and asynchronous as `after_screen` is."""
        return END if "answer" in state else "retrieve"

    async def retrieve(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Search by meaning and by words, within what the caller may read."""
        context = _context(runtime)
        question = state.get("standalone") or _talk(state)[-1].text
        typed = state.get("typed", question)
        with _stage(runtime, "retrieve"), paid_by(self._parts.limits, context.caller):
            question, typed, hits = await self._searching.found(context, question, typed)
            reworded = await self._reworded(context, question)
            further: list[Chunk] = []
            for wording in reworded.get("wordings", ()):
                candidates = await self._searching.candidates(context, wording, self._settings.candidates // 2)
                further += [scored.chunk for scored in candidates]
            if len(_talk(state)) > 1 and (cited := state.get("cited")):  # so that "and the second one?" is answered
                further += await self._searching.again(context, cited)
            # They get no score: reranking judges them by the question as it was asked.
            for one in hits[0].singles:
                known = {scored.chunk.id for scored in one.candidates}
                new = {chunk.id: chunk for chunk in further if chunk.id not in known}
                one.candidates.extend(ScoredChunk(chunk=chunk, score=0.0) for chunk in new.values())
        return {"standalone": question, "hits": hits, **reworded} | ({"typed": typed} if "typed" in state else {})

    async def _reworded(self, context: RunContext, question: str) -> dict[str, Any]:
        """Other wordings of the question by a chat model (a partial update), where the settings ask for some."""
        most = self._settings.query_variants
        if not most or not self._calls.name(context):
            return {}
        written, call = await self._written(context, expand.PROMPT, expand.ExpandInput(question=question, count=most))
        wordings = expand.wordings(written or "", question, most=most, longest=self._settings.max_question_chars)
        return {"wordings": wordings, "expand_call": call}

    async def rerank(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Order the candidates by late interaction (or a cross-encoder) and let the guards judge what is kept."""
        top_k = _context(runtime).top_k or self._settings.top_k
        with _stage(runtime, "rerank"):
            hits, chunks = await self._searching.best(state["hits"], state.get("typed", ""), top_k)
            kept, quarantined = await self._parts.guards.screen_chunks(chunks)
        found = {scored.chunk.id for single in hits.singles for scored in single.candidates}
        metadata: dict[str, Any] = {
            "retrieved": len(found), "kept": len(kept), "quarantined": len(quarantined),
            "index": self._parts.index.generation, "cached": False,
        } | _withheld(state)  # fmt: skip
        if wordings := state.get("wordings"):
            metadata["wordings"] = wordings
        if traces := [single.trace for single in hits.singles if single.trace is not None]:
            metadata["trace"] = joined(traces, [scored.chunk.id for scored in chunks]).as_dict() | {
                "quarantined": [{"id": scored.chunk.id, "rule": verdict.rule} for scored, verdict in quarantined]
            }
        return {"standalone": hits.question, "sources": kept, "metadata": metadata}

    async def summarize(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Fold the oldest messages into the running summary."""
        with _stage(runtime, "summarize"):
            fold = self._fold(state)
            done = state.get("summarized", 0)
            old = [message for message in state["messages"][done : done + fold] if not is_blocked(message)]
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
            has_model = self._calls.name(context) is not None
            if not has_model and (talk := small_talk.reply(asked.text)):
                about = {"answerer": "service", "finish_reason": "stop"}
                return _said(runtime, talk, metadata | about | _calls(state, None))
            # Where no model is asked, what would be quoted tells more, and costs nothing.
            if not sources or (has_model and not self._parts.evidence.is_supported(confidence)):
                return await self._refusal(state, runtime, metadata, None)
            call = None
            if has_model:
                stands_alone = question == asked.text
                call = self._calls.prepare(
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
            answer = await self._answering.make(
                context, call, given, asked.text, confidence, lambda piece: emit(runtime, {"token": piece})
            )
            metadata["confidence"] = round(answer.confidence, 3)
            if answer.is_refused:
                return await self._refusal(state, runtime, metadata, call)
        if answer.is_written:  # it is checked against what it was written from
            sources = [*answer.chunks, *sources[top_n:]]
        return {
            "answer": "".join(answer.shown), "sources": sources, "usage": token_counts(answer.usage),
            "metadata": metadata | answer.metadata() | _calls(state, call),
        }  # fmt: skip

    async def verify(self, state: State, runtime: Runtime[RunContext]) -> dict[str, Any]:
        """Match each cited sentence to the text of the chunk it cites, and complete the turn."""
        answer, metadata = state["answer"], dict(state["metadata"])
        with _stage(runtime, "verify"):
            shown = state["sources"][: self._settings.top_n] if metadata.get("supported") else []
            # Quotations have markers throughout, and a guard's words need none.
            has_unmarked = metadata.get("answerer") == "model" and metadata.get("finish_reason") != "blocked"

            def check() -> tuple[list[Citation], dict[str, list[str]]]:
                # Where nothing was found, titles are named, and what looks like a marker in them cites nothing.
                return verify(answer, shown) if shown else [], {"unmarked": unmarked(answer)} if has_unmarked else {}

            citations, alone = await asyncio.to_thread(check) if len(answer) > LONG_ANSWER else check()
            await self._name_copies(citations, shown)
            citations = [await self._presentable(citation) for citation in citations]
        metadata |= alone
        if self._settings.review_below and metadata.get("supported"):
            reasons = review_reasons(metadata, citations, below=self._settings.review_below)
            metadata |= {"needs_review": bool(reasons), "review_reasons": reasons}
        kept = {key: value for key, value in metadata.items() if key != "trace"}  # too large to store
        cited = list(dict.fromkeys(citation["chunk_id"] for citation in citations if citation["chunk_id"]))
        if self._recall is not None:
            await self._recall.keep(state, _context(runtime), citations=citations, metadata=kept, cited=cited)
        reply = answer_message(answer, citations, kept, state["usage"])
        return {"citations": citations, "messages": [reply], "cited": cited, "metadata": metadata}

    async def _presentable(self, citation: Citation) -> Citation:
        """The citation with no more of its quote than the guards pass, and with the page on which that begins."""
        quote = await self._parts.guards.keepable(citation["quote"])
        if quote != citation["quote"]:
            citation = requoted(citation, quote)
        if citation["page"] is not None:  # that of the chunk so far, which may run over the end of a page
            with suppress(SourceNotFound):  # removed meanwhile
                citation["page"] = await self._parts.index.page_at(citation["source"], citation["start"])
        return citation

    async def _written(
        self, context: RunContext, prompt: ChatPromptTemplate, given: Mapping[str, Any]
    ) -> tuple[str | None, dict[str, Any]]:
        """What a model writes besides answers, and how the call went; None where it fails and a rule may stand in for it."""
        call = self._calls.prepare(context)
        try:
            # It is stored and shown too, so personal data that the policy keeps out is taken out of it.
            written = await self._parts.guards.keepable(await self._calls.text(context, call, prompt, given))
        except CitewellError as exc:
            call.do_without(exc)
            written = None
        return written, call.as_dict()

    async def _refusal(
        self, state: State, runtime: Runtime[RunContext], metadata: Mapping[str, Any], call: Call | None
    ) -> dict[str, Any]:
        """The update that says that the documents hold no answer. It names titles, which are their authors' words: guards judge it."""
        screen = self._parts.guards.answer_screen(is_moderated=True)
        said = screen.feed(not_in_documents(state["sources"])) + await screen.finish()
        if screen.is_blocked:
            said = not_in_documents(())
        about = {"answerer": "none", "finish_reason": "no_evidence"}
        if screen.verdict.rule:
            about["guard"] = screen.verdict.rule
        return _said(runtime, said, {**metadata, **about, **_calls(state, call)})

    async def _name_copies(self, citations: Sequence[Citation], shown: Sequence[ScoredChunk]) -> None:
        """Add to each citation the other documents that hold its passage."""
        copies = {one.chunk.id: list(one.chunk.also_in) for one in shown if one.chunk.also_in}
        # The chunks as indexed: the neighbours that one was joined with may stand in one of the documents only.
        found = {chunk.id: chunk for chunk in await self._parts.index.chunks(list(copies))} if copies else {}
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


def _said(runtime: Runtime[RunContext], said: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The update for what the service says of itself, which rests on no document."""
    emit(runtime, {"token": said})
    return {"answer": said, "usage": token_counts(), "metadata": {**metadata, "supported": False}}


def _talk(state: State) -> list[BaseMessage]:
    """The transcript not yet summarized, without blocked questions and their refusals; the last is the question."""
    return [message for message in state["messages"][state.get("summarized", 0) :] if not is_blocked(message)]


def _calls(state: State, answer: Call | None) -> dict[str, dict[str, Any]]:
    """For the answer's metadata: how each call to a chat model went, by what it was for."""
    went = {
        "condense": state.get("condense_call"), "summarize": state.get("summarize_call"), "expand": state.get("expand_call"),
        "answer": answer.as_dict() if answer else None,
    }  # fmt: skip
    made = {name: call for name, call in went.items() if call}
    return {"calls": made} if made else {}


def _withheld(state: State) -> dict[str, int]:
    """For the answer's metadata: how many messages of the client's own transcript were kept out of prompts."""
    count = state.get("withheld", 0)
    return {"earlier_withheld": count} if count else {}


def _context(runtime: Runtime[RunContext]) -> RunContext:
    return runtime.context or RunContext()  # `langgraph dev` may give none


@contextmanager
def _stage(runtime: Runtime[RunContext], name: str) -> Iterator[None]:
    """Tell whoever watches how long the step took."""
    started = time.perf_counter()
    with tracing.stage(name):
        yield
    emit(runtime, {"stage": name, "ms": round((time.perf_counter() - started) * 1000, 2)})
