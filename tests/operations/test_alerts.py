"""The dashboard and the alerts: queries that parse, over metrics and labels that the service shows."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from citewell.telemetry import metrics
from tests.service import ROOT, Live

DEPLOY = ROOT / "deploy"
SAMPLES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
TOLD_BY_PROMETHEUS = {"up": {"job", "instance"}}


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    whole = json.loads((DEPLOY / "grafana/citewell.json").read_text())
    return [panel for panel in whole["panels"] if panel["type"] != "row"]


QUERIES = [
    *(rule["expr"] for rule in rules()),
    *(target["expr"].replace("$__rate_interval", "5m") for panel in panels() for target in panel["targets"]),
]


def parts(node: Any) -> Iterator[Any]:
    """Every node of a parsed query."""
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "args"):
        below = getattr(node, name, None)
        for each in below if isinstance(below, list) else [below]:
            if each is not None:
                yield from parts(each)


@pytest.fixture(scope="module")
def shown(live: Live) -> dict[str, set[str]]:
    """Name of each sample that `/metrics` can have -> its labels."""
    text = httpx.get(f"{live.url}/metrics", timeout=30).text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        ours = getattr(metrics, _variables().get(family.name, ""), None)
        labels = set(ours._labelnames) if ours else {label for sample in family.samples for label in sample.labels}
        for suffix in SAMPLES.get(family.type, ("",)):
            found[family.name + suffix] = labels | {"job", "instance"} | ({"le"} if suffix == "_bucket" else set())
    return found


def _variables() -> dict[str, str]:
    return {
        each.describe()[0].name: name for name, each in vars(metrics).items() if isinstance(each, MetricWrapperBase)
    }


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_reads_what_the_service_shows(query: str, shown: dict[str, set[str]]) -> None:
    known = shown | TOLD_BY_PROMETHEUS
    nodes = list(parts(promql.parse(query)))
    selectors = [node for node in nodes if isinstance(node, promql.VectorSelector)]
    assert {selector.name for selector in selectors} == set(
        re.findall(r'\b(?:citewell|process)_\w+|(?<!")\bup\b', query)
    )
    for selector in selectors:
        assert selector.name in known, f"no {selector.name} in /metrics"
        used = {matcher.name for matcher in selector.matchers.matchers}
        assert used <= known[selector.name], f"{selector.name} has no {used - known[selector.name]}"
    labels = set().union(*(known[selector.name] for selector in selectors))
    for node in nodes:
        if isinstance(node, promql.AggregateExpr) and node.modifier:
            assert set(node.modifier.labels) <= labels, query


def test_values_that_queries_name_exist() -> None:
    """Of the labels whose values are fixed."""
    text = "\n".join(QUERIES)
    codes = [pattern for group in re.findall(r'code[=!]~?"([^"]+)"', text) for pattern in group.split("|")]
    every = set(metrics.every_code()) | {"internal"}
    assert codes
    assert [pattern for pattern in codes if not any(re.fullmatch(pattern, code) for code in every)] == []
    stages = {name for group in re.findall(r'stage=~"([^"]+)"', text) for name in group.split("|")}
    assert stages <= {"screen", "condense", "retrieve", "rerank", "summarize", "generate", "verify"}


def test_every_metric_is_on_the_dashboard() -> None:
    named = set(re.findall(r"citewell_[a-z_]+", "\n".join(t["expr"] for panel in panels() for t in panel["targets"])))
    for name in _variables():
        assert any(each.startswith(name) for each in named), f"{name} is on no panel"


def test_each_alert_is_explained() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert f"### {rule['alert']}\n" in page
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
    assert page.count("### Citewell") == len(rules())


def test_panels_stand_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    whole = json.loads((DEPLOY / "grafana/citewell.json").read_text())
    assert len({panel["id"] for panel in whole["panels"]}) == len(whole["panels"])
    for panel in whole["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize(
    "command",
    [["check", "config", "prometheus.yaml"], ["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]],
    ids=" ".join,
)
def test_promtool_takes_them_and_the_alerts_go_off_when_they_should(command: list[str]) -> None:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CITEWELL_TEST_PROMTOOL") == "required":
            pytest.fail("no promtool on the PATH")
        pytest.skip("no promtool on the PATH (Debian's package prometheus has it)")
    done = subprocess.run([found, *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
