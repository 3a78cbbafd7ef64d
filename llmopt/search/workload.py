"""The task of a study as trials put it: which data, at which load, judged by whom; and the request of one item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmopt.measure.judging import Judge
from llmopt.measure.load import SharedPrefix
from llmopt.measure.slo import Slo
from llmopt.measure.warmup import WarmUpRule
from llmopt.records import Dataset, InferenceParams, Item, Load, Request
from llmopt.workload.prompts import render
from llmopt.workload.repeats import seed_for

__all__ = ["Workload", "request_for"]

WARM_UP = WarmUpRule(requests=4, seconds=1.0, cap_s=2.0, span_s=0.75, drift=0.25, spread=0.4, promise=False)
"""Once a launch: readiness has already had a real completion; this pages weights in and fills every slot."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The task, the same for every trial of a study."""

    dataset: Dataset
    load: Load
    max_tokens: int
    seed: int
    request_timeout_s: float
    warmup_items: tuple[Item, ...]
    """Items outside every measured set, so that warming up teaches no cache anything."""
    judge: Judge
    repeats: int = 1
    """Answers to each item, with a seed each, where the temperature leaves something to chance."""
    slo: Slo | None = None
    """Limits that one request meets or misses; adds goodput and attainment to the figures."""
    shared_prefix: SharedPrefix | None = None
    """What stands before every measured prompt, where prefix caching is what is tested."""
    warm_up: WarmUpRule = WARM_UP
    noise_floor: float | None = None
    client_error_ms: float | None = None
    """What is known of this machine, for the certificate (see ``measure.calibrate``)."""


def request_for(
    item: Item,
    params: InferenceParams,
    work: Workload,
    extra: Mapping[str, Any] | None = None,
    *,
    repeat: int = 0,
) -> Request:
    """The request that asks ``item``: rendered prompt, the study's token limit, a seed for each item and repeat.

    A foreign task brings its own stop strings: what comes after them was never part of the answer.
    """
    stop = {"stop": list(item.meta["stop"])} if item.meta.get("stop") else {}
    return Request(
        item_id=item.id,
        messages=render(item, params.prompt_form or "zero_shot", work.dataset),
        params=replace(params, max_tokens=work.max_tokens, seed=seed_for(work.seed, item.id, repeat)),
        extra={**stop, **(extra or {})},
    )
