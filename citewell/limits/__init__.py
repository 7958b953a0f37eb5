"""Limits per caller: requests per minute, tokens and dollars per day.

Before a call is made, the most that it can cost is reserved; afterwards it is settled with what it did cost. So what is spent and what is
under way together never exceed the budget, however many calls are made at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog

from citewell.errors import (
    BudgetExceeded,
    CitewellError,
    ConfigurationError,
    LimitsUnavailable,
    RateLimited,
    UnknownModel,
)
from citewell.limits.ledger import Ask, Ledger, Outcome, ProcessLedger, RedisLedger
from citewell.limits.prices import NANO, Prices
from citewell.redis_client import connect
from citewell.settings import EXTRACTIVE, Settings
from citewell.telemetry import metrics

__all__ = ["WARN_AT", "Limits", "Prices", "Reservation", "open_limits"]

WARN_AT: Final = 0.8
"""Share of a day's budget from which there is a warning."""
REDIS_TIMEOUT_S: Final = 5.0
"""Longest one check may take, including the wait for a connection, in seconds."""
REDIS_REPLY_S: Final = 4.0
"""Longest wait for one reply, in seconds: shorter, so that a cluster's client learns that a node is silent, and asks who took its place."""
REDIS_CONNECTIONS: Final = 64

log = structlog.get_logger()


class Reservation:
    """Money and tokens reserved for one attempt at a call to a model."""

    def __init__(self, *, model: str, ask: Ask | None, outcome: Outcome | None, share: float, prices: Prices) -> None:
        self.model = model
        """The model to call: the one asked for, or the cheaper one that still fits."""
        self.share = share
        """Share (0..1) of the day's budget that is spent or reserved so far; 0 without a budget."""
        self._ask = ask
        self._outcome = outcome
        self._prices = prices
        self._used: tuple[int, int] | None = None

    def settle(self, usage: Mapping[str, object]) -> None:
        """Note what was used; the rest is given back when the reservation closes. Several calls add up.

        Args:
            usage: `input_tokens` and `output_tokens`, as LangChain's `UsageMetadata`.
        """
        had = self._used or (0, 0)
        read, written = _count(usage, "input_tokens"), _count(usage, "output_tokens")
        self._used = (had[0] + read, had[1] + written)
        priced = self._prices.knows(self.model)
        cost = self._prices.cost(self.model, read, written) / NANO if priced else 0.0
        metrics.model_used(self.model, read, written, cost)

    def release(self) -> None:
        """Note that nothing was used, as the provider cannot have charged for the call."""
        self._used = self._used or (0, 0)


class Limits:
    """Enforces the limits. Without any, every method lets everything pass and does no I/O."""

    def __init__(self, settings: Settings, ledger: Ledger, prices: Prices) -> None:
        self._ledger = ledger
        self._prices = prices
        self._per_minute = settings.requests_per_minute
        self._max_tokens = settings.tokens_per_day
        self._max_cost = round(settings.budget_usd_per_day * NANO)
        # `extractive` makes no call to be paid for: whoever makes the calls falls back on it (`graph.calls`).
        self._cheaper = None if settings.budget_model == EXTRACTIVE else settings.budget_model
        self._closing: set[asyncio.Task[None]] = set()
        self._warned: tuple[int, set[str]] = (0, set())
        """The day, and the callers for whom a warning was logged on it."""

    async def admit(self, caller: str) -> None:
        """Count a request.

        Raises:
            RateLimited: The caller made too many in the last 60 seconds; `retry_after_s` is the time until one more is accepted.
            LimitsUnavailable: The ledger cannot be reached; no request passes uncounted.
        """
        if self._per_minute:
            wait_s = await self._ledger.admit(caller, self._per_minute)
            if wait_s > 0:
                raise RateLimited(f"At most {self._per_minute:,} requests a minute are accepted.", retry_after_s=wait_s)

    @asynccontextmanager
    async def reserve(
        self, caller: str, model: str, prompt_tokens: int, max_tokens: int, *, only: bool = False
    ) -> AsyncIterator[Reservation]:
        """Reserve the most that a call can cost; at the end of the block, give back what it did not cost.

        A block that ends without `settle` or `release`, because of an error or because the caller left, is charged in full, as the provider
        may have charged for the call.

        Args:
            caller: Whose budget.
            model: `provider:model` to be called.
            prompt_tokens: Upper bound of the prompt's length.
            max_tokens: Longest answer that the call allows.
            only: Whether the cheaper model of the settings must not replace it.

        Raises:
            UnknownModel: A budget is set and the model has no price.
            BudgetExceeded: The call does not fit into the day's money or tokens; `retry_after_s` is the time to midnight UTC.
            LimitsUnavailable: The ledger cannot be reached; no call is made unpaid.
        """
        if not self._max_cost and not self._max_tokens:
            yield Reservation(model=model, ask=None, outcome=None, share=0.0, prices=self._prices)
            return
        models = [model] + ([self._cheaper] if self._cheaper and self._cheaper != model and not only else [])
        asks = [
            Ask(cost=self._cost(name, prompt_tokens, max_tokens), tokens=prompt_tokens + max_tokens) for name in models
        ]
        outcome = await self._ledger.reserve(caller, asks, self._max_cost, self._max_tokens)
        if outcome.choice is None:
            raise self._refusal(outcome, asks[-1])
        reservation = Reservation(
            model=models[outcome.choice], ask=asks[outcome.choice], outcome=outcome, share=self._share(outcome),
            prices=self._prices,
        )  # fmt: skip
        self._warn(caller, outcome)
        try:
            yield reservation
        finally:
            # even if the caller leaves meanwhile, the rest must be given back
            closing = asyncio.create_task(self._close(caller, reservation))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            await asyncio.shield(closing)

    async def spent(self, caller: str) -> dict[str, float]:
        """`usd` and `tokens` charged to the caller today, calls under way included."""
        cost, tokens = await self._ledger.spent(caller)
        return {"usd": cost / NANO, "tokens": tokens}

    async def _close(self, caller: str, reservation: Reservation) -> None:
        used, ask, outcome = reservation._used, reservation._ask, reservation._outcome
        if used is None or ask is None or outcome is None:
            return
        cost = self._cost(reservation.model, *used)
        try:
            await self._ledger.adjust(caller, outcome.day, cost - ask.cost, sum(used) - ask.tokens)
        except LimitsUnavailable as exc:
            # the answer was given; to leave it charged in full is the safe side
            log.error("reservation.not_settled", error=exc.code)

    def _cost(self, model: str, input_tokens: int, output_tokens: int) -> int:
        if not self._max_cost:
            return 0
        try:
            return self._prices.cost(model, input_tokens, output_tokens)
        except KeyError:
            raise UnknownModel(
                f"The model {model} has no price, so it cannot be paid from a budget: add it to CITEWELL_PRICES."
            ) from None

    def _share(self, outcome: Outcome) -> float:
        money = outcome.spent / self._max_cost if self._max_cost else 0.0
        tokens = outcome.tokens / self._max_tokens if self._max_tokens else 0.0
        return max(money, tokens)

    def _warn(self, caller: str, outcome: Outcome) -> None:
        if self._share(outcome) < WARN_AT:
            return
        # once a day per caller, and not whenever the line is crossed: with what is given back, it is crossed again and again
        if outcome.day != self._warned[0]:
            self._warned = (outcome.day, set())
        if caller not in self._warned[1]:
            self._warned[1].add(caller)
            log.warning("budget.nearly_spent", share=round(self._share(outcome), 3))

    def _refusal(self, outcome: Outcome, ask: Ask) -> CitewellError:
        if self._max_cost and outcome.spent + ask.cost > self._max_cost:
            what = f"budget of ${self._max_cost / NANO:,.2f}"
        else:
            what = f"allowance of {self._max_tokens:,} tokens"
        return BudgetExceeded(
            f"This does not fit into what is left of today's {what}; the day ends at midnight UTC.",
            retry_after_s=outcome.wait_s,
        )


@asynccontextmanager
async def open_limits(settings: Settings) -> AsyncIterator[Limits]:
    """Open limits that are counted in Redis if `settings.redis_url` is set, so that all workers share them, else in this process.

    Raises:
        ConfigurationError: A limit is set that cannot be enforced.
    """
    prices = Prices(settings.prices)
    if settings.budget_usd_per_day:
        named = {
            "CHAT_MODEL": (settings.chat_model,), "CHAT_MODELS": settings.chat_models,
            "BUDGET_MODEL": (settings.budget_model,), "SIMPLE_MODEL": (settings.simple_model,),
            "FALLBACK_MODELS": settings.fallback_models,
            "EMBEDDING_MODEL": (settings.embedding_model,) if settings.embedding_model.startswith("openai:") else (),
        }  # fmt: skip
        for setting, names in named.items():
            for name in filter(None, names):
                if not prices.knows(name):
                    raise ConfigurationError(
                        f"CITEWELL_{setting}: {name} has no price, which a budget needs; add it to CITEWELL_PRICES, as "
                        f'{{"{name}": [0.5, 2.0]}}, dollars per million tokens read and written'
                    )
    is_on = bool(settings.requests_per_minute or settings.tokens_per_day or settings.budget_usd_per_day)
    ledger: Ledger = ProcessLedger()
    if is_on and settings.redis_url is not None:
        client = connect(
            settings.redis_url.get_secret_value(), max_connections=REDIS_CONNECTIONS, timeout_s=REDIS_REPLY_S
        )
        ledger = remote = RedisLedger(
            client, namespace=settings.namespace, timeout_s=REDIS_TIMEOUT_S, max_connections=REDIS_CONNECTIONS
        )
        try:
            await remote.ping()
        except LimitsUnavailable as exc:
            await remote.close()
            raise ConfigurationError(
                "CITEWELL_REDIS_URL: the server that is to keep the limits does not answer"
            ) from exc
    elif is_on and settings.workers > 1:
        raise ConfigurationError(
            "Limits over several workers need Redis: set CITEWELL_REDIS_URL, or CITEWELL_WORKERS to 1"
        )
    try:
        yield Limits(settings, ledger, prices)
    finally:
        await ledger.close()


def _count(usage: Mapping[str, object], key: str) -> int:
    value = usage.get(key, 0)
    return value if isinstance(value, int) and value > 0 else 0
