"""Measure the answer quality of real models on the generated sets, level by level, with how every answer ended.

    python benchmarks/quality_by_level.py --model qwen2.5-coder-0.5b --set korean_math [--per-level 40 …] [--levels 4]
        [--form examples] [--max-tokens 192] [--threads 1] [--threads-batch 1] [--seconds 270] [--out FOLDER]

Greedy answers of the embedded engine, one after another. Every answer is kept (``.cache/answers`` of the workspace), so
that a run that was stopped goes on where it was: start it again until it says that nothing is left. The figures are
scored from what is kept; ``--out`` writes them, with every answer's status and rule, to FOLDER/MODEL.SET.FORM.json,
after every level. What that file holds already is added to: levels not named by ``--levels`` stay as they are, and an
item of a named level that has its answer there is not asked again. ``--per-level`` counts the named levels only.
A prompt that is longer than the model's context is refused by the engine and stands there with what the engine said.

A level's items are drawn evenly over templates and asked by kind in alphabetical order (choice before qa), in the order
of their draw within a kind: where time ran out, the last items of the last kind are the ones missing.
"""

import argparse
import json
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

from llmopt.engines.launch import launch
from llmopt.engines.registry import get_engine
from llmopt.hardware.probe import probe
from llmopt.measure.cache import AnswerKey, ResponseCache
from llmopt.measure.client import Client
from llmopt.measure.client import run as run_loop
from llmopt.measure.judging import judge_for
from llmopt.measure.quality import SATURATED_HIGH, SATURATED_LOW, quality, score
from llmopt.models.catalogue import find_model
from llmopt.models.metadata import read_model
from llmopt.models.weights import ensure_weights
from llmopt.paths import Workspace, write_whole
from llmopt.records import AnswerStatus, InferenceParams, Load, Score, Settings, Task
from llmopt.runtime.guardian import Guardian
from llmopt.search.workload import Workload, request_for
from llmopt.workload.datasets import GENERATED, load_dataset, subset

PARTS = {"korean_math": ("korean_math",), "korean_qa": ("korean_qa", "korean_qa_1k", "korean_qa_4k", "korean_qa_16k")}
"""A set and its parts; those of korean_qa are its passage lengths, which are its levels."""


def items_of(name, levels, per_level, workspace):
    """(dataset, level, its items): of each level so many, spread over templates, the same ones on every run."""
    parts = [load_dataset(part, workspace=workspace, seed=0) for part in PARTS[name]]
    named = [
        (dataset, level)
        for dataset in parts
        for level in sorted({item.level for item in dataset.items if item.split != "examples"})
        if not levels or level in levels
    ]
    for place, (dataset, level) in enumerate(named):
        wanted = per_level[min(place, len(per_level) - 1)]
        only = tuple(item for item in dataset.items if item.level == level or item.split == "examples")
        chosen = subset(replace(dataset, items=only), "confirm", wanted, seed=0)
        more = subset(replace(dataset, items=only), "search", wanted - len(chosen), seed=0)
        yield dataset, level, (*chosen, *more)


class Asking:
    """Asks what is not answered yet, until the time is over; starts the engine only when there is something to ask."""

    def __init__(self, options, workspace):
        self.options = options
        self.cache = ResponseCache(workspace.cache / "answers")
        self.engine = get_engine("llamacpp")
        entry = find_model(options.model, workspace)
        path = ensure_weights(entry, workspace=workspace)
        assert entry.gguf is not None
        self.sha256 = entry.gguf.sha256 or ""
        self.model = replace(read_model(path, entry.name), sha256=self.sha256)
        self.workspace = workspace
        self.end_s = time.monotonic() + options.seconds
        self.stack = AsyncExitStack()
        self.client: Client | None = None
        self.running: Settings = {}

    def settings(self, context_tokens):
        """One slot that keeps its last prompt, so that worked examples are read once; it changes no greedy answer."""
        task = Task(
            load=Load(streams=1), max_tokens=self.options.max_tokens, prompt_tokens=context_tokens, prefix_cache=True
        )
        plain = self.engine.baseline(self.model, probe(), task)
        threads = {"threads": self.options.threads, "threads_batch": self.options.threads_batch}
        return {**plain, **threads, "slots": 1, "context": context_tokens + self.options.max_tokens}

    async def answers(self, dataset, items, told_before):
        """Item id → sample for what is kept or could be asked in time, and does not stand in the file ``told_before``.

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
        for place, item in enumerate(sorted(items, key=lambda item: item.kind), start=1):
            params = InferenceParams(temperature=0.0, prompt_form=self.options.form)
            request = request_for(item, params, work, {"cache_prompt": True})
            key = AnswerKey(
                model=self.sha256, engine="llamacpp", engine_version=self.engine.installation().version or "",
                launch={n: v for n, v in settings.items() if not n.startswith(("threads", "wait_policy"))},
                messages=request.messages, params=request.params,
            )  # fmt: skip
            sample = self.cache.get(key)
            if sample is None and item.id not in told_before and time.monotonic() < self.end_s:
                length = sum(len(message["content"]) for message in request.messages)
                told(f"{dataset.name} {item.id} ({place} of {len(items)}, {item.kind}): {length:,} characters")
                sample = await self.ask(settings, request)
                self.cache.put(key, sample)
                told(f"  {sample.ended_s - sample.sent_s:.1f} s {sample.error or sample.text!r}")
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


def version_of(dataset):
    return import_module(GENERATED[dataset.name].module).SET_VERSION


def told(text):
    print(text, file=sys.stderr, flush=True)


def judged(item, sample, dataset):
    """What the file says of one answer."""
    one = score(item, sample, language=dataset.language)
    return {
        "id": item.id, "level": item.level, "value": one.value, "status": one.status.value, "rule": one.rule,
        "extracted": one.extracted, "prompt_tokens": sample.prompt_tokens,
        "completion_tokens": sample.completion_tokens, "seconds": round(sample.ended_s - sample.sent_s, 2),
        "text": sample.text, "error": sample.error,
    }  # fmt: skip


def summed(dataset, level, items, rows):
    """The figures of one level."""
    known = [item for item in items if item.id in rows]
    scores = [
        Score(item_id=row["id"], value=row["value"], status=AnswerStatus(row["status"]), rule=row["rule"])
        for row in (rows[item.id] for item in known)
    ]
    estimates = quality(known, scores)
    figure = estimates["accuracy"].value if "accuracy" in estimates else None
    return {
        "level": level, "part": dataset.name, "version": version_of(dataset),
        "asked": len(items), "answered": len(known),
        "accuracy": asdict(estimates["accuracy"]) if "accuracy" in estimates else None,
        "statuses": dict(Counter(one.status.value for one in scores)),
        "saturated": None if figure is None else not SATURATED_LOW <= figure <= SATURATED_HIGH,
    }  # fmt: skip


class Kept:
    """The file of one model, set and form: what it holds of other levels stays."""

    def __init__(self, folder, name, about):
        self.path = folder / f"{name}.json" if folder else None
        self.about = about
        self.levels, self.answers = {}, {}
        if self.path and self.path.is_file():
            held = json.loads(self.path.read_text(encoding="utf-8"))
            if any(held[key] != value for key, value in about.items()):
                raise SystemExit(f"{self.path} was measured otherwise ({about} is asked for): choose another --out")
            self.levels = {row["level"]: row for row in held["levels"]}
            self.answers = {row["id"]: row for row in held["answers"]}

    def check(self, dataset, level):
        """Refuse to mix answers of another version of the set with this one's."""
        held = self.levels.get(level, {"answered": 0})
        if held["answered"] and held["version"] != version_of(dataset):
            raise SystemExit(
                f"level {level} in {self.path} is of {held['version']}, not {version_of(dataset)}: keep it, or move it"
            )

    def add(self, dataset, level, items, rows):
        """Put one level's answers in place of those that stood there, and write the file."""
        wanted = {item.id for item in items}
        others = {name: row for name, row in self.answers.items() if row["level"] != level}
        same = {name: row for name, row in self.answers.items() if row["level"] == level and name in wanted}
        rows = same | rows
        self.levels = dict(sorted((self.levels | {level: summed(dataset, level, items, rows)}).items()))
        self.answers = others | {item.id: rows[item.id] for item in items if item.id in rows}
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(self.result(), ensure_ascii=False, indent=1) + "\n")

    def result(self):
        answers = sorted(self.answers.values(), key=lambda row: row["level"])
        left = sum(row["asked"] - row["answered"] for row in self.levels.values())
        return {**self.about, "left": left, "levels": [*self.levels.values()], "answers": answers}


async def measured(options, workspace):
    asking = Asking(options, workspace)
    about = {
        "model": {"name": asking.model.name, "sha256": asking.model.sha256, "quantization": asking.model.quantization},
        "set": options.set, "form": options.form, "temperature": 0.0, "max_tokens": options.max_tokens, "seed": 0,
        "engine": f"llamacpp {asking.engine.installation().version}",
    }  # fmt: skip
    kept = Kept(options.out, f"{options.model}.{options.set}.{options.form}", about)
    try:
        for dataset, level, items in items_of(options.set, options.levels, options.per_level, workspace):
            kept.check(dataset, level)
            samples = await asking.answers(dataset, items, kept.answers)
            kept.add(dataset, level, items, {i.id: judged(i, samples[i.id], dataset) for i in items if i.id in samples})
    finally:
        await asking.stack.aclose()
    return kept.result()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--set", choices=sorted(PARTS), required=True)
    parser.add_argument("--per-level", type=int, nargs="+", default=[40])
    parser.add_argument("--levels", type=int, nargs="+", default=[], help="only these; all where none is named")
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
    return 3 if result["left"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
