"""Metrics, logs and traces for operators. None of them holds text of users, documents or models."""

from citewell.telemetry.turns import turn

__all__ = ["turn"]
