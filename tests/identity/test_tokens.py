"""Tokens against a real issuer: what is let in, and every way in that is known and shut."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest

from citewell.errors import ConfigurationError, IdentityUnavailable, NotAuthenticated
from citewell.identity import Identity, key_set, open_identity
from citewell.settings import Settings
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer, by_hand, issuing, rsa_key


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


def make_settings(place: str, **more: Any) -> Settings:
    given = {"jwt_jwks": place, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE} | more
    return Settings(_env_file=None, **given)  # type: ignore[arg-type]


async def identify(issuer: Issuer, token: str, **more: Any) -> Identity:
    return await (await open_identity(make_settings(issuer.url, **more))).identify(token)


async def test_a_good_token_names_its_bearer_and_their_labels(issuer: Issuer) -> None:
    found = await identify(issuer, issuer.token("alice", access=["staff", "board", "no label!", "caller:0123", 7]))
    assert found == Identity(caller="jwt:alice", access=frozenset({"public", "staff", "board"}))
    assert (await identify(issuer, issuer.token("bob"))).access == frozenset({"public"})


async def test_claims_and_algorithms_are_the_settings(issuer: Issuer) -> None:
    token = issuer.token(email="ann@example.org", realm={"roles": ["staff"]})
    found = await identify(issuer, token, jwt_caller_claim="email", jwt_access_claim="realm.roles")
    assert (found.caller, found.access) == ("jwt:ann@example.org", frozenset({"public", "staff"}))
    scoped = await identify(issuer, issuer.token(scope="staff board"), jwt_access_claim="scope")
    assert scoped.access == frozenset({"public", "staff", "board"})
    by_curve = jwt.encode(issuer.claims("eve"), issuer.ec, "ES256", headers={"kid": "ec-1"})
    assert (await identify(issuer, by_curve)).caller == "jwt:eve"
    with pytest.raises(NotAuthenticated, match="algorithm"):
        await identify(issuer, by_curve, jwt_algorithms=("RS256",))


async def test_a_token_never_gives_everything(issuer: Issuer) -> None:
    assert (await identify(issuer, issuer.token(access=["*"]))).access == frozenset({"public"})


NOW = int(time.time())


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"exp": NOW - 60}, "expired"),
        ({"exp": None}, "not valid"),
        ({"exp": float("inf")}, "not valid"),
        ({"nbf": float("inf")}, "not valid"),
        ({"nbf": NOW + 86_400}, "not valid"),
        ({"aud": "another"}, "another audience"),
        ({"aud": None}, "not valid"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "not valid"),
        ({"sub": None}, "names nobody"),
        ({"sub": ""}, "names nobody"),
        ({"sub": "a\x1fb"}, "names nobody"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
async def test_claims_that_shut_the_door(issuer: Issuer, claims: dict[str, Any], says: str) -> None:
    with pytest.raises(NotAuthenticated, match=says):
        await identify(issuer, issuer.token(**claims))


async def test_names_and_labels_that_look_alike_are_others(issuer: Issuer) -> None:
    names = ("alice", "Alice", "alice ", "al\u200bice", "\uff41lice", "caf\u00e9", "cafe\u0301")
    found = [await identify(issuer, issuer.token(name, access=["sta\ufb00", "*", "caller:x"])) for name in names]
    assert len({one.folder for one in found}) == len({one.caller for one in found}) == len(names)
    assert {one.access for one in found} == {frozenset({"public", "sta\ufb00"})}


async def test_clocks_may_differ_by_the_leeway_only(issuer: Issuer) -> None:
    late = issuer.token(exp=int(time.time()) - 10)
    assert (await identify(issuer, late, jwt_leeway_s=30)).caller == "jwt:alice"
    with pytest.raises(NotAuthenticated, match="expired"):
        await identify(issuer, late, jwt_leeway_s=1)


def signed_with_public_key(issuer: Issuer) -> str:
    """HS256 with the issuer's public key as the secret: what a verifier that trusts the header would accept."""
    unsigned = by_hand({"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}, issuer.claims()).rpartition(".")[0]
    return by_hand(
        {"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}, issuer.claims(),
        hmac.new(issuer.pem, unsigned.encode(), hashlib.sha256).digest(),
    )  # fmt: skip


FORGERIES: dict[str, Any] = {
    "alg none": lambda issuer: by_hand({"alg": "none", "kid": "rsa-1"}, issuer.claims()),
    "alg None": lambda issuer: by_hand({"alg": "NoNe", "kid": "rsa-1"}, issuer.claims()),
    "no alg": lambda issuer: by_hand({"kid": "rsa-1"}, issuer.claims()),
    "alg is a list": lambda issuer: by_hand({"alg": ["RS256"], "kid": "rsa-1"}, issuer.claims()),
    "HS256 with the public key": signed_with_public_key,
    "RS256 by another key": lambda issuer: jwt.encode(issuer.claims(), rsa_key(), "RS256", headers={"kid": "rsa-1"}),
    "unknown kid": lambda issuer: jwt.encode(issuer.claims(), issuer.rsa, "RS256", headers={"kid": "rsa-2"}),
    "kid is an object": lambda issuer: by_hand({"alg": "RS256", "kid": {"a": 1}}, issuer.claims(), b"x"),
    "no kid among several keys": lambda issuer: jwt.encode(issuer.claims(), issuer.rsa, "RS256"),
    "the kid of the other family": lambda issuer: jwt.encode(
        issuer.claims(), issuer.rsa, "RS256", headers={"kid": "ec-1"}
    ),
    "its own key in the header": lambda issuer: jwt.encode(
        issuer.claims(), (own := rsa_key()), "RS256", headers={"kid": "x", "jwk": Issuer.public(own, "x")}
    ),
    "its own key's address in the header": lambda issuer: jwt.encode(
        issuer.claims(), rsa_key(), "RS256", headers={"kid": "x", "jku": issuer.url}
    ),
    "no signature": lambda issuer: issuer.token().rpartition(".")[0] + ".",
    "another body": lambda issuer: ".".join(
        part if n != 1 else by_hand({}, issuer.claims("root")).split(".")[1]
        for n, part in enumerate(issuer.token().split("."))
    ),
    "not a token": lambda issuer: "a.b.c",
    "two parts": lambda issuer: "a.b",
    "not ASCII": lambda issuer: "ü.ß.é",
    "very long": lambda issuer: issuer.token() + "A" * 10_000,
    "empty": lambda issuer: "",
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forgery_is_refused(issuer: Issuer, name: str) -> None:
    with pytest.raises(NotAuthenticated):
        await identify(issuer, FORGERIES[name](issuer))


async def test_what_is_too_long_is_not_looked_at(issuer: Issuer) -> None:
    with pytest.raises(NotAuthenticated, match="too long"):
        await identify(issuer, issuer.token() + "A" * 10_000)


async def test_a_symmetric_key_in_the_set_is_no_key(issuer: Issuer) -> None:
    issuer.keys.append(
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "alg": "HS256"}
    )
    token = jwt.encode(issuer.claims(), b"secret-secret-secret-secret-secret", "HS256", headers={"kid": "shared"})
    with pytest.raises(NotAuthenticated):
        await identify(issuer, token)


async def test_keys_that_sign_nothing_do_not_count(issuer: Issuer) -> None:
    other = rsa_key()
    issuer.keys.append(Issuer.public(other, "enc-1") | {"use": "enc"})
    with pytest.raises(NotAuthenticated):
        await identify(issuer, jwt.encode(issuer.claims(), other, "RS256", headers={"kid": "enc-1"}))
    issuer.keys[1:] = [issuer.keys[2], {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"}]
    assert (await identify(issuer, jwt.encode(issuer.claims(), issuer.rsa, "RS256"))).caller == "jwt:alice", (
        "one is left, which needs no name"
    )


async def test_a_key_serves_its_own_algorithm_only(issuer: Issuer) -> None:
    issuer.keys[0]["alg"] = "RS512"
    with pytest.raises(NotAuthenticated, match="algorithm"):
        await identify(issuer, issuer.token())


async def test_an_issuer_that_leads_elsewhere_is_not_followed(issuer: Issuer) -> None:
    with issuing() as other:
        token = other.token()
        issuer.status, issuer.location = 302, other.url
        with pytest.raises(IdentityUnavailable):
            await identify(issuer, token)
        assert other.fetches == 0


async def test_a_set_of_keys_that_has_no_end_is_not_read(issuer: Issuer) -> None:
    issuer.keys.append({"kty": "none", "filling": "x" * key_set.MOST_BYTES})
    with pytest.raises(IdentityUnavailable):
        await identify(issuer, issuer.token())


@pytest.mark.parametrize("name", ["HS256", "none", "rs256"])
def test_settings_refuse_algorithms_without_a_public_key(name: str) -> None:
    with pytest.raises(ValueError, match="jwt_algorithms"):
        make_settings("https://issuer.example/jwks", jwt_algorithms=(name,))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"jwt_issuer": None}, "CITEWELL_JWT_ISSUER"),
        ({"jwt_jwks": "http://issuer.example/jwks"}, "use https"),
        ({"jwt_jwks": "https://[::1/jwks"}, "CITEWELL_JWT_JWKS"),
    ],
)
def test_settings_refuse_half_a_set_up(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_settings("https://issuer.example/jwks", **more)


async def test_a_new_key_of_the_issuer_is_fetched_when_first_seen(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = await open_identity(make_settings(issuer.url))
    await authenticator.identify(issuer.token())
    assert issuer.fetches == 1, "the keys were fetched at the start"
    fresh = rsa_key()
    issuer.keys = [Issuer.public(fresh, "rsa-2")]
    token = jwt.encode(issuer.claims("carol"), fresh, "RS256", headers={"kid": "rsa-2"})
    with pytest.raises(NotAuthenticated):
        await authenticator.identify(token)  # too soon after the fetch before
    monkeypatch.setattr(key_set, "RETRY_S", 0.0)
    found = await asyncio.gather(*(authenticator.identify(token) for _ in range(20)))
    assert {one.caller for one in found} == {"jwt:carol"}
    assert issuer.fetches == 2, "twenty at once made more than one fetch"
    with pytest.raises(NotAuthenticated):
        await authenticator.identify(issuer.token())  # its key is not listed any more


async def test_a_key_that_the_issuer_withdrew_is_refused_after_the_next_look(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = await open_identity(make_settings(issuer.url))
    del issuer.keys[0]
    assert (await authenticator.identify(issuer.token())).caller == "jwt:alice"
    monkeypatch.setattr(key_set, "RETRY_S", 0.0)
    monkeypatch.setattr(key_set, "REFRESH_S", -1.0)
    with pytest.raises(NotAuthenticated):
        await authenticator.identify(issuer.token())


async def test_unknown_key_ids_do_not_make_it_fetch(issuer: Issuer) -> None:
    authenticator = await open_identity(make_settings(issuer.url))
    for number in range(30):
        with pytest.raises(NotAuthenticated):
            await authenticator.identify(
                jwt.encode(issuer.claims(), issuer.rsa, "RS256", headers={"kid": f"made-up-{number}"})
            )
    assert issuer.fetches == 1


async def test_an_issuer_that_cannot_be_reached_shuts_the_door(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_set, "RETRY_S", 0.0)
    issuer.status = 500
    authenticator = await open_identity(make_settings(issuer.url))
    with pytest.raises(IdentityUnavailable):
        await authenticator.identify(issuer.token())
    issuer.status = 200
    assert (await authenticator.identify(issuer.token())).caller == "jwt:alice"
    issuer.status = 500
    monkeypatch.setattr(key_set, "REFRESH_S", -1.0)
    assert (await authenticator.identify(issuer.token())).caller == "jwt:alice", "keys count for a while"
    monkeypatch.setattr(key_set, "OLDEST_S", -1.0)
    with pytest.raises(IdentityUnavailable):
        await authenticator.identify(issuer.token())


async def test_an_issuer_that_is_not_there_shuts_the_door(issuer: Issuer) -> None:
    authenticator = await open_identity(make_settings("http://127.0.0.1:1/jwks"))
    with pytest.raises(IdentityUnavailable):
        await authenticator.identify(issuer.token())


async def test_a_silent_issuer_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_set, "FETCH_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and says nothing
        authenticator = await open_identity(make_settings(f"http://127.0.0.1:{server.getsockname()[1]}/jwks"))
        with pytest.raises(IdentityUnavailable):
            await authenticator.identify(by_hand({"alg": "RS256", "kid": "a"}, {}, b"x"))


async def test_while_the_issuer_is_silent_those_whose_key_is_known_do_not_wait_for_it(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other five seconds all callers waited, for as long as the issuer was silent."""
    authenticator = await open_identity(make_settings(issuer.url))
    for name, value in (("FETCH_TIMEOUT_S", 0.5), ("RETRY_S", 0.0), ("REFRESH_S", -1.0)):
        monkeypatch.setattr(key_set, name, value)
    issuer.answers.clear()
    await authenticator.identify(issuer.token())  # finds out that it is silent
    monkeypatch.setattr(key_set, "FETCH_TIMEOUT_S", 3600.0)
    before = issuer.fetches
    for _ in range(5):
        assert (await authenticator.identify(issuer.token())).caller == "jwt:alice"
    fresh = rsa_key()
    issuer.keys = [Issuer.public(fresh, "rsa-1")]
    async with asyncio.timeout(60):
        while issuer.fetches == before:  # it is asked again all the same
            await asyncio.sleep(0.01)
        issuer.answers.set()
        with suppress(NotAuthenticated):  # as soon as the new keys are there
            while await authenticator.identify(issuer.token()):
                await asyncio.sleep(0.01)


async def test_keys_from_a_file(issuer: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    with pytest.raises(ConfigurationError, match="CITEWELL_JWT_JWKS"):
        await open_identity(make_settings(str(path)))
    path.write_bytes(orjson.dumps({"keys": issuer.keys[:1]}))
    authenticator = await open_identity(make_settings(str(path)))
    assert (await authenticator.identify(issuer.token())).caller == "jwt:alice"
    without_kid = jwt.encode(issuer.claims(), issuer.rsa, "RS256")
    assert (await authenticator.identify(without_kid)).caller == "jwt:alice", "a single key needs no name"
