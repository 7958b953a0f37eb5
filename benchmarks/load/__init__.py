"""Turns under load, against a paced upstream: this service at every door, beside a one-node LangGraph service and a
design that blocks its event loop."""
