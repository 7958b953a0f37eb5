"""A caller whose key is exchanged keeps what is theirs; the old key opens nothing of it."""

from __future__ import annotations

import re
import time

from citewell.identity.keys import new_key
from tests.identity.callers import Caller
from tests.identity.conftest import World
from tests.service import problem

TOWER = "How high is the tower of the lighthouse?"


def test_an_answer_is_resumed_with_the_new_key_and_not_with_the_old_one(own_world: World) -> None:
    alice, bob = own_world.caller("alice", "key"), own_world.caller("bob", "key")
    asked = alice.send("POST", "/chat", json={"message": TOWER}, headers={"accept": "text/event-stream"})
    [run, *_] = re.findall(r"^id: ([0-9a-f]{32})\.\d+$", asked.text, re.MULTILINE)

    fresh, entry = new_key("alice", ("board",), None)
    keys = own_world.live.data_dir.parent / "keys"
    _, bobs = keys.read_text().splitlines()
    keys.write_text(f"{entry.line()}\n{bobs}\n")
    deadline = time.monotonic() + 60
    while alice.send("GET", "/threads").status_code != 401:
        assert time.monotonic() < deadline, "the file is not looked at"
        time.sleep(0.1)

    again = {"json": {"message": TOWER}, "headers": {"accept": "text/event-stream", "last-event-id": f"{run}.0"}}
    for method, path, options in (("GET", f"/runs/{run}/events", {}), ("POST", "/chat", again)):
        problem(alice.send(method, path, **options), "not_authenticated", 401)
        problem(bob.send(method, path, **options), "run_not_found", 404)
        assert "42" in Caller(own_world.live, "alice", fresh).send(method, path, **options).raise_for_status().text
