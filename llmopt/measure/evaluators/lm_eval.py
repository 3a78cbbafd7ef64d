"""Scoring answers to lm-evaluation-harness tasks with the harness's own filters and metrics."""

from __future__ import annotations

import json

from llmopt.measure.answers.reply import Reading, Reply
from llmopt.records import Item, Sample
from llmopt.workload.lm_eval_tasks import LIKELIHOOD, bridge_to

__all__ = ["LmEval"]


class LmEval:
    """The value of the task's first filter and its exact_match, acc or f1, whichever it has."""

    name = "lm_eval"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """Hand the visible reply, or the likelihoods it lists, to the bridge; the rule names filter and metric."""
        source = item.meta["lm_eval"]
        bridge = bridge_to(str(source["python"]))
        if LIKELIHOOD in item.meta:
            found = bridge.score_likelihoods(source, json.loads(sample.text))
        else:
            found = bridge.score(source, reply.text)
        extracted = None if found["extracted"] in {"[invalid]", ""} else found["extracted"]
        return Reading(found["value"], extracted, f"{found['filter']}:{found['metric']}")
