"""What an operator sees: metrics, one log line a turn, traces. No text of a user, document or model in any of them."""

from citewell.telemetry.turns import turn

__all__ = ["turn"]
