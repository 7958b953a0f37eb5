"""Fixtures that every area shares."""

import importlib.util
from collections.abc import Iterator

import httpx
import hypothesis
import pytest

from citewell.models.minilm import MiniLM

hypothesis.settings.register_profile(
    "citewell", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("citewell")
"""A busy machine takes any time. The examples are the same in every run; `--hypothesis-profile=default` draws others."""

pytest_plugins = [
    name
    for name in (
        "tests.service",
        "tests.clock",
        "tests.redis_servers",
        "tests.models.openai_server",
        "tests.models.paced_server",
        "tests.models.scripted_server",
        "tests.browser",
        "tests.chroma_server",
    )
    if importlib.util.find_spec(name)
]

httpx._config.DEFAULT_TIMEOUT_CONFIG.read = 60.0
"""Where a call does not say how long to wait: five seconds are too few for a service on a busy machine."""


@pytest.fixture(scope="session")
def embedder() -> Iterator[MiniLM]:
    """The built-in embedding model."""
    model = MiniLM(threads=1)
    yield model
    model.close()


LONGEST = (
    "test_openapi.py",
    "test_service.py",
    "test_page.py",
    "test_drain.py",
    "test_metrics.py",
    "test_code_blocks.py",
    "test_streams.py",
)
"""Begun first, so that no process is still at one of them when the others have nothing left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; browsers last in their file.

    While a browser is open, Playwright's own event loop runs in its thread, and no other can.
    """
    files = dict.fromkeys(item.path for item in items)
    order = {path: number for number, path in enumerate(sorted(files, key=lambda path: _turn(path.name)))}
    items.sort(key=lambda item: (order[item.path], "browser" in getattr(item, "fixturenames", ())))


def _turn(name: str) -> int:
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)
