"""A caller, and the binding of thread ids to callers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

LOCAL = "local"
"""Everybody, where nobody is asked who they are."""
OWN = "caller:"
"""How the label of what a caller alone may read begins; no key and no token can give one."""
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

    @property
    def own_label(self) -> str:
        """The label of what they alone may read."""
        return f"{OWN}{self.folder}"

    @property
    def folder(self) -> str:
        """Their name as that of a folder: a digest, for it may hold any characters."""
        return hashlib.sha256(self.caller.encode()).hexdigest()[:32]

    @property
    def readable(self) -> frozenset[str] | None:
        """Every label that opens something to them; None: everything may be read."""
        return None if self.access is None else self.access | {self.own_label}

    def holds(self, labels: Iterable[str]) -> bool:
        """Whether every one of `labels` is theirs to give."""
        return self.readable is None or self.readable.issuperset(labels)


def bind(caller: str, thread_id: str) -> str:
    """The id under which a caller's conversation is stored; two callers' ids are never the same.

    `local` has no prefix, so that conversations begun before there were callers go on.
    """
    return thread_id if caller == LOCAL else f"{caller}{_MARK}{thread_id}"


def given_id(stored: str) -> str:
    """The id as its caller gave it: the inverse of `bind`."""
    return stored.partition(_MARK)[2] or stored
