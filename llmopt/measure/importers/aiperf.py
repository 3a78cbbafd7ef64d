"""Summaries of AIPerf (``profile_export_aiperf.json``) and of its forerunner GenAI-Perf, whose layout it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmopt.measure.importers.form import ImportedRun, Statistics, number

__all__ = ["is_aiperf", "read_aiperf"]

TOOL = "AIPerf"
LATENCIES = {
    "time_to_first_token": "ttft",
    "time_to_first_output_token": "ttfot",
    "inter_token_latency": "tpot",
    "inter_chunk_latency": "inter_chunk",
    "request_latency": "e2e",
}
"""Their inter-token latency is one mean a request, (latency - TTFT) / (tokens - first): our TPOT."""
SCALES = {"ms": 1.0, "s": 1000.0, "us": 1e-3, "ns": 1e-6}
RATES = {
    "output_token_throughput": ("output_tokens_per_s", 1.0, "tokens/s"),
    "total_token_throughput": ("total_tokens_per_s", 1.0, "tokens/s"),
    "request_throughput": ("answers_per_minute", 60.0, "answers/min"),
    "goodput": ("goodput_per_s", 1.0, "requests/s"),
}


def is_aiperf(content: Mapping[str, Any]) -> bool:
    """Whether a file is one of theirs."""
    return all(_metric(content, name).get("unit") for name in ("request_throughput", "request_latency"))


def read_aiperf(content: Mapping[str, Any]) -> tuple[ImportedRun, ...]:
    """The one run of a file."""
    good = int(number(_metric(content, "request_count").get("avg")) or 0)
    bad = int(number(_metric(content, "error_request_count").get("avg")) or 0)
    found = Statistics(TOOL)
    for theirs, ours in LATENCIES.items():
        metric = _metric(content, theirs)
        scale = SCALES.get(str(metric.get("unit", "ms")), 1.0)
        found.latency(ours, {**metric, "mean": metric.get("avg")}, n=int(metric.get("count") or good), scale=scale)
    for theirs, (ours, factor, unit) in RATES.items():
        value = number(_metric(content, theirs).get("avg"))
        found.put(ours, None if value is None else value * factor, unit, n=good)
    if good + bad:
        found.put("error_rate", bad / (good + bad), "share", n=good + bad)
    incomplete = content.get("is_complete") is False or content.get("was_cancelled") is True
    return (
        ImportedRun(
            tool=TOOL,
            version=str(content.get("aiperf_version", "")),
            model=_model(content),
            load=_load(content),
            estimates=found.estimates,
            differences=("measure.import_aiperf", *(("measure.import_incomplete",) if incomplete else ())),
        ),
    )


def _metric(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def _config(content: Mapping[str, Any]) -> Mapping[str, Any]:
    found = content.get("input_config")
    return found if isinstance(found, dict) else {}


def _model(content: Mapping[str, Any]) -> str:
    config = _config(content)
    endpoint = config.get("endpoint")
    names = (endpoint.get("model_names") if isinstance(endpoint, dict) else None) or config.get("models")
    if isinstance(names, dict):
        names = [item.get("name") for item in names.get("items") or () if isinstance(item, dict)]
    return ", ".join(str(name) for name in names) if isinstance(names, list) else str(names or "")


def _load(content: Mapping[str, Any]) -> str:
    """From the settings of the load, whichever of their layouts holds them."""
    config = _config(content)
    places = [config.get("loadgen"), *_phases(config.get("phases")), config]
    for place in places:
        if isinstance(place, dict):
            rate, concurrency = place.get("request_rate") or place.get("rate"), place.get("concurrency")
            if rate or concurrency:
                return f"rate {rate}/s" if rate else f"concurrency {concurrency}"
    return "unknown"


def _phases(phases: object) -> list[object]:
    found = list(phases.values()) if isinstance(phases, dict) else phases if isinstance(phases, list) else []
    return [phase for phase in found if not (isinstance(phase, dict) and phase.get("name") == "warmup")]
