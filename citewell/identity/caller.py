"""A caller, and the binding of thread ids to callers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

LOCAL = "local"
"""The name of every caller where there are neither keys nor tokens."""
OWN = "caller:"
"""Prefix of each caller's own access label, which no key and no token can grant."""
_MARK = "\x1f"
"""Unit separator. Neither callers' names nor ids that clients give may hold a control character, so a bound id is never one that somebody
gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller."""

    caller: str = LOCAL
    """The caller's name, without control characters, to which limits, budgets and conversations belong."""
    access: frozenset[str] | None = None
    """Access labels that the caller holds; None: everything may be read."""

    @property
    def own_label(self) -> str:
        """The label of documents that the caller alone may read."""
        return f"{OWN}{self.folder}"

    @property
    def folder(self) -> str:
        """The name of the caller's folder: a digest, as their own name may hold any characters."""
        return hashlib.sha256(self.caller.encode()).hexdigest()[:32]

    @property
    def readable(self) -> frozenset[str] | None:
        """All labels that the caller holds, including their own; None: everything may be read."""
        return None if self.access is None else self.access | {self.own_label}

    def holds(self, labels: Iterable[str]) -> bool:
        """Whether the caller holds all of `labels`, and may give them to a document."""
        return self.readable is None or self.readable.issuperset(labels)


def bind(caller: str, thread_id: str) -> str:
    """The id under which a caller's conversation is stored; it differs between callers.

    `local` has no prefix, so that conversations from before there were callers can be continued.
    """
    return thread_id if caller == LOCAL else f"{caller}{_MARK}{thread_id}"


def given_id(stored: str) -> str:
    """The id that the caller gave: the inverse of `bind`."""
    return stored.partition(_MARK)[2] or stored
