"""Run as a process of its own: writes to an index, and can be made to die, with kill -9, between any two steps.

`python -m tests.retrieval.writers die FOLDER STEP...` forks one child per step that replaces two sources and kills
itself there; `... keep FOLDER` replaces sources until it is killed; `... rebuild FOLDER COUNT` dies in a rebuild;
`... churn` forks one child per line of its input, which makes the changes that stand there and may have to die at a step.
"""

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from citewell.errors import CitewellError
from citewell.retrieval import Index, NewSource, open_index
from citewell.retrieval.catalog import Catalog
from citewell.retrieval.keywords import KeywordIndex
from citewell.retrieval.stores.chroma import ChromaStore
from citewell.retrieval.tokens import TokenFile
from tests.retrieval.samples import HashedWords, made, settings

STEPS: dict[str, tuple[type, str, bool]] = {
    "keys reserved": (Catalog, "reserve", True),
    "before token vectors": (TokenFile, "write", False),
    "token vectors written": (TokenFile, "write", True),
    "before vectors": (ChromaStore, "add", False),
    "vectors written": (ChromaStore, "add", True),
    "before keywords are committed": (KeywordIndex, "commit", False),
    "keywords committed": (KeywordIndex, "commit", True),
    "before the catalog's commit": (Catalog, "replace", False),
    "after the catalog's commit": (Catalog, "replace", True),
    "cleaning begun": (Catalog, "begin_cleaning", True),
    "old vectors deleted": (ChromaStore, "delete", True),
    "before leftovers are forgotten": (Catalog, "forget", False),
}
"""Where a writer can die: the method, and whether before or after it."""


def version(number: int) -> list[NewSource]:
    """Two sources of five chunks; every chunk names its version."""
    return [
        made(f"{name}.txt", [f"{name} says marker version{number} part{part} of this text" for part in range(5)])
        for name in ("first", "second")
    ]


async def replace(folder: Path, number: int) -> None:
    async with open_index(settings(folder), HashedWords()) as index, index.writing():
        await index.replace_sources(version(number))


async def keep(folder: Path) -> None:
    async with open_index(settings(folder), HashedWords()) as index:
        for number in range(2, 100_000):
            async with index.writing():
                await index.replace_sources(version(number))


async def rebuild(folder: Path, done: int) -> None:
    async with open_index(settings(folder), HashedWords("another model")) as index, index.rebuilding() as fresh:
        for number in range(done):
            new = made(f"{number}.txt", [f"text number{number}"])
            await fresh.replace_sources([new])
        os.kill(os.getpid(), signal.SIGKILL)


async def fill(folder: Path, kilobytes: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with open_index(settings(folder), HashedWords()) as index:
        await replace_with(index, 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, most))
        try:
            for number in range(100):
                async with index.writing():
                    await index.replace_sources(
                        [made(f"{number}.txt", [f"{number} {part} " + f"word{part} " * 60 for part in range(50)])]
                    )
        except CitewellError as exc:
            print(exc.code, end=" ")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        await replace_with(index, 2)
        found = await index.search("marker version2 part0 of this text")
        print(kilobytes, sum("version2" in one.chunk.text for one in found), flush=True)


Held = dict[str, tuple[int, str]]
"""Which version of its text a source holds, and the label of who may read it."""
WORDS = "red green blue ferry tower moon cat dog river stone".split()


def written(name: str, version: int, label: str) -> NewSource:
    """A source of none to four paragraphs, of which other sources and other versions hold some too."""
    paragraphs = [
        " ".join(WORDS[(version * 7 + part * (3 + word)) % 10] for word in range(5)) for part in range(version % 5)
    ]
    return made(name, paragraphs, title=f"on {label}", access=(label,))


async def change(folder: Path, changes: list[Held | str], now: Held, anew: bool) -> None:
    """Make changes one after the other: put sources, or remove the one named. `anew`: then build all that is held anew."""
    async with open_index(settings(folder), HashedWords()) as index:
        async with index.writing():
            for each in changes:
                if isinstance(each, str):
                    await index.remove_source(each)
                else:
                    await index.replace_sources([written(name, *held) for name, held in each.items()])
        if anew:
            async with index.rebuilding() as fresh:
                for source in await fresh.sources():  # of a rebuild that was killed
                    await fresh.remove_source(source.uri)
                await fresh.replace_sources([written(name, *held) for name, held in now.items()])


async def replace_with(index: Index, number: int) -> None:
    async with index.writing():
        await index.replace_sources(version(number))


def die_at(step: str) -> None:
    owner, name, afterwards = STEPS[step]
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        # An opening clean-up may call the same methods before the change itself does.
        last = calls > (1 if name == "begin_cleaning" else 0)
        if last and not afterwards:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def main(command: str, folder: Path = Path(), *rest: str) -> None:
    if command == "churn":
        for line in sys.stdin:
            asked = json.loads(line)
            child = os.fork()
            if child == 0:
                if asked["step"]:
                    die_at(asked["step"])
                asyncio.run(change(Path(asked["folder"]), asked["changes"], asked["now"], asked["anew"]))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
    elif command == "keep":
        asyncio.run(keep(folder))
    elif command == "rebuild":
        asyncio.run(rebuild(folder, int(rest[0])))
    elif command == "fill":
        for kilobytes in rest:
            asyncio.run(fill(folder / kilobytes, int(kilobytes)))
    else:
        for number, step in enumerate(rest):
            child = os.fork()
            if child == 0:
                die_at(step)
                asyncio.run(replace(folder / str(number), 2))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            print(step, "|", os.WTERMSIG(status) if os.WIFSIGNALED(status) else "lived", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:3]), *sys.argv[3:])
