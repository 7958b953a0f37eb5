"""Fixtures that every area shares."""

import importlib.util

pytest_plugins = [
    name
    for name in (
        "tests.service",
        "tests.redis_servers",
        "tests.models.openai_server",
        "tests.models.paced_server",
        "tests.browser",
        "tests.chroma_server",
    )
    if importlib.util.find_spec(name)
]
