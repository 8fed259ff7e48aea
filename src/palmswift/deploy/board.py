"""The Grafana board of a vLLM server: what its users wait for, and what it runs out of."""

from __future__ import annotations

from typing import Any, NamedTuple


class Panel(NamedTuple):
    """One graph: each expression with the words of its legend."""

    title: str
    unit: str
    """Grafana's name of it: `s`, `reqps`, `short`, `percentunit`."""
    expressions: dict[str, str]


def _quantiles(metric: str) -> dict[str, str]:
    rate = f"sum by (le) (rate({metric}_bucket[$__rate_interval]))"
    return {f"p{share}": f"histogram_quantile({share / 100}, {rate})" for share in (50, 95, 99)}


PANELS = (
    Panel(
        "Requests that ended a second",
        "reqps",
        {
            "{{finished_reason}}": "sum by (finished_reason) "
            "(rate(vllm:request_success_total[$__rate_interval]))"
        },
    ),
    Panel(
        "Requests in work and waiting",
        "short",
        {
            "in work": "sum(vllm:num_requests_running)",
            "waiting": "sum(vllm:num_requests_waiting)",
        },
    ),
    Panel("Time to the first token", "s", _quantiles("vllm:time_to_first_token_seconds")),
    Panel("Time between tokens", "s", _quantiles("vllm:inter_token_latency_seconds")),
    Panel("Time of a whole answer", "s", _quantiles("vllm:e2e_request_latency_seconds")),
    Panel(
        "Tokens a second",
        "short",
        {
            "read": "sum(rate(vllm:prompt_tokens_total[$__rate_interval]))",
            "written": "sum(rate(vllm:generation_tokens_total[$__rate_interval]))",
        },
    ),
    Panel(
        "Memory for contexts in use",
        "percentunit",
        {"{{instance}}": "max by (instance) (vllm:kv_cache_usage_perc)"},
    ),
    Panel(
        "Requests put off for want of memory, a second",
        "short",
        {"{{instance}}": "sum by (instance) (rate(vllm:num_preemptions_total[$__rate_interval]))"},
    ),
)
"""Metric names are those of vLLM 0.32's /metrics."""


def board(name: str, uid: str) -> dict[str, Any]:
    """The board as Grafana's JSON model, two panels a row."""
    return {
        "uid": uid,
        "title": name,
        "schemaVersion": 41,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "prometheus"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": {"x": number % 2 * 12, "y": number // 2 * 8, "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + at), "datasource": source, "expr": expression, "legendFormat": words}
            for at, (words, expression) in enumerate(panel.expressions.items())
        ],
    }
