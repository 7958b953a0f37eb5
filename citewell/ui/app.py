"""The script of the chat page, which Streamlit runs from the top at every click."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from citewell.client import Answer, Rating, ServiceError
from citewell.errors import ConfigurationError
from citewell.settings import Settings
from citewell.ui import sidebar
from citewell.ui.answers import answer_html, question_html, unmarked_html
from citewell.ui.running import Run
from citewell.ui.state import State, Turn, opened
from citewell.ui.why import why_html
from citewell.ui.words import explain
from citewell.wording import about

STYLE = Path(__file__).with_name("style.css")
REASONS = {
    "incorrect": "It is wrong", "incomplete": "Something is missing", "wrong_source": "The source does not say so",
    "not_answered": "It does not answer the question", "other": "Something else",
}  # fmt: skip


def main() -> None:
    st.set_page_config(page_title="Citewell", page_icon="❝", layout="centered", initial_sidebar_state="auto")
    st.html(STYLE)
    try:
        settings = Settings.load()
    except ConfigurationError as exc:
        st.error(exc.detail, icon=":material/error:")
        return
    secret = settings.ui_api_key or settings.api_key
    key = secret.get_secret_value() if secret else None
    state = opened(settings.ui_service_url, key)
    public = (settings.ui_public_url or settings.ui_service_url).rstrip("/")
    with st.sidebar:
        options = sidebar.show(state)
    _welcome(state)
    for number, turn in enumerate(state.turns):
        _show(state, turn, number, public)
    question = st.chat_input("Ask the documents") or state.again
    state.again = ""
    if question:
        _ask(state, question, options)


def _welcome(state: State) -> None:
    if state.note:
        st.info(state.note, icon=":material/info:")
        state.note = ""
    if state.older is not None and st.button("Show earlier messages", icon=":material/expand_less:"):
        try:
            state.show_older()
            st.rerun()
        except ServiceError as fault:
            st.error(explain(fault), icon=":material/error:")
    if not state.turns:
        st.title("Ask your documents", anchor=False)
        st.markdown(
            "Every sentence of an answer carries a mark. Open it to read the passage behind it: "
            "**✓** verified, **~** partly supported, **✗** not supported."
        )


def _ask(state: State, question: str, options: dict[str, Any]) -> None:
    """Stream one turn. A click meanwhile ends the script here, and with it the run.

    The next run of the script may begin before this one has cleaned up, so it must find the turn as it stands.
    """
    turn = state.begin(question, options)
    _question(question)
    with st.chat_message("assistant", avatar=":material/format_quote:"):
        slot, status = st.empty(), st.empty()
        st.button("Stop", icon=":material/stop_circle:", key=f"stop {len(state.turns)}")
        run = Run(state.client.url, state.key, question, {"thread_id": state.thread_id, **options})
        begun = time.monotonic()
        try:
            for event in run.events():
                match event:
                    case None:
                        status.caption(f"{'Writing' if turn.text else 'Searching'} … {time.monotonic() - begun:.0f} s")
                    case str():
                        turn.text += event
                        slot.html(answer_html(turn.text, is_running=True))
                    case Answer():
                        state.finish(turn, event)
                    case ServiceError():
                        turn.fault = event
        except ServiceError as fault:  # the answer is complete, but its position in the conversation cannot be read
            turn.fault = fault
        finally:
            run.stop()
    st.rerun()


def _question(text: str) -> None:
    with st.chat_message("user", avatar=":material/person:"):
        st.html(question_html(text))


def _show(state: State, turn: Turn, number: int, public: str) -> None:
    if turn.question:
        _question(turn.question)
    with st.chat_message("assistant", avatar=":material/format_quote:"):
        if turn.text:
            client = state.client
            st.html(
                answer_html(
                    turn.text, turn.citations, state.passages(turn),
                    lambda uri, page: client.file_url(uri, page).replace(client.url, public, 1), is_news=turn.is_news,
                )
            )  # fmt: skip
        if turn.fault is not None:
            st.error(explain(turn.fault), icon=":material/error:")
        elif turn.is_stopped:
            st.caption("Stopped. The question stays in the conversation; what is above was not checked.")
        elif not turn.text:
            st.caption("This question was not answered to the end.")
        else:
            if alone := turn.metadata.get("unmarked"):
                st.html(unmarked_html(alone))
            st.caption(_about(turn.metadata))
        if turn.fault is not None or not turn.text or turn.is_stopped:
            is_last = number == len(state.turns) - 1
            if is_last and st.button("Ask again", icon=":material/replay:", key=f"again {number}"):
                state.again = turn.question
                st.rerun()
            return
        _rate(state, turn, number)
        _why(state, turn, number)


def _about(metadata: Mapping[str, Any]) -> str:
    words = about(metadata)
    if stages := metadata.get("stages_ms"):
        took_ms = sum(stages.values())
        words += f" · {took_ms / 1000:.1f} s" if took_ms >= 1000 else f" · {took_ms:.0f} ms"
    return words[0].upper() + words[1:]


def _rate(state: State, turn: Turn, number: int) -> None:
    if turn.message is None:
        return
    key = f"rating {state.thread_id} {turn.message}"
    chosen = st.feedback("thumbs", key=key, default=None if turn.rating is None else int(turn.rating == "up"))
    rating: Rating | None = None if chosen is None else "up" if chosen else "down"
    try:
        if rating is not None and rating != turn.rating:
            state.client.rate(state.thread_id, rating, message=turn.message)
            turn.rating, turn.is_rated_fully = rating, False
        if turn.rating == "down" and not turn.is_rated_fully:
            with st.form(f"reason {number}"):
                reason = st.selectbox("What is wrong with it?", list(REASONS), format_func=REASONS.__getitem__)
                comment = st.text_area("What would be right? (optional)", max_chars=2000, height=80)
                if st.form_submit_button("Send"):
                    state.client.rate(state.thread_id, "down", message=turn.message, reason=reason, comment=comment)
                    turn.is_rated_fully = True
                    st.rerun()
        elif turn.rating is not None:
            st.caption("Thank you. It is kept with the answer.")
    except ServiceError as fault:
        st.error(explain(fault), icon=":material/error:")


def _why(state: State, turn: Turn, number: int) -> None:
    with st.expander("Why this answer", icon=":material/account_tree:"):
        if turn.trace is not None:
            st.html(why_html(turn.trace, turn.metadata))
        elif turn.metadata.get("answerer") == "guard":
            st.markdown(f"Nothing was searched for: the rule “{turn.metadata['blocked']}” refused the question.")
        elif st.button("Search again to see why", key=f"why {number}"):
            try:
                asked = turn.metadata.get("standalone_question") or turn.question
                within = {name: turn.options[name] for name in ("top_k", "filter") if name in turn.options}
                turn.trace = state.client.search(asked, **within).trace
                st.rerun()
            except ServiceError as fault:
                st.error(explain(fault), icon=":material/error:")


main()
