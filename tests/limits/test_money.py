"""What is set aside for a call, what is given back, and how long it is remembered."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from langchain_core.messages import HumanMessage

from citewell.errors import ModelError
from citewell.limits import Limits, Prices, open_limits
from citewell.limits.ledger import DAY_S, Ask, ProcessLedger, RedisLedger
from citewell.redis_client import connect
from citewell.settings import Settings
from graph.calls import Calls
from graph.state import RunContext

MODEL = "openai:dear"
PRICES = {MODEL: (10.0, 30.0)}
QUESTION = "日本語の質問"


def make_settings(**limits: Any) -> Settings:
    return Settings(_env_file=None, prices=PRICES, model_retries=0, **limits)


class NoModel:
    """Chat models none of which can be had."""

    default = MODEL

    def get(self, *_: object, **__: object) -> None:
        raise ModelError("It cannot be built.")


async def ask(limits: object, **context: Any) -> None:
    calls = Calls(SimpleNamespace(settings=make_settings(), limits=limits, models=NoModel()))  # type: ignore[arg-type]
    run = RunContext(**context)
    async for _ in calls.stream(run, calls.prepare(run), [HumanMessage(QUESTION)]):
        pass


async def test_a_call_is_reserved_by_the_bytes_of_its_prompt_and_the_callers_own_longest_answer() -> None:
    asked: list[tuple[int, int]] = []

    class Recorder:
        def reserve(self, caller: str, model: str, prompt_tokens: int, max_tokens: int) -> None:
            asked.append((prompt_tokens, max_tokens))
            raise RuntimeError("noted")

    with pytest.raises(RuntimeError):
        await ask(Recorder(), max_tokens=32_000)
    assert asked == [(len(QUESTION.encode()), 32_000)]


async def test_a_call_to_a_model_that_cannot_be_had_costs_nothing() -> None:
    async with open_limits(make_settings(budget_usd_per_day=1)) as limits:
        with pytest.raises(ModelError):
            await ask(limits, caller="ann")
        assert (await limits.spent("ann"))["usd"] == 0


async def test_what_was_used_stays_charged_though_the_call_is_released() -> None:
    async with open_limits(make_settings(budget_usd_per_day=1)) as limits:
        async with limits.reserve("ann", MODEL, 1000, 500) as reservation:
            reservation.settle({"input_tokens": 1000, "output_tokens": 100})
            reservation.release()
        assert (await limits.spent("ann"))["tokens"] == 1100


async def test_impossible_figures_of_a_provider_give_nothing_back() -> None:
    async with open_limits(make_settings(budget_usd_per_day=1)) as limits:
        for used in ({"input_tokens": 1000, "output_tokens": 100}, {"input_tokens": -1000, "output_tokens": "many"}):
            async with limits.reserve("ann", MODEL, 1000, 500) as reservation:
                reservation.settle(used)
        assert (await limits.spent("ann"))["tokens"] == 1100


async def test_a_caller_who_leaves_while_money_is_given_back_gets_it() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(ProcessLedger):
        async def adjust(self, caller: str, day: int, cost: int, tokens: int) -> None:
            begun.set()
            await go_on.wait()
            await super().adjust(caller, day, cost, tokens)

    limits = Limits(make_settings(budget_usd_per_day=1), Slow(), Prices(PRICES))

    async def call() -> None:
        async with limits.reserve("ann", MODEL, 1000, 500) as reservation:
            reservation.settle({"input_tokens": 1000, "output_tokens": 100})

    task = asyncio.create_task(call())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    async with asyncio.timeout(60):
        while (await limits.spent("ann"))["tokens"] != 1100:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("usd", "tokens", "share"), [(1000, 2000, 0.75), (0.05, 1_000_000, 0.5)])
async def test_the_share_is_that_of_whatever_is_nearer_its_end(usd: float, tokens: int, share: float) -> None:
    settings = make_settings(budget_usd_per_day=usd, tokens_per_day=tokens)
    async with open_limits(settings) as limits, limits.reserve("ann", MODEL, 1000, 500) as reservation:
        assert reservation.share == share


async def test_a_day_that_is_over_stays_closed_and_a_day_lasts_in_redis(redis_url: str) -> None:
    ledger = RedisLedger(
        connect(redis_url, max_connections=4, timeout_s=60), namespace="money", timeout_s=60, max_connections=4
    )
    try:
        outcome = await ledger.reserve("ann", [Ask(cost=100, tokens=10)], 1000, 0)
        await ledger.adjust("ann", outcome.day - 1, -50, -5)
        assert await ledger.spent("ann") == (100, 10)
        await ledger.admit("ann", 5)
        with redis.Redis.from_url(redis_url) as raw:
            left_ms = {key.rpartition(b":")[2]: raw.pttl(key) for key in raw.scan_iter("money:limits:*")}
        assert left_ms[b"day"] > 86_400_000
        assert left_ms[b"minute"] > 45_000
        await ledger.adjust("ann", outcome.day, -500, -500)
        assert await ledger.spent("ann") == (0, 0)
    finally:
        await ledger.close()


async def test_a_clock_set_back_opens_no_closed_day() -> None:
    now = [10.0 * DAY_S]
    ledger = ProcessLedger(lambda: now[0])
    await ledger.reserve("ann", [Ask(cost=100, tokens=10)], 1000, 0)
    now[0] -= 60
    assert await ledger.spent("ann") == (100, 10)


async def test_a_clock_set_back_refuses_nobody_for_longer_than_a_minute() -> None:
    now = [10.0 * DAY_S]
    ledger = ProcessLedger(lambda: now[0])
    assert [await ledger.admit("ann", 2) for _ in range(3)] == [0, 0, 60]
    now[0] -= 3600
    assert [await ledger.admit("ann", 2) for _ in range(3)] == [0, 0, 60]


async def test_redis_clock_set_back_refuses_nobody_for_longer_than_a_minute(redis_url: str) -> None:
    ledger = RedisLedger(
        connect(redis_url, max_connections=4, timeout_s=60), namespace="minute", timeout_s=60, max_connections=4
    )
    try:
        with redis.Redis.from_url(redis_url) as raw:
            later = (time.time() + 3600) * 1e6
            raw.zadd(ledger._key("ann", b":minute"), {"one": later, "other": later + 1})
        assert await ledger.admit("ann", 2) == 0
        assert await ledger.admit("ann", 2) == 0
        assert 0 < await ledger.admit("ann", 2) <= 60
    finally:
        await ledger.close()


async def test_redis_clock_set_back_opens_no_closed_day(redis_url: str) -> None:
    ledger = RedisLedger(
        connect(redis_url, max_connections=4, timeout_s=60), namespace="back", timeout_s=60, max_connections=4
    )
    tomorrow = int(time.time() // DAY_S) + 1
    try:
        with redis.Redis.from_url(redis_url) as raw:
            raw.hset(ledger._key("ann", b":day"), mapping={"day": tomorrow, "cost": 100, "tokens": 10})
        assert await ledger.spent("ann") == (100, 10)
        assert (await ledger.reserve("ann", [Ask(cost=1, tokens=1)], 1000, 0)).day == tomorrow
    finally:
        await ledger.close()


async def test_forgetting_callers_spares_those_of_the_last_minute() -> None:
    now = [1000.0]
    ledger = ProcessLedger(lambda: now[0])
    for number in range(10_001):
        await ledger.admit(str(number), 1)
    now[0] += 1
    assert await ledger.admit("0", 1) > 0


async def test_nobody_is_charged_for_a_caller_whose_name_begins_alike(redis_url: str) -> None:
    ledger = RedisLedger(
        connect(redis_url, max_connections=4, timeout_s=60), namespace="alike", timeout_s=60, max_connections=4
    )
    try:
        await ledger.reserve("anna", [Ask(cost=100, tokens=10)], 1000, 0)
        assert await ledger.spent("annabel") == (0, 0)
    finally:
        await ledger.close()


def test_prices_round_up_and_the_longest_pattern_wins() -> None:
    prices = Prices({"a:*": (9.0, 9.0), "a:b*": (0.0001, 0.0001)})
    assert prices.cost("a:bc", 1, 0) == 1
