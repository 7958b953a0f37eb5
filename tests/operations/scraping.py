"""Reading `/metrics`."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

Labels = dict[str, str]


def scrape(url: str) -> list[tuple[str, Labels, float]]:
    """Every sample, over a connection of its own, so that any worker may answer."""
    with httpx.Client(timeout=30) as client:
        text = client.get(f"{url}/metrics").raise_for_status().text
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def total(samples: list[tuple[str, Labels, float]], name: str, **labels: str) -> float:
    """The sum of the samples of this name that have these labels."""
    return sum(value for each, has, value in samples if each == name and labels.items() <= has.items())
