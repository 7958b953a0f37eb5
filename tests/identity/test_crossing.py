"""Two callers, every door: nobody reaches another's conversation, and nobody is shown what is not theirs to read."""

from __future__ import annotations

import json
from typing import Any

import pytest
import websockets.sync.client

from tests.identity.callers import DOORS, Caller, mcp
from tests.identity.conftest import SECRET, World
from tests.service import problem

TOWER = "How high is the tower of the lighthouse?"
VAULT = "What is the vault code of the observatory?"
pytestmark = pytest.mark.parametrize("by", ["key", "token"])


def transcript(who: Caller, thread: str) -> list[dict[str, Any]]:
    response = who.send("GET", f"/conversation/{thread}")
    return response.json()["history"] if response.status_code == 200 else []


@pytest.mark.parametrize("name", DOORS)
def test_the_same_id_of_another_caller_is_another_conversation(world: World, by: str, name: str) -> None:
    alice, bob = world.caller("alice", by), world.caller("bob", by)
    thread = f"{by} {name}"
    assert "42 metres" in DOORS[name](alice, TOWER, thread)
    before = transcript(alice, thread)
    assert [message["role"] for message in before] == ["user", "assistant"]
    assert transcript(bob, thread) == []
    assert TOWER not in DOORS[name](bob, "And when was it first lit?", thread)
    theirs = transcript(bob, thread)
    assert [message["content"] for message in theirs if message["role"] == "user"] == ["And when was it first lit?"]
    assert transcript(alice, thread) == before
    assert "1871" in DOORS[name](alice, "And when was it first lit?", thread), "their own conversation goes on"


def test_lists_hold_ones_own_under_ones_own_ids(world: World, by: str) -> None:
    alice, bob = world.caller("alice", by), world.caller("bob", by)
    for who in (alice, bob):
        DOORS["POST /chat"](who, f"Whose is this? It is that of {who.name}.", f"{by} listed")
    for who, other in ((alice, bob), (bob, alice)):
        page = who.send("GET", "/threads?limit=1000")
        mine = [thread for thread in page.json()["threads"] if thread["thread_id"] == f"{by} listed"]
        assert [thread["title"] for thread in mine] == [f"Whose is this? It is that of {who.name}."]
        assert f"that of {other.name}" not in page.text


def test_a_key_and_a_token_of_one_name_are_two_callers(world: World, by: str) -> None:
    other = "token" if by == "key" else "key"
    DOORS["POST /chat"](world.caller("alice", by), TOWER, f"{by} alone")
    assert transcript(world.caller("alice", other), f"{by} alone") == []


@pytest.mark.parametrize("prefix", ["alice\x1f", "alice%1f", "alice/", "jwt:alice\x1f", "alice:", "../alice/"])
def test_an_id_made_to_look_like_anothers_leads_nowhere(world: World, by: str, prefix: str) -> None:
    alice, bob = world.caller("alice", by), world.caller("bob", by)
    DOORS["POST /chat"](alice, TOWER, "aimed at")
    response = bob.send(
        "POST", "/chat", json={"message": "And when was it first lit?", "conversation_id": f"{prefix}aimed at"}
    )
    assert response.status_code == (422 if "\x1f" in prefix else 200)
    assert bob.send("GET", f"/conversation/{prefix.replace(chr(31), '%1f')}aimed at").status_code in (200, 404, 422)
    assert [message["content"] for message in transcript(alice, "aimed at") if message["role"] == "user"][-1] == TOWER
    assert bob.send("DELETE", f"/conversation/{prefix.replace(chr(31), '%1f')}aimed at").status_code in (204, 404, 422)
    assert transcript(alice, "aimed at")


def test_nobody_renames_rates_or_deletes_anothers(world: World, by: str) -> None:
    alice, bob = world.caller("alice", by), world.caller("bob", by)
    thread = f"{by} kept"
    DOORS["POST /chat"](alice, TOWER, thread)
    problem(bob.send("PATCH", f"/threads/{thread}", json={"title": "Mine now"}), "thread_not_found", 404)
    rating = {"thread_id": thread, "rating": "up", "comment": "from Alice"}
    problem(bob.send("POST", "/feedback", json=rating), "thread_not_found", 404)
    assert alice.send("POST", "/feedback", json=rating).json()["thread_id"] == thread
    problem(bob.send("GET", "/feedback", params={"thread_id": thread}), "thread_not_found", 404)
    assert bob.send("DELETE", f"/conversation/{thread}").status_code == 204, "deleting what is not there is no fault"
    assert len(transcript(alice, thread)) == 2
    [mine] = alice.send("GET", "/feedback", params={"thread_id": thread}).json()["feedback"]
    assert (mine["comment"], mine["thread_id"]) == ("from Alice", thread)
    assert alice.send("PATCH", f"/threads/{thread}", json={"title": "Tower"}).json()["title"] == "Tower"
    assert alice.send("DELETE", f"/conversation/{thread}").status_code == 204
    assert transcript(alice, thread) == []


@pytest.mark.parametrize("name", DOORS)
def test_an_answer_shows_nothing_that_its_caller_may_not_read(world: World, by: str, name: str) -> None:
    """The whole reply is searched: text, citations, trace, sources, events. Who may read asks first, so that anything
    kept for the next who asks the same is there."""
    alice, bob = world.caller("alice", by), world.caller("bob", by)
    assert SECRET in DOORS[name](alice, VAULT, f"{by} vault {name}")
    for question in (VAULT, f"Heliotrope: the vault code is {SECRET[:6]}", "minutes.md"):
        reply = DOORS[name](bob, question, f"{by} vault {name}")
        assert SECRET not in reply
        assert "papers/minutes.md" not in reply
        assert "jwt:" not in reply
        assert "u001f" not in reply, "the id under which the conversation is stored"


def test_documents_are_listed_searched_and_opened_by_those_who_may(world: World, by: str) -> None:
    uri = "papers/minutes.md"
    calls: dict[str, Any] = {
        "list": lambda who: who.send("GET", "/sources"),
        "search": lambda who: who.send("POST", "/search", json={"question": VAULT}),
        "search by name": lambda who: who.send("POST", "/search", json={"question": VAULT, "filter": {"source": uri}}),
        "passage": lambda who: who.send("GET", "/source", params={"uri": uri}),
        "file": lambda who: who.send("GET", "/source/file", params={"uri": uri}),
    }
    for name, call in calls.items():
        mine, theirs = call(world.caller("alice", by)), call(world.caller("bob", by))
        assert mine.status_code == 200, name
        assert uri in mine.text or SECRET in mine.text, name
        assert SECRET not in theirs.text, name
        assert theirs.status_code in (200, 404), name
        if theirs.status_code == 200:
            assert uri not in theirs.text, name
        else:
            unknown = world.caller("bob", by).send(
                "GET", call(world.caller("bob", by)).request.url.path, params={"uri": "papers/x.md"}
            )
            assert theirs.json()["detail"] == unknown.json()["detail"].replace("papers/x.md", uri), "told apart"


def test_mcp_lists_and_reads_what_its_caller_may(world: World, by: str) -> None:
    alice, bob = world.caller("alice", by), world.caller("bob", by)
    read = {"uri": "citewell://source/papers/minutes.md"}
    search = {"name": "search", "arguments": {"query": VAULT}}
    assert "minutes.md" in mcp(alice, "resources/list", {})
    assert SECRET in mcp(alice, "resources/read", read)
    assert SECRET in mcp(alice, "tools/call", search)
    assert "minutes.md" not in mcp(bob, "resources/list", {})
    assert "No document is called" in mcp(bob, "resources/read", read)
    assert SECRET not in mcp(bob, "tools/call", search)


def test_uploads_are_their_callers(world: World, by: str) -> None:
    alice, bob = world.caller("alice", by), world.caller("bob", by)
    binary = {"content-type": "application/octet-stream"}
    note = f"The {by} of Alice's bicycle is under the flower pot."

    def upload(who: Caller, text: str, **params: Any) -> Any:
        return who.send("POST", "/uploads", params={"name": "note.txt", **params}, content=text, headers=binary)

    uri = upload(alice, note).json()["uri"]
    question = f"Where is the {by} of Alice's bicycle?"
    assert "flower pot" in DOORS["POST /chat"](alice, question, f"{by} bicycle")
    assert "flower pot" not in DOORS["POST /chat"](bob, question, f"{by} bicycle")
    assert upload(bob, "Bob's own.").json()["uri"] != uri
    assert bob.send("DELETE", "/uploads", params={"name": "note.txt"}).status_code == 204
    problem(bob.send("DELETE", "/uploads", params={"name": "note.txt"}), "source_not_found", 404)
    assert alice.send("GET", "/source", params={"uri": uri}).status_code == 200
    problem(bob.send("GET", "/source", params={"uri": uri}), "source_not_found", 404)
    problem(upload(bob, "Trojan.", access="board"), "not_authorized", 403)
    assert upload(alice, note, access="public").status_code == 200
    assert "flower pot" in DOORS["POST /chat"](bob, question, f"{by} bicycle, opened")
    assert alice.send("DELETE", "/uploads", params={"name": "note.txt"}).status_code == 204


def test_a_filter_opens_nothing(world: World, by: str) -> None:
    bob = world.caller("bob", by)
    for where in ({"source": "papers/minutes.md"}, {"$not": {"source": "x"}}, {"access": "board"}):
        response = bob.send(
            "POST", "/chat", json={"message": VAULT, "filter": where, "trace": True, "include_sources": True}
        )
        assert SECRET not in json.dumps(response.json())


def test_nobody_resumes_or_stops_anothers_answer(world: World, by: str) -> None:
    alice, bob = world.caller("alice", by), world.caller("bob", by)
    thread, streamed = f"{by} resumed", {"accept": "text/event-stream"}
    body = {"message": VAULT, "conversation_id": thread}
    reply = alice.send("POST", "/chat", json=body, headers=streamed).text
    first = reply.partition("id: ")[2].split()[0]
    resume = streamed | {"last-event-id": first}
    run = first.partition(".")[0]
    completion = {"model": "citewell", "stream": True, "messages": [{"role": "user", "content": VAULT}]}
    ways: dict[str, Any] = {
        "POST /chat": lambda who: who.send("POST", "/chat", json=body, headers=resume),
        "events": lambda who: who.send("GET", f"/runs/{run}/events", headers=resume),
        "v1": lambda who: who.send("POST", "/v1/chat/completions", json=completion, headers=resume),
    }
    for name, way in ways.items():
        assert SECRET in way(alice).text, name
        assert way(bob).status_code == 404, name
        assert SECRET not in way(bob).text, name
    for who, known in ((alice, True), (bob, False)):
        with websockets.sync.client.connect(who.live.ws, additional_headers=who.headers) as socket:
            socket.send(json.dumps({"resume": first}))
            frame = json.loads(socket.recv(30))
            assert ("error" not in frame) == known
    problem(bob.send("POST", f"/conversation/{thread}/stop", json={"run_id": run}), "thread_not_found", 404)
