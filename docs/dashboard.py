"""The Grafana dashboard, written to deploy/grafana/citewell.json by `python -m docs.generate`."""

import json
from typing import Any

RATE = "$__rate_interval"
DISTINCT = "sum by ({by}) (rate({name}[" + RATE + "]))"
ROWS: list[tuple[str, list[tuple[str, str, list[tuple[str, str]]]]]] = [
    ("Turns", [
        ("Turns by outcome", "ops", [(DISTINCT.format(by="outcome", name="citewell_turns_total"), "{{outcome}}")]),
        ("Turns by door", "ops", [(DISTINCT.format(by="door", name="citewell_turns_total"), "{{door}}")]),
        ("Errors by code", "ops", [(DISTINCT.format(by="code", name="citewell_errors_total") + " > 0", "{{code}}")]),
        ("Running", "short", [("sum(citewell_turns_running)", "turns")]),
        ("HTTP answers", "ops", [(DISTINCT.format(by="status", name="citewell_http_responses_total"), "{{status}}")]),
        ("Ready, by part", "short", [("min by (part) (citewell_ready)", "{{part}}")]),
    ]),
    ("Time", [
        ("First token", "s", [
            (f"histogram_quantile({q}, sum by (le) (rate(citewell_first_token_seconds_bucket[{RATE}])))", f"p{q * 100:g}")
            for q in (0.5, 0.95, 0.99)
        ]),
        ("Whole turn", "s", [
            (f"histogram_quantile({q}, sum by (le) (rate(citewell_turn_seconds_bucket[{RATE}])))", f"p{q * 100:g}")
            for q in (0.5, 0.95, 0.99)
        ]),
        ("Stages, p95", "s", [
            (f"histogram_quantile(0.95, sum by (le, stage) (rate(citewell_stage_seconds_bucket[{RATE}])))", "{{stage}}"),
        ]),
    ]),
    ("Models", [
        ("Tokens", "short", [(DISTINCT.format(by="model, direction", name="citewell_tokens_total"), "{{model}} {{direction}}")]),
        ("Calls by outcome", "ops", [(DISTINCT.format(by="model, outcome", name="citewell_model_calls_total"), "{{model}} {{outcome}}")]),
        ("Answers of another model", "ops", [(DISTINCT.format(by="model, why", name="citewell_model_changes_total"), "{{model}}: {{why}}")]),
        ("Open circuits", "short", [("max by (model) (citewell_model_circuit_open)", "{{model}}")]),
        ("Answer cache", "ops", [(DISTINCT.format(by="result", name="citewell_answer_cache_total"), "{{result}}")]),
        ("Dollars an hour", "currencyUSD", [("sum by (model) (increase(citewell_cost_dollars_total[1h]))", "{{model}}")]),
    ]),
    ("Guards", [
        ("Blocked or changed, by rule", "ops", [
            (f'sum by (subject, rule) (rate(citewell_guard_verdicts_total{{verdict!="allowed"}}[{RATE}]))', "{{subject}}: {{rule}}"),
        ]),
        ("Answers to review, by reason", "ops", [(DISTINCT.format(by="reason", name="citewell_reviews_needed_total"), "{{reason}}")]),
    ]),
    ("People", [
        ("Ratings", "short", [
            (f"sum by (rating, reason) (increase(citewell_ratings_total[{RATE}]))", "{{rating}} {{reason}}"),
        ]),
        ("Share of ratings that are up, a day", "percentunit", [
            ('sum(increase(citewell_ratings_total{rating="up"}[1d])) / sum(increase(citewell_ratings_total[1d]))', "up"),
        ]),
    ]),
    ("Documents", [
        ("In the index", "short", [("max(citewell_index_sources)", "documents"), ("max(citewell_index_chunks)", "chunks")]),
        ("Index on disk", "bytes", [("max(citewell_index_bytes)", "bytes")]),
        ("Added through the service", "short", [
            (f"sum by (status) (increase(citewell_ingested_sources_total[{RATE}]))", "{{status}}"),
            (f"sum(increase(citewell_ingested_chunks_total[{RATE}]))", "chunks"),
            (f"sum by (code) (increase(citewell_ingestion_failures_total[{RATE}]))", "failed: {{code}}"),
        ]),
        ("Time for one, p95", "s", [
            (f"histogram_quantile(0.95, sum by (le) (rate(citewell_ingestion_seconds_bucket[{RATE}])))", "p95"),
        ]),
    ]),
    ("Redis and the process", [
        ("Round trips to Redis", "s", [
            (f"histogram_quantile(0.95, sum by (le) (rate(citewell_redis_call_seconds_bucket[{RATE}])))", "p95"),
            (f"histogram_quantile(0.5, sum by (le) (rate(citewell_redis_call_seconds_bucket[{RATE}])))", "p50"),
        ]),
        ("Connections to Redis", "short", [
            ("sum by (part) (citewell_redis_connections_in_use)", "{{part}}, in use"),
            ("sum by (part) (citewell_redis_connections_limit)", "{{part}}, limit"),
        ]),
        ("Memory (one worker an instance)", "bytes", [("process_resident_memory_bytes", "{{instance}}")]),
        ("Processor (one worker an instance)", "percentunit", [(f"rate(process_cpu_seconds_total[{RATE}])", "{{instance}}")]),
        ("Lines of the log that were lost", "short", [(f"sum(rate(citewell_log_writes_lost_total[{RATE}]))", "lines a second")]),
    ]),
]  # fmt: skip
"""Row -> panels: title, unit, (query, legend) of each curve."""
WIDTH, HEIGHT, ACROSS = 8, 8, 3


def dashboard() -> str:
    """The dashboard in Grafana's JSON model (schema 39, Grafana 11)."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append(_placed(len(panels), title, "row", 0, y, 24, 1))
        y += 1
        for i, (name, unit, curves) in enumerate(row):
            x, below = i % ACROSS * WIDTH, i // ACROSS * HEIGHT
            panel = _placed(len(panels), name, "timeseries", x, y + below, WIDTH, HEIGHT)
            panel["datasource"] = {"type": "prometheus", "uid": "${datasource}"}
            panel["fieldConfig"] = {
                "defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10}},
                "overrides": [],
            }
            panel["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
            panel["targets"] = [
                {"refId": chr(ord("A") + n), "expr": expr, "legendFormat": legend}
                for n, (expr, legend) in enumerate(curves)
            ]
            panels.append(panel)
        y += (len(row) + ACROSS - 1) // ACROSS * HEIGHT
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    whole = {
        "title": "Citewell", "uid": "citewell", "tags": ["citewell"], "schemaVersion": 39, "version": 1, "editable": True,
        "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [source]},
    }  # fmt: skip
    lines = ",\n".join(map(json.dumps, panels))  # a panel a line, as a change is read
    return f'{json.dumps(whole)[:-1]}, "panels": [\n{lines}\n]}}\n'


def _placed(id_: int, title: str, kind: str, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    return {"id": id_ + 1, "title": title, "type": kind, "gridPos": {"x": x, "y": y, "w": w, "h": h}}
