"""A caller, and the binding of thread ids to callers."""

from __future__ import annotations

from dataclasses import dataclass

LOCAL = "local"
"""Everybody, where nobody is asked who they are."""
_MARK = "\x1f"
"""Unit separator. Neither a caller's name nor an id that a client gives may hold a control character, so what is bound
to one caller is never what another gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a request comes from."""

    caller: str = LOCAL
    """Their name here, without control characters; limits, budgets and conversations go by it."""
    access: frozenset[str] | None = None
    """Access labels they hold; None: everything may be read."""

    def holds(self, labels: frozenset[str]) -> bool:
        """Whether every one of `labels` is theirs to give."""
        return self.access is None or labels <= self.access


def bind(caller: str, thread_id: str) -> str:
    """The id under which a caller's conversation is stored; two callers' ids are never the same.

    `local` has no prefix, so that conversations begun before there were callers go on.
    """
    return thread_id if caller == LOCAL else f"{caller}{_MARK}{thread_id}"


def given_id(stored: str) -> str:
    """The id as its caller gave it: the inverse of `bind`."""
    return stored.partition(_MARK)[2] or stored
