"""Write what is derived from the code: `.env.example`, docs/settings.md, docs/errors.md, the picture in
README.md and docs/img/graph.svg, docs/http.md, the metrics in docs/operations.md, the list of decisions, the Grafana
dashboard.

`python -m docs.generate` writes; with `--check` it only says what is out of date and exits with 1.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args, get_origin

from langchain_core.runnables.graph import Graph
from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from citewell.api.app import create_app
from citewell.api.problems import OTHERS
from citewell.errors import every_kind
from citewell.settings import PREFIX, Settings
from citewell.telemetry import metrics
from docs.dashboard import dashboard
from docs.picture import svg
from graph.build import build_graph
from graph.parts import Parts

ROOT = Path(__file__).parents[1]


SECTIONS = {
    "chat_model": ("Chat models", "models.md"),
    "embedding_model": ("Documents and search", "ingestion.md"),
    "redis_url": ("Conversations", "threads.md"),
    "max_question_chars": ("Sizes and deadlines", "errors.md"),
    "requests_per_minute": ("Limits and money", "limits.md"),
    "answer_cache_s": ("Answers given before", "models.md#answers-given-before"),
    "api_keys_file": ("Who may ask", "identity.md"),
    "injection_guard": ("Guards", "guards.md"),
    "host": ("The server", "deploying.md"),
    "ui_service_url": ("The chat page", "ui.md"),
}
"""The first setting of each section -> its heading, and the page that says more."""


def env_example() -> str:
    lines = ["# Every setting with its default. Copy to .env and change what you need.", ""]
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            lines += [f"# --- {SECTIONS[name][0]} (docs/{SECTIONS[name][1]})", ""]
        values = f" ({_values(field)})" if _values(field) else ""
        lines += [f"# {field.description}{values}", f"#{_variable(name)}={_default(field)}", ""]
    lines += [
        "# Keys are read under their vendors' own names:",
        "#OPENAI_API_KEY=",
        "#ANTHROPIC_API_KEY=",
        "#PINECONE_API_KEY=",
        "",
    ]
    return "\n".join(lines)


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Read from the environment and from a file `.env` in the folder where a command starts; the environment wins. A value out of "
        "range or an unknown `CITEWELL_` name stops the start with a sentence that names it.",
    ]
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            heading, page = SECTIONS[name]
            lines += ["", f"## {heading}", "", f"More: [{page.partition('#')[0].removesuffix('.md')}]({page})."]
            lines += ["", "| variable | default | values | meaning |", "|---|---|---|---|"]
        text = (field.description or "").replace("|", "\\|")
        others = [alias for alias in _aliases(field) if alias != _variable(name)]
        also = f" Also read as {', '.join(f'`{alias}`' for alias in others)}." if others else ""
        default = f"`{_default(field)}`" if _default(field) else ""
        lines.append(f"| `{_variable(name)}` | {default} | {_values(field)} | {text}{also} |")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    lines = [
        "# Errors",
        "",
        "Every door tells of an error with the same body (RFC 9457, `application/problem+json`): `type` (the address of this list at "
        "the service itself), `title`, `status`, `detail` (a sentence about this case), `code`, `retryable`, `request_id` (also in the "
        "log), and where they apply `instance`, `retry_after_s` (also as `Retry-After`) and `errors`. `/v1` puts them into OpenAI's "
        "shape. Once an answer has begun, the same body comes as an `error` event or frame. What an operator can do about them: "
        "[operations](operations.md#dashboard-and-alerts).",
        "",
        "| code | status | title | worth another try |",
        "|---|---|---|---|",
    ]
    kinds = [(kind.code, kind.status, kind.title, kind.retryable) for kind in every_kind()]
    lines += [
        f'| <a id="{code}"></a>`{code}` | {status} | {title} | {"yes" if again else ""} |'
        for code, status, title, again in [*kinds, *OTHERS]
    ]
    return "\n".join(lines) + "\n"


def readme() -> str:
    """README.md with the graph drawn anew between its two marks."""
    picture = _graph().draw_mermaid(with_styles=False)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = f"<!-- graph: drawn from the code by make docs -->\n```mermaid\n{picture.strip()}\n```\n<!-- /graph -->"
    return re.sub(r"<!-- graph:.*?<!-- /graph -->", lambda _: block, text, flags=re.DOTALL)


def graph_picture() -> str:
    return svg(_graph())


def _graph() -> Graph:
    parts = cast(Parts, SimpleNamespace(settings=None, cache=None))  # drawing calls no node
    return build_graph(parts).compile().get_graph()


def http_page() -> str:
    """Every path of the service, as its OpenAPI description has it."""
    lines = [
        "# HTTP API",
        "",
        "Generated from the code. `/docs` of a running service describes bodies and answers and lets you try them; `/openapi.json` is "
        "the OpenAPI description. There are also `WS /ws/chat`, `/mcp` where it is [switched on](clients.md#mcp), and LangServe's "
        "`stream_log`, playgrounds and schemas of `/rag` and `/chat`. How to call them: [clients](clients.md), [streams](streams.md), "
        "[what comes with an answer](metadata.md). Errors are [problems](errors.md).",
        "",
        "| method | path | what it does |",
        "|---|---|---|",
    ]
    for path, calls in create_app(Settings()).openapi()["paths"].items():
        for method, call in calls.items():
            about = " ".join(call.get("description", "").split("\n\n")[0].split())
            if not about and call["tags"]:  # LangServe's own
                about = f"LangServe's `{path.rsplit('/', 1)[-1]}` of `/{call['tags'][0]}`."
            lines.append(f"| {method.upper()} | `{path}` | {about} |")
    return "\n".join(lines) + "\n"


def decisions_page() -> str:
    lines = ["# Decisions", "", "What was decided, and why; one page each, the oldest first.", ""]
    for path in sorted((ROOT / "docs" / "adr").glob("0*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def operations_page() -> str:
    """docs/operations.md with the table of metrics drawn anew."""
    rows = ["| metric | kind | labels | what it counts or measures |", "|---|---|---|---|"]
    for each in vars(metrics).values():
        if isinstance(each, MetricWrapperBase):
            [family] = each.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(f"`{label}`" for label in each._labelnames)
            rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    block = "<!-- metrics: written by make docs -->\n" + "\n".join(rows) + "\n<!-- /metrics -->"
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    return re.sub(r"<!-- metrics:.*?<!-- /metrics -->", lambda _: block, text, flags=re.DOTALL)


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _aliases(field: FieldInfo) -> list[str]:
    return [str(choice) for choice in getattr(field.validation_alias, "choices", [])]


def _values(field: FieldInfo) -> str:
    """What a setting may be: the words it takes, or its range."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(field.annotation))
    bounds = {
        name: getattr(each, name) for each in field.metadata for name in ("ge", "gt", "le") if hasattr(each, name)
    }
    low = f"{bounds['ge']:,}" if "ge" in bounds else f"above {bounds['gt']:,}" if "gt" in bounds else ""
    if "le" in bounds:
        return f"{low} to {bounds['le']:,}"
    return f"from {low}" if low else ""


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None or value is PydanticUndefined or isinstance(value, SecretStr):
        return ""
    return json.dumps(value) if isinstance(value, (tuple, bool)) else str(value)


PAGES = {
    ".env.example": env_example,
    "docs/settings.md": settings_page,
    "docs/errors.md": errors_page,
    "README.md": readme,
    "docs/img/graph.svg": graph_picture,
    "docs/http.md": http_page,
    "docs/adr/index.md": decisions_page,
    "docs/operations.md": operations_page,
    "deploy/grafana/citewell.json": dashboard,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        path = ROOT / name
        text = make()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if stale:
        print(f"{'out of date' if check else 'written'}: {', '.join(stale)}")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
