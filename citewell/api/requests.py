"""What all doors read from a request: who calls, and the options of the turn."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import HTTPConnection

from citewell.errors import InvalidRequest
from citewell.identity import Identity
from graph.state import RunContext

SAMPLE = "At what wind speed are the domes closed?"
"""The question that the API page's forms hold at first; the sample documents answer it."""


def identity_of(connection: HTTPConnection) -> Identity:
    """The caller of a request or a socket, as the middleware has identified it."""
    identity: Identity = connection.scope["citewell_identity"]
    return identity


async def identity_now(connection: HTTPConnection) -> Identity:
    """The caller, identified again: a socket may outlive its key.

    Raises:
        NotAuthenticated, IdentityUnavailable: As when the connection was made.
    """
    again: Callable[[], Awaitable[Identity]] = connection.scope["citewell_identify"]
    return await again()


def options(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The per-call options among what was chosen; absent, null and empty ones are None: "as the settings say".

    Raises:
        InvalidRequest: An option has the wrong type; the message names it.
    """

    def pick(name: str, *kinds: type) -> Any:
        value = chosen.get(name)
        if value is None or value in ("", {}):
            return None
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InvalidRequest(f"{name} must be {' or '.join(kind.__name__ for kind in kinds)}.")
        return value

    return {
        "chat_model": pick("chat_model", str),
        "temperature": pick("temperature", int, float),
        "max_tokens": pick("max_tokens", int),
        "top_k": pick("top_k", int),
        "filter": pick("filter", dict),
        "trace": bool(pick("trace", bool)),
    }


def run_context(chosen: Mapping[str, Any], identity: Identity) -> RunContext:
    """What a caller chose, and who it is. Raises InvalidRequest as `options` does."""
    access = None if identity.readable is None else tuple(sorted(identity.readable))
    return RunContext(**options(chosen), caller=identity.caller, access=access)
