"""Reports of GuideLLM (``benchmarks.json``, one run for each load of the report)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmopt.measure.importers.form import ImportedRun, Statistics

__all__ = ["is_guidellm", "read_guidellm"]

TOOL = "GuideLLM"
LATENCIES = {
    "time_to_first_token_ms": ("ttft", 1.0),
    "time_to_first_output_token_ms": ("ttfot", 1.0),
    "inter_token_latency_ms": ("tpot", 1.0),
    "request_latency": ("e2e", 1000.0),
    "request_scheduled_latency": ("e2e_plan", 1000.0),
}
"""Their inter-token latency is a mean of each request after its first token: our TPOT. Their time per output token
includes the first token and has no counterpart here."""


def is_guidellm(content: Mapping[str, Any]) -> bool:
    """Whether a file is one of theirs."""
    runs = content.get("benchmarks")
    return isinstance(runs, list) and isinstance(content.get("metadata"), dict)


def read_guidellm(content: Mapping[str, Any]) -> tuple[ImportedRun, ...]:
    """Every load of a report."""
    version = str(content["metadata"].get("guidellm_version", ""))
    model = _model(content)
    return tuple(_run(run, version, model) for run in content["benchmarks"])


def _run(run: Mapping[str, Any], version: str, model: str) -> ImportedRun:
    metrics = run["metrics"]
    totals = metrics.get("request_totals") or {}
    good, bad = int(totals.get("successful") or 0), int(totals.get("errored") or 0)
    found = Statistics(TOOL)
    for theirs, (ours, scale) in LATENCIES.items():
        summary = _good(metrics, theirs)
        values = {**(summary.get("percentiles") or {}), "mean": summary.get("mean")}
        bounds = {**(summary.get("percentile_cis") or {}), "mean": summary.get("mean_ci")}
        found.latency(ours, values, n=int(summary.get("count") or good), scale=scale, bounds=bounds)
    rate = _good(metrics, "requests_per_second").get("mean")
    found.put("answers_per_minute", None if rate is None else rate * 60, "answers/min", n=good)
    found.put("output_tokens_per_s", _good(metrics, "output_tokens_per_second").get("mean"), "tokens/s", n=good)
    found.put("total_tokens_per_s", _good(metrics, "tokens_per_second").get("mean"), "tokens/s", n=good)
    found.put("attainment", metrics.get("slo_attainment"), "share", n=good + bad)
    if good + bad:
        found.put("error_rate", bad / (good + bad), "share", n=good + bad)
    return ImportedRun(
        tool=TOOL,
        version=version,
        model=model,
        load=_load(run),
        estimates=found.estimates,
        differences=("measure.import_guidellm",),
    )


def _good(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Statistics of the requests that succeeded."""
    found = (metrics.get(name) or {}).get("successful")
    return found if isinstance(found, dict) else {}


def _load(run: Mapping[str, Any]) -> str:
    strategy = (run.get("config") or {}).get("strategy") or {}
    kind = str(strategy.get("type_", "unknown"))
    for key, unit in (("streams", ""), ("rate", "/s"), ("max_concurrency", "")):
        if strategy.get(key) is not None:
            return f"{kind} {strategy[key]}{unit}"
    return kind


def _model(content: Mapping[str, Any]) -> str:
    config = content.get("config")
    config = config if isinstance(config, dict) else {}
    for place in (config.get("spec"), config):
        backend = place.get("backend") if isinstance(place, dict) else None
        if isinstance(backend, dict) and backend.get("model"):
            return str(backend["model"])
    return ""
