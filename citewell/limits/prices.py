"""Prices of calls: a dated list that ships as data, extended by the settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from fnmatch import fnmatchcase
from importlib import resources

NANO = 10**9
"""Money is counted in billionths of a dollar, as integers, so that sums are exact."""


class Prices:
    """Dollars per million tokens by `provider:model`; a name may end in `*`.

    Attributes:
        date: ISO date of the list that ships with this version.
    """

    def __init__(self, extra: Mapping[str, tuple[float, float]] | None = None) -> None:
        data = json.loads(resources.files(__package__).joinpath("prices.json").read_text(encoding="utf-8"))
        self.date: str = data["date"]
        prices: dict[str, tuple[float, float]] = {name: (pair[0], pair[1]) for name, pair in data["prices"].items()}
        self._prices = prices | dict(extra or {})

    def knows(self, model: str) -> bool:
        return self._find(model) is not None

    def cost(self, model: str, input_tokens: int, output_tokens: int) -> int:
        """The price of a call in billionths of a dollar, rounded up.

        Raises:
            KeyError: The model has no price.
        """
        found = self._find(model)
        if found is None:
            raise KeyError(model)
        per_input, per_output = (
            Decimal(str(price)) for price in found
        )  # the list's decimal digits, not their binary approximation
        dollars = (per_input * input_tokens + per_output * output_tokens) / 1_000_000
        return int((dollars * NANO).to_integral_value(rounding=ROUND_CEILING))

    def _find(self, model: str) -> tuple[float, float] | None:
        if model in self._prices:
            return self._prices[model]
        patterns = [name for name in self._prices if name.endswith("*") and fnmatchcase(model, name)]
        return self._prices[max(patterns, key=len)] if patterns else None
