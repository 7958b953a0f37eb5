"""Reads checkpoints without trusting them: an allow-list of types, no pickle, no constructors named in JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from citewell.errors import CheckpointError


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serializer, restricted to MessagePack and to types that are known to be harmless.

    LangChain's messages and documents, LangGraph's own values and the standard library's plain ones are always allowed
    (`SAFE_MSGPACK_TYPES` of langgraph-checkpoint). Any other type must be named; a value of a type that is not is read as the plain data
    that was stored, and nothing is imported or called for it.

    Args:
        allowed: Further types, as classes or `(module, name)`.
    """

    def __init__(self, allowed: Iterable[type | tuple[str, str]] = ()) -> None:
        super().__init__(allowed_msgpack_modules=tuple(allowed) or None)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:  # Any: as the base class has it
        if data[0] not in ("msgpack", "bytes", "bytearray", "null"):
            raise CheckpointError(f"A stored value is of the kind {data[0]!r}, which is never read.")
        return super().loads_typed(data)
