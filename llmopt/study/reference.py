"""The reference run: what the baseline answers greedily, for questions that have no gold answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from llmopt.errors import EngineError
from llmopt.measure.load import OnSample
from llmopt.records import Configuration, Item, Outcome, Sample
from llmopt.search.trial import TrialBench
from llmopt.search.workload import request_for
from llmopt.store.beside import sample_from
from llmopt.store.samples import read_samples, write_samples
from llmopt.study.kept_answers import KeptAnswers
from llmopt.study.prepare import Prepared
from llmopt.study.telling import cause

__all__ = ["greedy", "reference_answers"]

NAME = "reference"


def greedy(configuration: Configuration) -> Configuration:
    """The same without chance: what this launch says when it is asked again."""
    request = replace(configuration.request, temperature=0.0, top_p=None, top_k=None, min_p=None)
    return replace(configuration, request=request)


async def reference_answers(
    bench: TrialBench, prepared: Prepared, items: Sequence[Item], folder: Path, *, on_sample: OnSample | None = None
) -> Mapping[str, Sample]:
    """The greedy baseline's answers by item: from this study's disk, from kept answers, or asked now.

    They are on disk when this returns, so that a resumed study is judged by the same ones. Raises EngineError where the
    baseline cannot answer.
    """
    path = folder / "samples" / f"{NAME}.jsonl.gz"
    stored = [sample_from(row["sample"]) for row in read_samples(path)] if path.exists() else []
    known = {sample.item_id: sample for sample in stored}
    missing = [item for item in items if item.id not in known]
    if not missing:
        return known
    configuration, kept = greedy(prepared.baseline), KeptAnswers(prepared)
    requests = {item.id: request_for(item, configuration.request, prepared.work) for item in missing}
    known |= {name: found for name, r in requests.items() if (found := kept.get(configuration, r)) is not None}
    asked = [item for item in missing if item.id not in known]
    if asked:
        result = await bench.run(configuration, asked, on_sample=on_sample)
        if result.outcome is not Outcome.DONE:
            raise EngineError("study.baseline_failed", **cause(result))
        answered = [sample for sample in result.samples if sample.ok]
        kept.put(configuration, [requests[sample.item_id] for sample in answered], answered)
        known |= {sample.item_id: sample for sample in answered}
    write_samples(folder / "samples", NAME, ({"sample": asdict(sample)} for sample in known.values()))
    return known
