"""The Lua scripts that keep threads in Redis."""

from __future__ import annotations

import functools
from importlib.resources import files


@functools.cache
def script(name: str) -> str:
    """A Lua script of this package."""
    folder = files("citewell.threads") / "lua"
    return (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()


def load_scripts() -> None:
    """Read all scripts now, so that the first call of each does not read a file."""
    for file in (files("citewell.threads") / "lua").iterdir():
        if file.name.endswith(".lua") and file.name != "common.lua":
            script(file.name.removesuffix(".lua"))
