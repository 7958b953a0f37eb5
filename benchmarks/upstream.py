"""A paced OpenAI-compatible server: it streams a fixed text at a fixed pace and counts what became of each call.

For load tests and for tests of cancellation, where the time and the number of calls matter and the words do not. A model named `endless`
falls silent after ten words, until its caller leaves.
`python -m benchmarks.upstream PORT`.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

FIRST_TOKEN_S = 0.050
TOKENS = 60
SPREAD_S = 0.300
"""Time from the first token to the last."""
WORDS = ["The", " tower", " is", " 42", " metres", " high", " [1]."] + [" So", " it", " is", " said", "."] * 11

counts = {"started": 0, "finished": 0, "left": 0}


async def completions(request: Request) -> Response:
    body = await request.json()
    pace = float(request.headers.get("x-pace", "1"))
    counts["started"] += 1
    usage = {"prompt_tokens": 100, "completion_tokens": TOKENS, "total_tokens": 100 + TOKENS}
    head = {"id": "paced", "created": int(time.time()), "model": body["model"]}
    if not body.get("stream"):
        await asyncio.sleep(FIRST_TOKEN_S * pace)
        counts["finished"] += 1
        message = {"role": "assistant", "content": "".join(WORDS[:TOKENS])}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse(head | {"object": "chat.completion", "choices": [choice], "usage": usage})

    async def stream() -> AsyncIterator[bytes]:
        def event(delta: dict[str, str], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return b"data: " + json.dumps(head | {"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"  # fmt: skip

        whole = False
        try:
            begun = time.monotonic()
            for i in range(TOKENS):
                due = begun + (FIRST_TOKEN_S + SPREAD_S * i / (TOKENS - 1)) * pace
                await asyncio.sleep(
                    3600 if i == 10 and body["model"] == "endless" else max(0.0, due - time.monotonic())
                )
                yield event({"role": "assistant", "content": WORDS[i]} if i == 0 else {"content": WORDS[i]})
            yield event({}, "stop")
            if (body.get("stream_options") or {}).get("include_usage"):
                yield b"data: " + json.dumps(head | {"object": "chat.completion.chunk", "choices": [], "usage": usage}).encode() + b"\n\n"  # fmt: skip
            yield b"data: [DONE]\n\n"
            whole = True
        finally:
            counts["finished" if whole else "left"] += 1

    return StreamingResponse(stream(), media_type="text/event-stream")


async def slow_completions(request: Request) -> Response:
    """The same, so many times slower that a client can leave in the middle."""
    request.scope["headers"].append((b"x-pace", str(request.path_params["pace"]).encode()))
    return await completions(request)


async def stats(_: Request) -> Response:
    return JSONResponse(counts)


app = Starlette(
    routes=[
        Route("/v1/chat/completions", completions, methods=["POST"]),
        Route("/pace/{pace:float}/chat/completions", slow_completions, methods=["POST"]),
        Route("/stats", stats),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
