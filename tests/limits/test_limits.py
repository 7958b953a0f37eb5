"""Limits over a real Redis and in process: the same behaviour, exact when everybody comes at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest
import structlog
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from citewell.errors import BudgetExceeded, ConfigurationError, LimitsUnavailable, RateLimited, UnknownModel
from citewell.limits import WARN_AT, Limits, Prices, open_limits
from citewell.limits.ledger import DAY_S, Ask, ProcessLedger, RedisLedger
from citewell.redis_client import connect
from citewell.redis_connection import FOLLOW_EVERY_S
from citewell.settings import Settings
from tests.redis_servers import Cluster, Guarded, Server, wait_for

MODEL = "openai:dear"
CHEAP = "openai:cheap"
PRICES = {MODEL: (10.0, 30.0), CHEAP: (1.0, 3.0)}
CALL_USD = (1000 * 10 + 500 * 30) / 1e6  # 0.025: what 1,000 prompt and 500 answer tokens of MODEL cost


def make_settings(redis_url: str | None = None, **limits: object) -> Settings:
    url = SecretStr(redis_url) if redis_url else None
    return Settings(_env_file=None, redis_url=url, prices=PRICES, **limits)  # type: ignore[call-arg, arg-type]


@pytest.fixture(params=["in process", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    return str(request.getfixturevalue("redis_url")) if request.param == "redis" else None


@pytest.fixture
async def budget(url: str | None) -> AsyncIterator[Limits]:
    async with open_limits(make_settings(url, budget_usd_per_day=1.0)) as limits:
        yield limits


async def call(limits: Limits, caller: str = "ann", *, used: tuple[int, int] | None = (1000, 500)) -> None:
    async with limits.reserve(caller, MODEL, 1000, 500) as reservation:
        await asyncio.sleep(0)
        if used is not None:
            reservation.settle({"input_tokens": used[0], "output_tokens": used[1]})


async def test_without_limits_everything_passes_and_nothing_is_contacted() -> None:
    settings = make_settings("redis://127.0.0.1:1")  # nobody listens there
    async with open_limits(settings) as limits:
        await limits.admit("ann")
        async with limits.reserve("ann", "nobody:knows", 10**9, 10**9) as reservation:
            assert reservation.model == "nobody:knows"


async def test_requests_per_minute_refuse_the_next_and_say_when(url: str | None) -> None:
    async with open_limits(make_settings(url, requests_per_minute=3)) as limits:
        for _ in range(3):
            await limits.admit("ann")
        with pytest.raises(RateLimited) as refused:
            await limits.admit("ann")
        assert 0 < refused.value.retry_after_s <= 60
        await limits.admit("bob")  # another caller's minute is their own


async def test_500_requests_at_once_admit_exactly_the_limit(url: str | None) -> None:
    async with open_limits(make_settings(url, requests_per_minute=137)) as limits:
        results = await asyncio.gather(*(limits.admit("ann") for _ in range(500)), return_exceptions=True)
    assert sum(result is None for result in results) == 137
    assert all(result is None or isinstance(result, RateLimited) for result in results)


async def test_500_calls_at_once_never_overspend_by_one(budget: Limits) -> None:
    results = await asyncio.gather(*(call(budget, used=None) for _ in range(500)), return_exceptions=True)
    made = sum(result is None for result in results)
    assert made == int(1.0 / CALL_USD) == 40
    assert all(result is None or isinstance(result, BudgetExceeded) for result in results)
    assert (await budget.spent("ann"))["usd"] == pytest.approx(1.0)


async def test_settling_gives_back_what_was_not_used(budget: Limits) -> None:
    await call(budget, used=(1000, 100))
    assert await budget.spent("ann") == {"usd": pytest.approx(0.013), "tokens": 1100}


async def test_retries_add_up(budget: Limits) -> None:
    async with budget.reserve("ann", MODEL, 3000, 1500) as reservation:
        for _ in range(3):
            reservation.settle({"input_tokens": 1000, "output_tokens": 10})
    assert (await budget.spent("ann"))["tokens"] == 3030


async def test_a_failed_or_cancelled_call_is_charged_in_full_unless_it_says_what_it_used(budget: Limits) -> None:
    with pytest.raises(RuntimeError):
        async with budget.reserve("ann", MODEL, 1000, 500):
            raise RuntimeError
    running = asyncio.Event()

    async def leave() -> None:
        async with budget.reserve("ann", MODEL, 1000, 500):
            running.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(leave())
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await budget.spent("ann"))["usd"] == pytest.approx(2 * CALL_USD)


async def test_a_cancelled_stream_that_settled_gets_the_rest_back(budget: Limits) -> None:
    async def leave() -> None:
        async with budget.reserve("ann", MODEL, 1000, 500) as reservation:
            reservation.settle({"input_tokens": 1000, "output_tokens": 7})
            await asyncio.sleep(60)

    task = asyncio.create_task(leave())
    while (await budget.spent("ann"))["tokens"] != 1500:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline = time.monotonic() + 60
    while (await budget.spent("ann"))["tokens"] != 1007:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_call_that_never_reached_the_provider_costs_nothing(budget: Limits) -> None:
    async with budget.reserve("ann", MODEL, 1000, 500) as reservation:
        reservation.release()
    assert (await budget.spent("ann"))["usd"] == 0


async def test_an_exhausted_budget_stops_before_the_call_and_says_when_the_day_ends(budget: Limits) -> None:
    for _ in range(40):
        await call(budget)
    with pytest.raises(BudgetExceeded) as refused:
        async with budget.reserve("ann", MODEL, 1000, 500):
            pytest.fail("the model would have been called")
    assert 0 < refused.value.retry_after_s <= DAY_S
    await call(budget, "bob")


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"budget_usd_per_day": 0.03, "tokens_per_day": 9000}, r"\$0\.03"),
        ({"budget_usd_per_day": 1, "tokens_per_day": 2000}, "2,000 tokens"),
    ],
)
async def test_a_refusal_names_what_is_used_up(limits: dict[str, float], says: str) -> None:
    async with open_limits(make_settings(**limits)) as opened:
        await call(opened)
        with pytest.raises(BudgetExceeded, match=says):
            await call(opened)


async def test_tokens_per_day_are_kept_as_exactly_as_money(url: str | None) -> None:
    async with open_limits(make_settings(url, tokens_per_day=15_000)) as limits:
        results = await asyncio.gather(*(call(limits, used=None) for _ in range(100)), return_exceptions=True)
    assert sum(result is None for result in results) == 10


async def test_a_model_without_a_price_is_refused_only_under_a_budget(url: str | None) -> None:
    async with open_limits(make_settings(url, budget_usd_per_day=5)) as limits:
        with pytest.raises(UnknownModel, match="CITEWELL_PRICES"):
            async with limits.reserve("ann", "openai:unheard-of", 1, 1):
                pytest.fail("called")
    settings = make_settings(url, tokens_per_day=100)
    async with open_limits(settings) as limits, limits.reserve("ann", "openai:unheard-of", 1, 1):
        pass


@pytest.mark.parametrize(
    ("setting", "value"), [("chat_model", "openai:unheard-of"), ("chat_models", ("openai:gpt-4o", "openai:unheard-of"))]
)
async def test_a_model_that_may_be_asked_for_and_has_no_price_stops_the_start_under_a_budget(
    setting: str, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=f"CITEWELL_{setting.upper()}: openai:unheard-of has no price"):
        async with open_limits(make_settings(budget_usd_per_day=5, **{setting: value})):
            pytest.fail("started")
    async with open_limits(make_settings(tokens_per_day=5, **{setting: value})):
        pass


async def test_a_cheaper_model_takes_over_before_a_refusal(url: str | None) -> None:
    async with open_limits(make_settings(url, budget_usd_per_day=0.03, budget_model=CHEAP)) as limits:
        models = []
        for _ in range(3):
            async with limits.reserve("ann", MODEL, 1000, 500) as reservation:
                models.append(reservation.model)
        with pytest.raises(BudgetExceeded):
            await call(limits)
    assert models == [MODEL, CHEAP, CHEAP]


async def test_crossing_80_percent_is_warned_of_once(budget: Limits) -> None:
    with structlog.testing.capture_logs() as logs:
        for number in range(1, 41):
            async with budget.reserve("ann", MODEL, 1000, 500) as reservation:
                reservation.settle({"input_tokens": 1000, "output_tokens": 500})
                assert (reservation.share >= WARN_AT) == (number >= 32)
    assert [entry["event"] for entry in logs] == ["budget.nearly_spent"]
    assert "ann" not in json.dumps(logs)


async def test_a_budget_that_is_given_back_and_used_again_is_warned_of_once_a_day(url: str | None) -> None:
    with structlog.testing.capture_logs() as logs:
        async with open_limits(make_settings(url, budget_usd_per_day=2 * CALL_USD)) as limits:
            for caller in ("ann", "bob"):
                await call(limits, caller)
                for _ in range(3):
                    await call(limits, caller, used=(0, 0))
    assert [entry["event"] for entry in logs] == ["budget.nearly_spent"] * 2


async def test_every_day_is_warned_of_anew() -> None:
    clock = Clock()
    limits = Limits(make_settings(budget_usd_per_day=CALL_USD), ProcessLedger(clock), Prices(PRICES))
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            await call(limits)
            clock.now += DAY_S
    assert [entry["event"] for entry in logs] == ["budget.nearly_spent"] * 2


async def test_two_processes_share_one_budget(redis_url: str) -> None:
    program = f"""
import asyncio, sys
sys.path.insert(0, {sys.path[0]!r})
from pydantic import SecretStr
from citewell.errors import BudgetExceeded
from citewell.limits import open_limits
from citewell.settings import Settings
settings = Settings(_env_file=None, redis_url=SecretStr({redis_url!r}), prices={PRICES!r}, budget_usd_per_day=1.0)
async def one(limits):
    try:
        async with limits.reserve("ann", {MODEL!r}, 1000, 500):
            return 1
    except BudgetExceeded:
        return 0
async def main():
    async with open_limits(settings) as limits:
        print(sum(await asyncio.gather(*(one(limits) for _ in range(250)))))
asyncio.run(main())
"""
    workers = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = await asyncio.gather(*(asyncio.to_thread(worker.communicate) for worker in workers))
    assert sum(int(out.splitlines()[-1]) for out, _ in outputs) == 40


async def test_every_operation_is_one_round_trip(redis_url: str) -> None:
    import redis

    async with open_limits(make_settings(redis_url, budget_usd_per_day=1, requests_per_minute=99)) as limits:
        await limits.admit("ann")
        await call(limits)
        with redis.Redis.from_url(redis_url) as client:
            client.config_resetstat()
            await limits.admit("ann")
            await call(limits)
            calls = {name: stats["calls"] for name, stats in client.info("commandstats").items()}
    assert calls["cmdstat_evalsha"] == 3  # admit, reserve, adjust
    assert "cmdstat_eval" not in calls


async def test_a_restart_of_the_server_is_waited_for(own_redis: Server) -> None:
    client = connect(own_redis.url, max_connections=4, timeout_s=60)
    ledger = RedisLedger(client, namespace="restart", timeout_s=60, max_connections=4)
    try:
        own_redis.kill()
        refused = ledger._connection.calls + 2
        asked = asyncio.gather(ledger.admit("ann", 9), ledger.reserve("ann", [Ask(cost=100, tokens=10)], 1000, 0))
        while ledger._connection.calls < refused:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(own_redis.start)
        await asked
        assert await ledger.spent("ann") == (100, 10)
    finally:
        await ledger.close()


async def test_a_node_of_a_cluster_that_falls_silent_is_given_up_for_its_replica(redis_cluster: Cluster) -> None:
    async with open_limits(make_settings(redis_cluster.url, requests_per_minute=9)) as limits:
        await limits.admit("ann")
        [key] = [key for node in redis_cluster.nodes[:3] for key in node.client.scan_iter()]
        silent = await asyncio.to_thread(redis_cluster.primary_of, key)
        replicas: list[Server] = []

        def is_replicated() -> bool:
            replicas[:] = [node for node in redis_cluster.nodes[3:] if key in node.client.scan_iter()]
            return bool(replicas)

        await asyncio.to_thread(wait_for, is_replicated, "the replica to hear of it")
        assert silent.process is not None
        silent.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.to_thread(
                wait_for, lambda: replicas[0].client.role()[0] == b"master", "the replica's promotion"
            )
            for _ in range(3):
                with contextlib.suppress(LimitsUnavailable):  # whoever learns that the node is silent
                    await limits.admit("ann")
                    break
            else:
                pytest.fail("the node is asked for ever")
        finally:
            silent.process.send_signal(signal.SIGCONT)


async def test_charges_follow_a_primary_that_was_replaced_on_purpose(redis_sentinel: Guarded) -> None:
    replica, sentinel = redis_sentinel.replica, redis_sentinel.sentinel
    async with open_limits(make_settings(redis_sentinel.url, budget_usd_per_day=1)) as limits:
        await call(limits)
        wait_for(lambda: sentinel.client.execute_command("SENTINEL", "FAILOVER", "threads"), "a failover")
        wait_for(lambda: sentinel.client.sentinel_master("threads")["port"] == replica.port, "the replica's promotion")
        for _ in range(3):  # a sentinel that does not answer at once is asked again later
            await asyncio.sleep(FOLLOW_EVERY_S)
            await call(limits)
    async with open_limits(make_settings(replica.url, budget_usd_per_day=1)) as limits:
        assert (await limits.spent("ann"))["usd"] > CALL_USD


async def test_a_lost_server_refuses_and_never_lets_through(own_redis: Server) -> None:
    async with open_limits(make_settings(own_redis.url, budget_usd_per_day=1, requests_per_minute=9)) as limits:
        await call(limits)
        own_redis.kill()
        for refused in await asyncio.gather(limits.admit("ann"), call(limits), return_exceptions=True):
            assert isinstance(refused, LimitsUnavailable)
        await asyncio.to_thread(own_redis.start)
        await call(limits)
        assert (await limits.spent("ann"))["usd"] == pytest.approx(2 * CALL_USD)


SEVERAL = {"workers": 2, "vector_store": "chroma+http://127.0.0.1:1"}


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_day", "budget_usd_per_day"])
@pytest.mark.parametrize(("url", "workers"), [("redis://127.0.0.1:1", {}), (None, SEVERAL)])
async def test_a_limit_that_workers_cannot_share_stops_the_start(
    limit: str, url: str | None, workers: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError, match="CITEWELL_REDIS_URL"):
        async with open_limits(make_settings(url, **{limit: 1}, **workers)):
            pytest.fail("started")


async def test_several_workers_without_limits_need_no_redis() -> None:
    async with open_limits(make_settings(**SEVERAL)) as limits:
        await limits.admit("ann")


async def test_a_cheaper_model_without_a_price_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="CITEWELL_BUDGET_MODEL"):
        async with open_limits(make_settings(budget_usd_per_day=1, budget_model="openai:unheard-of")):
            pytest.fail("started")


class Clock:
    now = 20_000 * DAY_S + 80_000.0

    def __call__(self) -> float:
        return self.now


async def test_the_day_turns_at_midnight_utc_and_a_late_settlement_does_not_touch_the_new_one() -> None:
    clock = Clock()
    ledger = ProcessLedger(clock)
    ask = Ask(cost=70, tokens=7)
    before = await ledger.reserve("ann", [ask], 100, 0)
    assert before.choice == 0
    assert before.wait_s == 6_400
    assert (await ledger.reserve("ann", [ask], 100, 0)).choice is None
    clock.now += 6_400
    assert (await ledger.reserve("ann", [ask], 100, 0)).choice == 0
    await ledger.adjust("ann", before.day, -70, -7)
    assert await ledger.spent("ann") == (70, 7)


async def test_a_minute_slides() -> None:
    clock = Clock()
    ledger = ProcessLedger(clock)
    assert await ledger.admit("ann", 2) == 0
    clock.now += 40
    assert await ledger.admit("ann", 2) == 0
    assert await ledger.admit("ann", 2) == 20
    clock.now += 20
    assert await ledger.admit("ann", 2) == 0
    assert await ledger.admit("ann", 2) == 40


@hypothesis_settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), max_size=40), st.integers(1, 200))
def test_reserving_and_settling_never_pass_the_limit_nor_zero(calls: list[tuple[int, int]], limit: int) -> None:
    async def run() -> None:
        ledger = ProcessLedger(Clock())
        open_: list[tuple[int, int, int]] = []
        expected = 0
        for reserve, use in calls:
            outcome = await ledger.reserve("ann", [Ask(cost=reserve, tokens=0)], limit, 0)
            assert (outcome.choice == 0) == (expected + reserve <= limit)
            if outcome.choice == 0:
                expected += reserve
                open_.append((outcome.day, reserve, min(use, reserve)))
            if len(open_) > 3:
                day, reserved, used = open_.pop(0)
                await ledger.adjust("ann", day, used - reserved, 0)
                expected += used - reserved
            assert (await ledger.spent("ann"))[0] == expected
            assert 0 <= expected <= limit

    asyncio.run(run())


def test_prices_round_up_and_know_patterns() -> None:
    prices = Prices({"openai:odd": (0.07, 0.0)})
    assert prices.cost("openai:odd", 3, 0) == 210
    assert prices.cost("openai:gpt-4o", 1_000_000, 1_000_000) == 12_500_000_000
    assert prices.cost("ollama:anything", 5, 5) == 0
    assert not prices.knows("openai:gpt-4o-unheard-of")
    assert prices.date >= "2026-11-23"
