"""Results of ``vllm bench serve``. With --save-detailed every request is there and our own formulas are applied."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from llmopt.errors import EngineError
from llmopt.measure.importers.form import ImportedRun, Statistics, number
from llmopt.measure.load import ClientHealth, LoadRun
from llmopt.measure.metrics import speed
from llmopt.records import Estimate, Load, Sample

__all__ = ["is_vllm", "read_vllm"]

TOOL = "vllm bench serve"
UNKNOWN = ClientHealth(lag_p99_s=0.0, lag_max_s=0.0, cpu_share=0.0)
NAMES = {"ttft": "ttft", "tpot": "tpot", "itl": "inter_chunk", "e2el": "e2e"}
"""Their pooled ITL is one gap a chunk: our inter-chunk gap."""


def is_vllm(content: Mapping[str, Any]) -> bool:
    """Whether a file is one of theirs."""
    return {"request_throughput", "duration", "completed"} <= set(content)


def read_vllm(content: Mapping[str, Any]) -> tuple[ImportedRun, ...]:
    """The one run of a file."""
    detailed = _recomputed(content)
    return (
        ImportedRun(
            tool=TOOL,
            version="",
            model=str(content.get("model_id", "")),
            load=_load(content),
            estimates={**_reported(content), **(detailed or {})},
            differences=("measure.import_vllm_detailed" if detailed else "measure.import_vllm",),
            extra={"backend": content.get("backend"), "date": content.get("date")},
        ),
    )


def _load(content: Mapping[str, Any]) -> str:
    concurrency, rate = content.get("max_concurrency"), content.get("request_rate", "inf")
    parts = [f"concurrency {concurrency}"] if concurrency else []
    if rate != "inf":
        law = "poisson" if content.get("burstiness", 1.0) == 1.0 else f"gamma {content['burstiness']}"
        parts.append(f"{law} {rate}/s")
    return ", ".join(parts) or "all at once"


def _reported(content: Mapping[str, Any]) -> dict[str, Estimate]:
    completed, failed = int(content.get("completed") or 0), int(content.get("failed") or 0)
    found = Statistics(TOOL)
    for theirs, ours in NAMES.items():
        statistics = {key: content.get(f"{key}_{theirs}_ms") for key in ("mean", "p90", "p95", "p99")}
        found.latency(ours, {**statistics, "p50": content.get(f"median_{theirs}_ms")}, n=completed)
    rate = number(content.get("request_throughput"))
    found.put("answers_per_minute", None if rate is None else rate * 60, "answers/min", n=completed)
    found.put("output_tokens_per_s", content.get("output_throughput"), "tokens/s", n=completed)
    found.put("total_tokens_per_s", content.get("total_token_throughput"), "tokens/s", n=completed)
    found.put("goodput_per_s", content.get("request_goodput"), "requests/s", n=completed)
    if completed + failed:
        found.put("error_rate", failed / (completed + failed), "share", n=completed + failed)
    return found.estimates


def _recomputed(content: Mapping[str, Any]) -> dict[str, Estimate] | None:
    """Our own figures from per-request times, None where the file has none (or no request succeeded)."""
    columns = ("start_times", "ttfts", "itls", "output_lens", "input_lens", "errors")
    if not all(isinstance(content.get(name), list) for name in columns) or "start_times" not in content:
        return None
    rows = zip(*(content[name] for name in columns), strict=True)
    samples = tuple(_sample(index, dict(zip(columns, row, strict=True))) for index, row in enumerate(rows))
    if not samples:
        return None
    start_s, end_s = min(s.sent_s for s in samples), max(s.ended_s for s in samples)
    concurrency = content.get("max_concurrency")
    load = Load(streams=concurrency if isinstance(concurrency, int) else None)
    run = LoadRun(
        load=load,
        samples=samples,
        started_s=start_s,
        ended_s=end_s,
        window_start_s=start_s,
        window_end_s=end_s,
        health=UNKNOWN,
    )
    try:
        return speed(run)
    except EngineError:
        return None


def _sample(index: int, row: Mapping[str, Any]) -> Sample:
    start_s, ttft_s, gaps_s = float(row["start_times"]), float(row["ttfts"]), row["itls"]
    times = tuple(itertools.accumulate(gaps_s, initial=start_s + ttft_s)) if ttft_s or gaps_s else ()
    error = str(row["errors"] or "").strip()
    return Sample(
        item_id=str(index),
        planned_s=start_s,
        sent_s=start_s,
        ended_s=times[-1] if times else start_s,
        token_s=times,
        first_answer_s=times[0] if times else None,
        prompt_tokens=row["input_lens"] or None,
        completion_tokens=row["output_lens"] or None,
        error=None if times and not error else (error or "failed").splitlines()[-1][:200],
    )
