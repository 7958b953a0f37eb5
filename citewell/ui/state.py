"""The state that the page keeps between two runs of its script. All of it can be read again from the service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import streamlit as st

from citewell.client import Answer, Citation, Client, Message, Passage, Rating, ServiceError, Source, Statistics, Thread

_OPENED = "citewell"
LISTED = 30
"""Conversations in the sidebar, until the user asks for older ones."""


@dataclass
class Turn:
    """A question and its answer or error."""

    question: str
    text: str = ""
    citations: list[Citation] = field(default_factory=list)
    passages: list[Passage | None] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    message: int | None = None
    """Position of the answer in the conversation; None if there is none yet."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options it was asked with."""
    trace: dict[str, Any] | None = None
    fault: ServiceError | None = None
    is_stopped: bool = False
    is_news: bool = False
    """Whether it was answered here and is read out for that; what is shown again is not."""
    rating: Rating | None = None
    is_rated_fully: bool = False
    """Whether a reason was given, so that the page does not ask again."""


@dataclass
class State:
    """One browser tab."""

    client: Client
    key: str | None
    thread_id: str = ""
    turns: list[Turn] = field(default_factory=list)
    older: int | None = None
    """Give it to `Client.history` for the turns before these; None at the beginning."""
    statistics: Statistics | None = None
    threads: list[Thread] | None = None
    older_threads: str | None = None
    """Give it to `list_threads` for the ones before these; None where there are none."""
    models: list[str] | None = None
    sources: list[Source] | None = None
    again: str = ""
    """A question that is to be asked again."""
    note: str = ""
    """Shown once, at the top."""

    def open(self, thread_id: str) -> None:
        """Show a conversation, or a new one; the address names it, so that a reload or a bookmark comes back to it.

        Raises:
            ServiceError: It cannot be read. What was shown stays.
        """
        self.show(thread_id)
        if thread_id:
            st.query_params["thread"] = thread_id
        else:
            st.query_params.clear()

    def show(self, thread_id: str) -> None:
        """Show a conversation that the address names already: to write the same there would undo where the browser went meanwhile.

        Raises:
            ServiceError: It cannot be read. What was shown stays.
        """
        self.turns, self.older, self.statistics = self._read(thread_id) if thread_id else ([], None, None)
        self.thread_id = thread_id

    def show_older(self) -> None:
        """Put the page of older turns in front of what is shown. Raises ServiceError."""
        turns, self.older, self.statistics = self._read(self.thread_id, self.older)
        for turn in self.turns:
            turn.is_news = False  # each gets another place on the page, and would be read out again
        self.turns = turns + self.turns

    def _read(self, thread_id: str, before: int | None = None) -> tuple[list[Turn], int | None, Statistics]:
        """A page of turns, what to give for the page before it, and the conversation's statistics."""
        page = self.client.history(thread_id, before=before)
        ratings = {one.message: one for one in self.client.ratings(thread_id)}
        turns = _turns(page.messages, page.first)
        for turn in turns:
            if (rated := ratings.get(-1 if turn.message is None else turn.message)) is not None:
                turn.rating, turn.is_rated_fully = rated.rating, bool(rated.reason)
        return turns, page.before, page.statistics

    def list_threads(self, before: str | None = None) -> list[Thread]:
        """Read the conversations used last, or add a page of older ones. Returns all that are listed then."""
        page = self.client.threads(limit=LISTED, before=before)
        self.threads = (self.threads or [] if before else []) + page.threads
        self.older_threads = page.before
        return self.threads

    def begin(self, question: str, options: dict[str, Any]) -> Turn:
        """Enter a turn; it counts as stopped until it is whole. A new conversation gets its name here, so that it goes
        on with the next question even when the first answer is stopped."""
        turn = Turn(question=question, options=options, is_stopped=True)
        self.turns.append(turn)
        self.thread_id = self.thread_id or str(uuid4())
        self.threads = None
        st.query_params["thread"] = self.thread_id
        return turn

    def finish(self, turn: Turn, answer: Answer) -> None:
        """Take over a whole answer."""
        turn.text, turn.citations, turn.metadata = answer.text, answer.citations, answer.metadata
        turn.is_stopped, turn.is_news = False, True
        newest = self.client.history(self.thread_id, limit=1)
        before = self.statistics.total if self.statistics else 0
        turn.message, self.statistics = newest.first, newest.statistics
        self.threads = None
        if newest.statistics.total > before + 2:  # more was said meanwhile, as in another tab
            self.show(self.thread_id)

    def passages(self, turn: Turn) -> list[Passage | None]:
        """Each citation's quote in its surroundings, read once."""
        if len(turn.passages) != len(turn.citations):
            turn.passages = [self._passage(citation) for citation in turn.citations]
        return turn.passages

    def _passage(self, citation: Citation) -> Passage | None:
        try:
            found = self.client.passage(citation.source, citation.start, citation.end)
        except ServiceError:
            return None
        return found if found.quote == citation.quote else None  # the document has changed since


def opened(url: str, key: str | None) -> State:
    """The tab's state, with the conversation that the address names: another one at first, and where the browser went back."""
    if _OPENED not in st.session_state:
        st.session_state[_OPENED] = State(client=Client(url, key=key), key=key)
    state: State = st.session_state[_OPENED]
    if (named := st.query_params.get("thread", "")) != state.thread_id:
        try:
            state.show(named)
        except ServiceError as fault:
            state.note = fault.detail
            if not fault.retryable:  # else the next run of the script tries again
                state.open("")
    return state


def _turns(messages: list[Message], first: int) -> list[Turn]:
    turns: list[Turn] = []
    for position, message in enumerate(messages, first):
        if message.role == "user" or not turns:
            turns.append(Turn(question=message.content if message.role == "user" else ""))
        if message.role == "assistant":
            turn = turns[-1]
            turn.text, turn.citations, turn.metadata = message.content, message.citations, message.metadata
            turn.message = position
            turn.is_stopped = bool(message.metadata.get("stopped"))
    return turns
