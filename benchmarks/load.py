"""Turns under load, over WebSockets, against a paced upstream: this service beside a one-node LangGraph service.

`python -m benchmarks.load [--clients 1 16 64] [--turns 8] [--json]`. Load client, upstream and service share this
machine's cores; compare the rows of one run with each other, not with another day's.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import websockets
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
DOCUMENTS = ROOT / "examples"
QUESTIONS = [
    "At what wind speed are the domes closed?",
    "What happens if it is cloudy on an observing evening?",
    "Who was Ada Thornley?",
    "How was the observatory saved after it closed?",
    "What must I do before pointing a telescope at the Sun?",
    "Which tender for the roof was accepted?",
    "How much is paid for a hotel in London?",
    "Which workshop is the most expensive?",
    "Why is Algol variable?",
    "What was the lowest temperature ever measured on the fell?",
]
"""Of the sample documents; `client` makes each turn's different, so that no cache answers for the service."""


@dataclass(frozen=True)
class Row:
    """One service under one number of clients."""

    service: str
    clients: int
    turns: int
    errors: int
    cpu_ms: float
    """CPU time of the service's processes per turn."""
    first_p50_ms: float
    first_p95_ms: float
    turn_p50_ms: float
    turn_p95_ms: float
    turns_per_s: float
    memory_mb: float
    """Resident memory of the service's processes at the end."""


@contextmanager
def process(command: Sequence[str], ready: str, **environment: str) -> Iterator[psutil.Process]:
    """Run a server until its `ready` address answers 200; stop it at the end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CITEWELL_", "OPENAI_"))}
    started = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=kept | environment, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                if httpx.get(ready, timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if started.poll() is not None:
                raise SystemExit(f"{command[0]} ended before it was ready")
            time.sleep(0.1)
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(20)


def cpu_s(root: psutil.Process) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in [root, *root.children(recursive=True)])


async def client(url: str, name: str, turns: int, firsts: list[float], wholes: list[float]) -> int:
    """Ask `turns` questions on one socket, each in a new thread; return how many failed.

    In one thread every question after the first would be rewritten by the upstream, whose words mean nothing.
    """
    failed = 0
    async with websockets.connect(url, open_timeout=60) as socket:
        for turn in range(turns):
            question = QUESTIONS[(turn + int(name.rsplit(maxsplit=1)[-1])) % len(QUESTIONS)]
            question = f"{question[:-1]}, asks visitor {uuid4().hex[:6]}?"
            begun = time.perf_counter()
            first = None
            await socket.send(json.dumps({"message": question, "conversation_id": f"{name} {turn}"}))
            while True:
                frame = json.loads(await socket.recv())
                if "error" in frame:
                    failed += 1
                    break
                if first is None:
                    first = time.perf_counter() - begun
                if frame["done"]:
                    firsts.append(first)
                    wholes.append(time.perf_counter() - begun)
                    break
    return failed


async def measure(service: str, url: str, root: psutil.Process, clients: int, turns: int) -> Row:
    firsts: list[float] = []
    wholes: list[float] = []
    # Long enough that every chunk has been read: the guards judge each once, when it is first found.
    await asyncio.gather(*(client(url, f"warm {clients} {i}", len(QUESTIONS), [], []) for i in range(4)))
    cpu, begun = cpu_s(root), time.perf_counter()
    failed = await asyncio.gather(*(client(url, f"{clients} {i}", turns, firsts, wholes) for i in range(clients)))
    took, cpu = time.perf_counter() - begun, cpu_s(root) - cpu
    done = max(len(wholes), 1)
    memory = sum(each.memory_info().rss for each in [root, *root.children(recursive=True)])
    return Row(
        service=service, clients=clients, turns=len(wholes), errors=sum(failed), cpu_ms=1000 * cpu / done,
        first_p50_ms=_percentile(firsts, 50), first_p95_ms=_percentile(firsts, 95),
        turn_p50_ms=_percentile(wholes, 50), turn_p95_ms=_percentile(wholes, 95),
        turns_per_s=len(wholes) / took, memory_mb=memory / 2**20,
    )  # fmt: skip


def _percentile(values: list[float], percent: int) -> float:
    if len(values) < 2:
        return 1000 * sum(values)
    return 1000 * statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def services(stack: ExitStack, redis_url: str | None) -> dict[str, tuple[str, psutil.Process]]:
    """Start the upstream and every service that is compared; WebSocket address and process by name."""
    ports = iter(range(18731, 18760))
    upstream = f"http://127.0.0.1:{next(ports)}"
    stack.enter_context(process(["-m", "benchmarks.upstream", upstream.rsplit(":", 1)[1]], f"{upstream}/stats"))
    model = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": f"{upstream}/v1"}
    started = {}

    def start(name: str, command: list[str], **environment: str) -> None:
        port = next(ports)
        command = [part.format(port=port) for part in command]
        environment = {key: value.format(port=port) for key, value in environment.items()}
        root = stack.enter_context(process(command, f"http://127.0.0.1:{port}/readyz", **model, **environment))
        started[name] = (f"ws://127.0.0.1:{port}/ws/chat", root)

    start("one-node LangGraph", ["-m", "benchmarks.one_node", "{port}"])
    own = {"CITEWELL_CHAT_MODEL": "openai:paced", "CITEWELL_PORT": "{port}"}
    for name, more in {"citewell, SQLite": {}, "citewell, Redis": {"CITEWELL_REDIS_URL": redis_url}}.items():
        if None in more.values():
            continue
        data_dir = stack.enter_context(tempfile.TemporaryDirectory())
        environment = own | {"CITEWELL_DATA_DIR": data_dir} | {key: value for key, value in more.items() if value}
        subprocess.run(
            [sys.executable, "ingest.py", str(DOCUMENTS)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
            env=os.environ | {"CITEWELL_DATA_DIR": data_dir},
        )  # fmt: skip
        start(name, ["server.py"], **environment)
    return started


def show(rows: Sequence[Row]) -> None:
    table = Table(title="WebSocket turns against a paced upstream (60 tokens over 350 ms)")
    for name in ("service", "clients", "turns", "errors", "CPU ms/turn", "× floor", "first token p50 / p95 ms", "turn p50 / p95 ms", "turns/s", "MB"):  # fmt: skip
        table.add_column(name, justify="left" if name == "service" else "right")
    floor = {row.clients: row.cpu_ms for row in rows if row.service == "one-node LangGraph"}
    for row in rows:
        table.add_row(
            row.service, str(row.clients), str(row.turns), str(row.errors), f"{row.cpu_ms:.1f}",
            f"{row.cpu_ms / floor[row.clients]:.2f}", f"{row.first_p50_ms:.0f} / {row.first_p95_ms:.0f}",
            f"{row.turn_p50_ms:.0f} / {row.turn_p95_ms:.0f}", f"{row.turns_per_s:.1f}", f"{row.memory_mb:.0f}",
        )  # fmt: skip
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--turns", type=int, default=8, help="turns per client")
    parser.add_argument("--redis-url", help="a Redis of your own; without it the row is left out")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    with ExitStack() as stack:
        for name, (url, root) in services(stack, arguments.redis_url).items():
            for clients in arguments.clients:
                rows += [asyncio.run(measure(name, url, root, clients, arguments.turns))]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    main()
