"""Measure the answer quality of real models on the generated sets, level by level, with how every answer ended.

    python benchmarks/quality_by_level.py --model qwen2.5-coder-0.5b --set korean_math [--per-level 40 …]
        [--form examples] [--max-tokens 192] [--threads 1] [--threads-batch 1] [--seconds 270] [--out FOLDER]

Greedy answers of the embedded engine, one after another. Every answer is kept (``.cache/answers`` of the workspace), so
that a run that was stopped goes on where it was: start it again until it says that nothing is left. The figures are
scored from what is kept; ``--out`` writes them, with every answer's status and rule, to FOLDER/MODEL.SET.FORM.json.
A prompt that is longer than the model's context is refused by the engine and stands there with what the engine said.
"""

import argparse
import json
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path

from llmopt.engines.launch import launch
from llmopt.engines.registry import get_engine
from llmopt.hardware.probe import probe
from llmopt.measure.cache import AnswerKey, ResponseCache
from llmopt.measure.client import Client
from llmopt.measure.client import run as run_loop
from llmopt.measure.judging import judge_for
from llmopt.measure.quality import SATURATED_HIGH, SATURATED_LOW, quality, score, status_rates
from llmopt.models.catalogue import find_model
from llmopt.models.metadata import read_model
from llmopt.models.weights import ensure_weights
from llmopt.paths import Workspace
from llmopt.records import InferenceParams, Load, Task
from llmopt.runtime.guardian import Guardian
from llmopt.search.workload import Workload, request_for
from llmopt.workload.datasets import load_dataset, subset

PARTS = {"korean_math": ("korean_math",), "korean_qa": ("korean_qa", "korean_qa_1k", "korean_qa_4k", "korean_qa_16k")}
"""A set and its parts; those of korean_qa are its passage lengths, which are its levels."""


def items_of(name, per_level, workspace):
    """(dataset, its items by level): of each level so many, spread over templates, the same ones on every run."""
    found = []
    for place, part in enumerate(PARTS[name]):
        dataset = load_dataset(part, workspace=workspace, seed=0)
        levels = sorted({item.level for item in dataset.items if item.split != "examples"})
        for level in levels:
            wanted = per_level[min(place if len(levels) == 1 else levels.index(level), len(per_level) - 1)]
            only = tuple(item for item in dataset.items if item.level == level or item.split == "examples")
            chosen = subset(replace(dataset, items=only), "confirm", wanted, seed=0)
            more = subset(replace(dataset, items=only), "search", wanted - len(chosen), seed=0)
            found.append((dataset, level, (*chosen, *more)))
    return found


class Asking:
    """Asks what is not answered yet, until the time is over; starts the engine only when there is something to ask."""

    def __init__(self, options, workspace):
        self.options = options
        self.cache = ResponseCache(workspace.cache / "answers")
        self.engine = get_engine("llamacpp")
        entry = find_model(options.model, workspace)
        path = ensure_weights(entry, workspace=workspace)
        self.model = replace(read_model(path, entry.name), sha256=entry.gguf.sha256)
        self.workspace = workspace
        self.end_s = time.monotonic() + options.seconds
        self.stack = AsyncExitStack()
        self.client = None

    def settings(self, context_tokens):
        """One slot that keeps its last prompt, so that worked examples are read once; it changes no greedy answer."""
        task = Task(
            load=Load(streams=1), max_tokens=self.options.max_tokens, prompt_tokens=context_tokens, prefix_cache=True
        )
        plain = self.engine.baseline(self.model, probe(), task)
        threads = {"threads": self.options.threads, "threads_batch": self.options.threads_batch}
        return plain | threads | {"slots": 1, "context": context_tokens + self.options.max_tokens}

    async def answers(self, dataset, items):
        """Item id → sample for what is known or could be asked in time.

        Kind by kind: items of a kind show the same worked examples, which the slot then reads only once.
        """
        work = Workload(
            dataset=dataset,
            load=Load(streams=1),
            max_tokens=self.options.max_tokens,
            seed=0,
            request_timeout_s=3600.0,
            warmup_items=(),
            judge=judge_for(dataset),
        )
        context = 32768 if any(item.level == 4 and "context" in item.meta for item in items) else 8192
        context = min(context, self.model.context_length or context)
        settings = self.settings(context - self.options.max_tokens)
        found = {}
        for item in sorted(items, key=lambda item: item.kind):
            params = InferenceParams(temperature=0.0, prompt_form=self.options.form)
            request = request_for(item, params, work, {"cache_prompt": True})
            key = AnswerKey(
                model=self.model.sha256, engine="llamacpp", engine_version=self.engine.installation().version,
                launch={n: v for n, v in settings.items() if not n.startswith(("threads", "wait_policy"))},
                messages=request.messages, params=request.params,
            )  # fmt: skip
            sample = self.cache.get(key)
            if sample is None and time.monotonic() < self.end_s:
                sample = await self.ask(settings, request)
                self.cache.put(key, sample)
                print(
                    f"{dataset.name} {item.id} {sample.ended_s - sample.sent_s:.1f} s {sample.error or ''}",
                    file=sys.stderr,
                )
            if sample is not None:
                found[item.id] = sample
        return found

    async def ask(self, settings, request):
        if self.client is None or self.running != settings:
            await self.stack.aclose()
            self.stack = AsyncExitStack()
            root = self.workspace.results / "quality-by-level"
            running = await self.stack.enter_async_context(
                launch(self.engine, self.model, settings, guardian=Guardian.shared(), run_root=root)
            )
            self.client = await self.stack.enter_async_context(Client(running.endpoint, timeout_s=3600.0))
            self.running = settings
        return await self.client.send(request)


async def measured(options, workspace):
    asking = Asking(options, workspace)
    levels, answers, wanted = [], [], 0
    async with AsyncExitStack() as stack:
        for dataset, level, items in items_of(options.set, options.per_level, workspace):
            wanted += len(items)
            samples = await asking.answers(dataset, items)
            known = [item for item in items if item.id in samples]
            scores = [score(item, samples[item.id], language=dataset.language) for item in known]
            estimates = quality(known, scores)
            figure = estimates["accuracy"].value if "accuracy" in estimates else None
            rates = {name: rate for name, rate in status_rates(scores).items() if rate} if scores else {}
            levels.append(
                {
                    "level": level, "part": dataset.name, "asked": len(items), "answered": len(known),
                    "accuracy": asdict(estimates["accuracy"]) if "accuracy" in estimates else None,
                    "statuses": {name: round(rate * len(scores)) for name, rate in rates.items()},
                    "saturated": None if figure is None else not SATURATED_LOW <= figure <= SATURATED_HIGH,
                }
            )  # fmt: skip
            answers += [
                {"id": one.item_id, "level": level, "value": one.value, "status": one.status.value, "rule": one.rule,
                 "extracted": one.extracted, "prompt_tokens": samples[one.item_id].prompt_tokens,
                 "completion_tokens": samples[one.item_id].completion_tokens,
                 "seconds": round(samples[one.item_id].ended_s - samples[one.item_id].sent_s, 2),
                 "text": samples[one.item_id].text, "error": samples[one.item_id].error}
                for one in scores
            ]  # fmt: skip
        stack.push_async_callback(asking.stack.aclose)
    left = wanted - len(answers)
    return {
        "model": {"name": asking.model.name, "sha256": asking.model.sha256, "quantization": asking.model.quantization},
        "set": options.set, "form": options.form, "temperature": 0.0, "max_tokens": options.max_tokens, "seed": 0,
        "engine": f"llamacpp {asking.engine.installation().version}",
        "left": left, "levels": levels, "answers": answers,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--set", choices=sorted(PARTS), required=True)
    parser.add_argument("--per-level", type=int, nargs="+", default=[40])
    parser.add_argument("--form", default="examples")
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--threads-batch", type=int, default=1, help="threads that read prompts")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no question after this time")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = run_loop(measured(options, Workspace.here()))
    for row in result["levels"]:
        figure = row["accuracy"] or {"value": 0, "low": 0, "high": 0}
        shown = " – ".join(f"{100 * (figure[name] or 0):.1f}" for name in ("low", "high"))
        print(
            f"{row['part']} level {row['level']}: {100 * figure['value']:.1f} % ({shown}),",
            f"{row['answered']}/{row['asked']}",
            row["statuses"],
        )
    print(f"{result['left']} left to ask")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        name = f"{options.model}.{options.set}.{options.form}.json"
        (options.out / name).write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 3 if result["left"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
