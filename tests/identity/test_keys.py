"""API keys: made, stored as digests, compared in constant time, withdrawn by deleting a line."""

from __future__ import annotations

import asyncio
import hmac
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from citewell.errors import ConfigurationError, IdentityUnavailable, NotAuthenticated
from citewell.identity import Identity, keys
from citewell.identity.keys import KeyFile, new_key
from citewell.settings import Settings


@pytest.fixture(autouse=True)
def _looks_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOK_EVERY_S", 0.0)


def opened(path: Path) -> KeyFile:
    file = KeyFile(path)
    file.load()
    return file


async def test_the_command_makes_a_key_that_is_let_in(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "citewell.identity", "new", "--caller", "alice", "--access", "staff"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    key, line = printed
    assert re.fullmatch(r"cw_[\w-]{43}", key)
    assert key not in line
    path = tmp_path / "keys"
    path.write_text(f"# whose keys\n\n{line}\n")
    found = await opened(path).identify(key)
    assert found == Identity(caller="alice", access=frozenset({"public", "staff"}))
    appended = subprocess.run(
        [*command, "--file", str(path)], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert (await opened(path).identify(appended)).caller == "alice"
    assert appended not in path.read_text()


@pytest.mark.parametrize(
    "given",
    [
        ["--caller", "local"],
        ["--caller", "a:b"],
        ["--caller", "a", "--access", "a b"],
        ["--caller", "a", "--access", "caller:0123"],
    ],
)
def test_the_command_refuses_names_that_would_mean_something_else(given: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "citewell.identity", "new", *given], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


async def test_a_key_is_withdrawn_by_deleting_its_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    (first, alice), (second, bob) = new_key("alice", ("*",), None), new_key("bob", (), None)
    path.write_text(f"{alice.line()}\n{bob.line()}\n")
    file = opened(path)
    assert (await file.identify(first)).access is None
    path.write_text(f"{bob.line()}\n")
    with pytest.raises(NotAuthenticated):
        await file.identify(first)
    assert (await file.identify(second)).access == frozenset({"public"})


async def test_a_file_that_cannot_be_read_any_more_shuts_the_door(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key, entry = new_key("alice", (), None)
    path.write_text(entry.line())
    file = opened(path)
    await file.identify(key)
    path.write_text("{}")
    for _ in range(2):
        with pytest.raises(IdentityUnavailable):
            await file.identify(key)
    path.write_text(entry.line() + "\n")
    assert (await file.identify(key)).caller == "alice"
    path.unlink()
    with pytest.raises(IdentityUnavailable):
        await file.identify(key)


async def test_while_the_file_is_read_again_the_keys_that_were_good_are_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    key, entry = new_key("alice", (), None)
    path.write_text(entry.line())
    file = opened(path)
    path.write_text(f"{entry.line()}\n# longer\n")
    reading, goes_on = threading.Event(), threading.Event()
    read = KeyFile._read

    def slowly(self: KeyFile) -> object:
        reading.set()
        assert goes_on.wait(30)
        return read(self)

    monkeypatch.setattr(KeyFile, "_read", slowly)
    first = asyncio.create_task(file.identify(key))
    assert await asyncio.to_thread(reading.wait, 30)
    monkeypatch.setattr(keys, "LOOK_EVERY_S", 60.0)
    file._next_look = time.monotonic() + 60
    assert (await file.identify(key)).caller == "alice"
    goes_on.set()
    assert (await first).caller == "alice"


async def test_a_key_expires_after_its_last_day(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    path = tmp_path / "keys"
    for days, is_good in ((0, True), (-1, False)):
        key, entry = new_key("alice", (), today + timedelta(days=days))
        path.write_text(entry.line())
        file = opened(path)
        if is_good:
            assert (await file.identify(key)).caller == "alice"
        else:
            with pytest.raises(NotAuthenticated, match="expired"):
                await file.identify(key)


async def test_every_key_is_compared_in_constant_time_whichever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [new_key(f"caller{number}", (), None) for number in range(5)]
    path = tmp_path / "keys"
    path.write_text("\n".join(entry.line() for _, entry in made))
    file = opened(path)
    compared = 0
    real = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        nonlocal compared
        compared += 1
        return real(one, other)

    monkeypatch.setattr(keys.hmac, "compare_digest", counting)
    for key in (made[0][0], made[-1][0], "cw_nobody's"):
        compared = 0
        try:
            await file.identify(key)
        except NotAuthenticated:
            assert key == "cw_nobody's"
        assert compared == len(made)


@pytest.mark.parametrize(
    "line",
    ["{}", "not json", '{"caller": "local", "sha256": "' + "0" * 64 + '"}', '{"caller": "a", "sha256": "secret-key"}',
     '{"caller": "a", "key": "cw_secret"}'],
)  # fmt: skip
def test_a_wrong_line_stops_the_start_and_is_not_repeated(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# comment\n{line}\n")
    with pytest.raises(ConfigurationError, match="line 2") as caught:
        opened(path)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_stops_the_start_and_is_told_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"there is no .*keys; `python -m citewell\.identity new .* --file .*keys`"
    ):
        opened(tmp_path / "keys")


def test_settings_print_no_secret() -> None:
    names = ("openai_api_key", "anthropic_api_key", "pinecone_api_key", "weaviate_api_key", "redis_url", "api_key", "ui_api_key")  # fmt: skip
    settings = Settings(_env_file=None, **dict.fromkeys(names, "hush-hush"))  # type: ignore[arg-type]
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "hush-hush" not in shown
    assert all(getattr(settings, name).get_secret_value() == "hush-hush" for name in names)
    secrets = {name for name in Settings.model_fields if re.search(r"key$|token$|secret|password|redis_url", name)}
    assert secrets == {*names}, "a setting that sounds secret is not among those tested"


def test_a_bad_setting_is_named_without_its_value() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(openai_api_key=["hush-hush"], max_tokens="hush-hush")
    assert "hush-hush" not in str(caught.value)
    assert caught.value.__cause__ is None
