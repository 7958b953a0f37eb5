"""Circuit breakers: a chat model that keeps failing is not called for a while, so that nobody waits for it in vain.

closed     calls are made; a number of failures in a row, within the window, opens the circuit
open       no call is made until the pause is over
half_open  one trial call is made; its success closes the circuit, its failure opens it again

Each process has its own circuits: if one cannot reach a provider, another may.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import structlog

from citewell.errors import CircuitOpen, CitewellError
from citewell.settings import Settings
from citewell.telemetry import metrics

State = Literal["closed", "open", "half_open"]

log = structlog.get_logger()


class Circuit:
    """The circuit of one model.

    Args:
        model: `provider:model`.
        failures: Failures in a row that open it; 0: it never opens.
        window_s: Age from which a failure no longer counts, in seconds.
        pause_s: How long it stays open, in seconds.
        clock: Seconds since any moment.
    """

    def __init__(
        self, model: str, *, failures: int, window_s: float, pause_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._model = model
        self._most = failures
        self._window_s = window_s
        self._pause_s = pause_s
        self._clock = clock
        self._failed: deque[float] = deque(maxlen=max(1, failures))
        self._open_until: float | None = None
        self._is_tried = False
        metrics.CIRCUIT_OPEN.labels(model).set(0)

    @property
    def state(self) -> State:
        if self._open_until is None:
            return "closed"
        return "half_open" if self._clock() >= self._open_until else "open"

    @contextmanager
    def watching(self, is_failure: Callable[[CitewellError], bool]) -> Iterator[None]:
        """Watch a call. Calls whose caller left or whose request was at fault do not count; while the circuit is open only the trial call
        counts, as the others began before.

        Raises:
            CircuitOpen: No call may be made; `retry_after_s` says when to ask again.
        """
        is_trial = self._enter()
        try:
            yield
        except CitewellError as exc:
            if is_failure(exc) and (is_trial or self._open_until is None):
                self._fail(is_trial)
            raise
        else:
            if is_trial or self._open_until is None:
                self._succeed()
        finally:
            if is_trial:
                self._is_tried = False

    def _enter(self) -> bool:
        """Whether the call is the trial call."""
        if self._open_until is None:
            return False
        wait_s = self._open_until - self._clock()
        if wait_s > 0 or self._is_tried:
            raise CircuitOpen(retry_after_s=max(1.0, wait_s))
        self._is_tried = True
        return True

    def _succeed(self) -> None:
        self._failed.clear()
        if self._open_until is not None:
            self._open_until = None
            metrics.CIRCUIT_OPEN.labels(self._model).set(0)
            log.info("circuit.closed", model=self._model)

    def _fail(self, is_trial: bool) -> None:
        now = self._clock()
        self._failed.append(now)
        if not self._most:
            return
        if is_trial or (len(self._failed) == self._most and now - self._failed[0] <= self._window_s):
            self._open_until = now + self._pause_s
            metrics.CIRCUIT_OPEN.labels(self._model).set(1)
            log.warning("circuit.opened", model=self._model, seconds=self._pause_s)


class Circuits:
    """One for each model that may be called."""

    def __init__(self, settings: Settings, models: Iterable[str]) -> None:
        self._by_model = {
            name: Circuit(
                name, failures=settings.circuit_failures, window_s=settings.circuit_window_s,
                pause_s=settings.circuit_pause_s,
            )
            for name in sorted(models)
        }  # fmt: skip

    def __getitem__(self, model: str) -> Circuit:
        return self._by_model[model]

    def states(self) -> dict[str, State]:
        """By model."""
        return {name: circuit.state for name, circuit in self._by_model.items()}
