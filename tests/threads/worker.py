"""A worker process for tests to kill: takes the thread, starts a turn, says where it is, and goes on for long."""

import asyncio
import os
import sys

from citewell.settings import Settings
from citewell.threads import open_threads
from tests.threads.talk import ask, talk


async def main(thread_id: str, question: str, pause_s: float) -> None:
    settings = Settings.load()
    async with open_threads(settings) as threads, threads.turn(thread_id) as turn:
        app = talk(pause_s).compile(checkpointer=threads.checkpointer)
        async for update in app.astream(ask(question), {"configurable": turn.config}, durability="sync"):
            print(*update, flush=True)
        print("done", flush=True)


if __name__ == "__main__":
    assert os.environ
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
