"""Citewell: answers from your own documents, with every citation checked."""

__version__ = "0.1.0"
