"""Measures quality. Never shipped: `python -m evals.all` prints and draws everything."""
