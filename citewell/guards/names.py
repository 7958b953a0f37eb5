"""Names of people and places, found by an installed spaCy pipeline.

They have no pattern, so they need a model. None ships: pipelines are large, there is one per language, and they are not on
the package index under their makers' names. Any that is installed can be named in `CITEWELL_PII_NAMES`.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from citewell.errors import ConfigurationError, MissingExtra
from citewell.guards.personal import Hit, Kind

LABELS: Final[dict[str, Kind]] = {
    "PERSON": "name", "PER": "name", "persName": "name", "PRS": "name",
    "GPE": "place", "LOC": "place", "FAC": "place", "placeName": "place", "geogName": "place",
}  # fmt: skip
"""The labels of people and places in spaCy's published pipelines."""


class NameFinder:
    """Wraps a spaCy pipeline; safe to call from several threads."""

    def __init__(self, pipeline: Any) -> None:  # spaCy is optional, so its types cannot be named here
        self._pipeline = pipeline

    def find(self, text: str) -> list[Hit]:
        """People and places in a text, by position, without overlaps."""
        document = self._pipeline(text)
        return [
            Hit(entity.start_char, entity.end_char, LABELS[entity.label_])
            for entity in document.ents
            if entity.label_ in LABELS
        ]


def open_names(pipeline: str) -> NameFinder:
    """Load a spaCy pipeline by its package's name, as `en_core_web_sm`, or from a folder.

    Raises:
        MissingExtra: spaCy is not installed.
        ConfigurationError: There is no such pipeline, or it finds no people or places.
    """
    try:
        spacy = importlib.import_module("spacy")  # optional, so no checker can count on its types
    except ImportError:
        raise MissingExtra("names", "CITEWELL_PII_NAMES") from None
    try:
        loaded = spacy.load(pipeline)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"CITEWELL_PII_NAMES: no spaCy pipeline called {pipeline!r} is installed") from exc
    recognisers = [loaded.get_pipe(name) for name in loaded.pipe_names if hasattr(loaded.get_pipe(name), "labels")]
    if not any(label in LABELS for recogniser in recognisers for label in recogniser.labels):
        raise ConfigurationError(f"CITEWELL_PII_NAMES: the spaCy pipeline {pipeline!r} does not find people or places")
    return NameFinder(loaded)
