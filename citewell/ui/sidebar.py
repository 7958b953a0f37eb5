"""The sidebar: conversations, their statistics, options of the next question, upload of documents."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import streamlit as st

from citewell.client import Ingested, Progress, ServiceError
from citewell.ui.state import State
from citewell.ui.words import explain
from citewell.wording import count

MOST_TITLE = 60
"""Characters of a conversation's title that are shown."""
AS_SET = "As the service is set"
TYPES = ("pdf", "md", "txt", "html", "docx")


def show(state: State) -> dict[str, Any]:
    """Draw the sidebar. Returns the options of the next question, as `Client.stream` takes them."""
    st.markdown("## ❝ Citewell")
    if st.button("New conversation", icon=":material/add:", width="stretch", type="primary"):
        state.open("")
        st.rerun()
    try:
        options = _settings(state)
        _upload(state)
        _conversations(state)  # last: the list grows
    except ServiceError as fault:
        st.error(explain(fault), icon=":material/error:")
        return {}
    return options


def _conversations(state: State) -> None:
    threads = state.list_threads() if state.threads is None else state.threads
    st.markdown("### Conversations")
    if not threads:
        st.caption("None yet. Ask something.")
    if state.statistics and all(thread.thread_id != state.thread_id for thread in threads):
        st.markdown("The open one is older than these.")  # a bookmark leads to it, too
        _actions(state, "")
    for thread in threads:
        is_open = thread.thread_id == state.thread_id
        label = _short(thread.title or thread.thread_id)
        icon = ":material/chevron_right:" if is_open else ":material/chat_bubble:"
        if st.button(
            f"**{label}**" if is_open else label, key=f"open {thread.thread_id}", icon=icon, width="stretch",
            type="tertiary", help="Open now" if is_open else None,
        ) and not is_open:  # fmt: skip
            state.open(thread.thread_id)
            st.rerun()
        if is_open:
            _actions(state, thread.title)
    if state.older_threads and st.button("Show older conversations", icon=":material/expand_more:", width="stretch"):
        state.list_threads(before=state.older_threads)
        st.rerun()


def _actions(state: State, title: str) -> None:
    rename, delete = st.columns(2)
    with rename.popover("Rename", icon=":material/edit:", width="stretch"), st.form("rename", border=False):
        wanted = st.text_input("Title", title, max_chars=200)
        if st.form_submit_button("Save the title") and wanted.strip():
            state.client.rename(state.thread_id, wanted)
            state.threads = None
            state.note = "The conversation was renamed."
            st.rerun()
    with delete.popover("Delete", icon=":material/delete:", width="stretch"):
        st.markdown("Delete this conversation, every trace of it?")
        if st.button("Delete for good", type="primary"):
            state.client.delete(state.thread_id)
            state.threads = None
            state.open("")
            state.note = "The conversation was deleted."
            st.rerun()
    if counts := state.statistics:
        st.caption(f"{count(counts.user, 'question')} and {count(counts.assistant, 'answer')} in this conversation.")


def _settings(state: State) -> dict[str, Any]:
    if state.models is None:
        state.models = state.client.models()
    if state.sources is None:
        state.sources = state.client.sources()
    titles = {source.uri: source.title for source in state.sources}
    st.caption(f"{count(len(titles), 'document')} to answer from.")
    with st.expander("Model and retrieval", icon=":material/tune:"):
        model = st.selectbox(
            "Model", state.models, index=None, placeholder=AS_SET, help="`extractive` quotes the best sentences and needs no key."
        )  # fmt: skip
        temperature = st.number_input(
            "Temperature", 0.0, 2.0, None, 0.1, format="%.1f", placeholder=AS_SET, disabled=model == "extractive",
            help="0: always the likeliest words.",
        )  # fmt: skip
        top_k = st.number_input(
            "Passages kept", 1, 50, None, placeholder=AS_SET, help="How many passages leave the reranker."
        )
        only = st.multiselect(
            "Only these documents", list(titles), format_func=lambda uri: f"{titles[uri]} ({PurePosixPath(uri).name})",
            placeholder="All documents",
        )  # fmt: skip
    options = {"chat_model": model, "top_k": top_k, "temperature": None if model == "extractive" else temperature}
    # An option that nobody chose is not sent, since it would override the service's.
    chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    return chosen | ({"filter": {"source": {"$in": only}}} if only else {})


def _upload(state: State) -> None:
    with st.expander("Add a document", icon=":material/upload_file:"):
        st.session_state.setdefault("uploads", 0)
        file = st.file_uploader("PDF, Markdown, text, HTML or Word", TYPES, key=f"upload {st.session_state.uploads}")
        if done := st.session_state.pop("uploaded", ""):
            st.success(done, icon=":material/check:")
        if cut := st.session_state.pop("adding", ""):
            st.warning(f"{cut} was not added: something else was clicked meanwhile.", icon=":material/warning:")
        if file is None or not st.button("Add it", icon=":material/upload:"):
            _remove(state)
            return
        bar = st.progress(0.0, "Sending")
        st.session_state.adding = _short(file.name)  # stays there if a click ends the script, and with it the upload
        try:
            for event in state.client.upload(file.name, file.getvalue()):
                match event:
                    case Progress(stage="reading"):
                        bar.progress(0.1, "Reading")
                    case Progress(done=done, total=total):
                        bar.progress(0.1 + 0.9 * done / max(1, total), f"Indexing passage {done} of {total}")
                    case Ingested(uri=uri, chunks=chunks):
                        del st.session_state.adding
                        st.session_state.uploaded = f"{uri} is there now, in {count(chunks, 'passage')}."
        except ServiceError as fault:
            bar.empty()
            del st.session_state.adding
            st.error(explain(fault), icon=":material/error:")
            return
        st.session_state.uploads += 1  # a new key empties the file chooser
        state.sources = None
        st.rerun()


def _remove(state: State) -> None:
    """Remove an upload. A name that another caller's visible document has too is not offered."""
    added = [source.uri for source in state.sources or [] if source.uri.startswith("uploads/")]
    counts = Counter(PurePosixPath(uri).name for uri in added)
    names = [name for name, count in counts.items() if count == 1]
    if not names:
        return
    name = st.selectbox("Added before", names, index=None, placeholder="Choose one to remove")
    if name is None or not st.button(f"Remove {_short(name)}", icon=":material/delete:"):
        return
    try:
        state.client.remove_upload(name)
    except ServiceError as fault:
        st.error(explain(fault), icon=":material/error:")
        return
    st.session_state.uploaded = f"{name} was removed."
    state.sources = None
    st.rerun()


def _short(title: str) -> str:
    # Streamlit would read these characters as Markdown.
    plain = "".join(f"\\{char}" if char in "\\`*_[]{}()#+-.!~$:<>|" else char for char in title[:MOST_TITLE])
    return plain + ("…" if len(title) > MOST_TITLE else "")
