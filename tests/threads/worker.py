"""A worker process for tests to kill.

With a thread, a question and a pause: one turn, saying which node is done. With `--serve`: turns as they are asked for.
"""

import asyncio
import sys

from citewell.errors import CitewellError
from citewell.settings import Settings
from citewell.threads import open_threads
from tests.threads.echo_graph import ask, talk


async def one(thread_id: str, question: str, pause_s: float) -> None:
    async with open_threads(Settings.load(), lease_s=2) as threads, threads.turn(thread_id) as turn:
        app = talk(pause_s).compile(checkpointer=threads.checkpointer)
        async for update in app.astream(ask(question), {"configurable": turn.config}, durability="sync"):
            print(*update, flush=True)
        print("done", flush=True)


async def serve() -> None:
    async with open_threads(Settings.load(), lease_s=2) as threads:
        app = talk(0.02).compile(checkpointer=threads.checkpointer)

        async def answer(line: str) -> None:
            thread_id, question = line.split()
            while True:
                try:
                    async with threads.turn(thread_id) as turn:
                        await app.ainvoke(ask(question), {"configurable": turn.config}, durability="sync")
                    break
                except CitewellError as exc:
                    print(repr(exc), file=sys.stderr, flush=True)
            print(line, flush=True)

        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            while line := await asyncio.to_thread(sys.stdin.readline):
                group.create_task(answer(line.strip()))


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "--serve" else one(sys.argv[1], sys.argv[2], float(sys.argv[3])))
