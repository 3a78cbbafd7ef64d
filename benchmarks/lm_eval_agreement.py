"""Set our scores of English word problems beside lm-evaluation-harness's: on replayed answers, then live on one server.

    LLMOPT_LM_EVAL_PYTHON=VENV/bin/python python benchmarks/lm_eval_agreement.py [--items 60] [--outputs 616]
        [--model smollm2-135m] [--live 0:50] [--out docs/measurements/lm-eval.json]

VENV holds ``lm-eval[api]``; nothing is downloaded. Four parts. *styles*: every gold number written the ways models
write it, read by our extraction and by the two filters of the harness's gsm8k task. *outputs*: the same readers on
``--outputs`` whole worked solutions (``gsm8k_outputs.py``), reply by reply. *replay*: replies scored by a task whose
rule is exact match, item by item. *live*: the same task asked once by lm_eval's own command and once by us, of the
same engine, greedily; ``--live 50:100`` asks so many more problems and adds them to what ``--out`` already holds.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from gsm8k_outputs import outputs

from llmopt.engines.launch import launch
from llmopt.engines.llamacpp import LlamaCpp
from llmopt.hardware.probe import probe
from llmopt.measure.client import Client
from llmopt.measure.judging import judge_for
from llmopt.measure.quality import score
from llmopt.models.catalogue import find_model
from llmopt.models.metadata import read_model
from llmopt.models.weights import ensure_weights
from llmopt.paths import Workspace
from llmopt.records import InferenceParams, Item, Load, Sample, Task
from llmopt.runtime.guardian import Guardian
from llmopt.search.workload import Workload, request_for
from llmopt.workload.datasets import load_dataset
from llmopt.workload.lm_eval_tasks import INTERPRETER_VARIABLE

NUMBER = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
test_split: train
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: {until}, max_gen_toks: 64, do_sample: false, temperature: 0.0}}
{filters}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, ignore_punctuation: false,
     regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]}}
"""
"""The metric is that of the harness's gsm8k task, whose filters are these two."""
SHORT = '["\\n\\n"]'
AS_GSM8K = '["Question:", "</s>", "<|im_end|>"]'
"""Where a reply ends: at the first empty line, or as in the gsm8k task."""
FLEXIBLE = """
filter_list:
  - name: flexible-extract
    filter:
      - {function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}
      - {function: take_first}
"""
STRICT = """
filter_list:
  - name: strict-match
    filter:
      - {function: regex, regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)"}
      - {function: take_first}
"""
STYLES = {
    "gsm8k": "She has {a} and gets {b}, so {a} + {b} = {n}.\n#### {n}",
    "the answer is": "{a} + {b} = {n}. The answer is {n}.",
    "Answer:": "First add {a} and {b}.\nAnswer: {n}",
    "bold": "Adding both gives the total.\n\n**Answer: {n}**",
    "boxed": "We compute $ {a} + {b} = {n} $, so the result is \\boxed{{{n}}}.",
    "dollars": "The total cost is ${n}.",
    "unit": "Altogether there are {n} apples.",
    "commas": "#### {n:,}",
    "dollars and commas": "Therefore, the answer is ${n:,}.",
    "decimal": "The final answer is {n}.00",
    "sentence after": "Answer: {n}\nThis follows from adding {a} and {b}.",
    "check after": "The answer is {n}. Check: {n} - {b} = {a}.",
    "equation last": "So {a} + {b} = {n}",
    "words around": "So, in total, {n} of them are left in the box.",
    "restated": "If there are {a} and {b} more arrive, the final answer is: {n}",
    "steps": "Step 1: start with {a}.\nStep 2: add {b}.\nStep 3: the sum is {n}.\nAnswer: {n}",
    "thinking": "<think>maybe {a} - {b}? no</think>The answer is {n}.",
    "is therefore": "The number of apples is therefore {n}.",
    "percent": "Answer: {n}%",
    "wrong": "#### {w}",
    "wrong, right in passing": "It could be {n}, but the answer is {w}.",
}


def problems(count):
    source = random.Random(11)
    rows = []
    for n in range(count):
        a, b = source.randint(12, 980), source.randint(12, 980)
        rows.append(
            {"id": n, "a": a, "b": b, "answer": str(a + b),
             "question": f"A shop has {a} apples and buys {b} more. How many apples does it have? "
                         "Finish with a line of the form 'Answer: <number>'."}
        )  # fmt: skip
    return rows


def write_task(folder, name, rows, filters, until=SHORT):
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(TASK.format(name=name, data=data, filters=filters, until=until), encoding="utf-8")
    return path


def said(item, text):
    return Sample(item_id=item.id, planned_s=0, sent_s=0, ended_s=1, text=text, finish_reason="stop")


def styles(rows, tasks):
    """Share of replies each reader reads as they are meant, by style."""
    found = {}
    for style, form in STYLES.items():
        counts = dict.fromkeys(("ours", *tasks), 0)
        for row in rows:
            n = int(row["answer"])
            text = form.format(a=row["a"], b=row["b"], n=n, w=n + 7)
            meant = 0.0 if style.startswith("wrong") else 1.0
            ours = Item(id="x", question=row["question"], answers=(row["answer"],), kind="numeric")
            counts["ours"] += score(ours, said(ours, text)).value == meant
            for name, items in tasks.items():
                counts[name] += score(items[row["question"]], said(items[row["question"]], text)).value == meant
        found[style] = {name: count / len(rows) for name, count in counts.items()}
    return found


def whole_solutions(count, folder, workspace):
    """The three readers on whole replies: shares read as meant, and what each reads better than the other, by style."""
    replies = outputs(count)
    rows = [{"id": n, "question": f"{n}. {one.question}", "answer": one.gold} for n, one in enumerate(replies)]
    items = read_by_lm_eval(folder, rows, workspace, "_outputs", AS_GSM8K)
    counts = dict.fromkeys(("ours", *items), 0)
    by_style: dict[str, dict[str, int]] = {}
    better: dict[str, int] = {}
    worse: dict[str, int] = {}
    for row, one in zip(rows, replies, strict=True):
        mine = Item(id="x", question=one.question, answers=(one.gold,), kind="numeric")
        read = {"ours": score(mine, said(mine, one.text)).value}
        for name, theirs in items.items():
            item = theirs[row["question"]]
            read[name] = score(item, said(item, one.text)).value
        as_meant = {name: (value == 1.0) == one.meant for name, value in read.items()}
        style = by_style.setdefault(one.style, {"replies": 0, **dict.fromkeys(read, 0)})
        style["replies"] += 1
        for name, fine in as_meant.items():
            counts[name] += fine
            style[name] += fine
        others = any(as_meant[name] for name in items)
        if others != as_meant["ours"]:
            side = worse if others else better
            side[one.style] = side.get(one.style, 0) + 1
    shares = {name: found / len(replies) for name, found in counts.items()}
    return {
        "replies": len(replies), "meant_right": sum(one.meant for one in replies), "read_as_meant": shares,
        "read_as_meant_by_ours_alone": better, "read_as_meant_by_theirs_alone": worse, "by_style": by_style,
    }  # fmt: skip


def read_by_lm_eval(folder, rows, workspace, suffix="", until=SHORT):
    """Filter → question → item that the harness's own rules score."""
    found = {}
    for key, filters in (("flexible", FLEXIBLE), ("strict", STRICT)):
        path = write_task(folder, key + suffix, rows, filters, until)
        dataset = load_dataset(f"lm_eval:{path}", workspace=workspace)
        found[key] = {item.question: item for item in dataset.items}
        assert len(found[key]) == len(rows), "every reply has its own document"
    return found


def replay(rows, folder, workspace):
    """Item by item where the rule is the same: exact match of the whole reply."""
    path = write_task(folder, "whole_reply", rows, "")
    theirs = {item.question: item for item in load_dataset(f"lm_eval:{path}", workspace=workspace).items}
    equal = total = 0
    for row in rows:
        for reply in (row["answer"], row["answer"] + ".", f"${row['answer']}", "about " + row["answer"], "0", ""):
            plain = Item(id="x", question=row["question"], answers=(row["answer"],), kind="exact")
            mine = score(plain, said(plain, reply.replace("$", "").removesuffix("."))).value
            equal += mine == score(theirs[row["question"]], said(theirs[row["question"]], reply)).value
            total += 1
    return {"equal": equal, "total": total}


class OnPort(LlamaCpp):
    """The same engine where lm_eval can reach it."""

    transport = "port"


async def live(options, task, workspace):
    entry = find_model(options.model, workspace)
    model = read_model(ensure_weights(entry, workspace=workspace), entry.name)
    engine = OnPort()
    shape = Task(load=Load(streams=1), max_tokens=64, prompt_tokens=256, prefix_cache=False)
    one = {"threads": 1, "threads_batch": 1, "slots": 1, "context": 1024, "batch": 512, "ubatch": 512}
    settings = {**engine.baseline(model, probe(), shape), **one}
    dataset = load_dataset(f"lm_eval:{task}", workspace=workspace)
    work = Workload(
        dataset=dataset, load=Load(streams=1), max_tokens=64, seed=0, request_timeout_s=600, warmup_items=(),
        judge=judge_for(dataset),
    )  # fmt: skip
    async with launch(engine, model, settings, guardian=Guardian.shared(), run_root=workspace.results / "live") as ran:
        theirs = await asyncio.to_thread(ask_by_lm_eval, ran.endpoint, task, workspace.root)
        ours = {}
        async with Client(ran.endpoint) as client:
            for item in dataset.items:
                sample = await client.send(request_for(item, InferenceParams(temperature=0.0), work))
                ours[item.id.rpartition("/")[2]] = (score(item, sample).value, sample.text)
    return {
        "items": len(theirs), "agree": sum(ours[name][0] == theirs[name][0] for name in theirs),
        "right_ours": sum(value for value, _ in ours.values()),
        "right_lm_eval": sum(value for value, _ in theirs.values()),
        "same_text": sum(ours[name][1].strip() == theirs[name][1].strip() for name in theirs),
    }  # fmt: skip


def asked_live(options, folder, workspace):
    """The parts asked so far, by model, with what they come to."""
    known = json.loads(options.out.read_text(encoding="utf-8"))["live"] if options.out and options.out.exists() else {}
    first, last = map(int, options.live.split(":"))
    parts = dict(known.get(options.model, {}).get("parts", {}))
    if last > first:
        task = write_task(folder, "live", problems(last)[first:], FLEXIBLE)
        parts[options.live] = asyncio.run(live(options, task, workspace))
    if parts:
        total = {name: sum(part[name] for part in parts.values()) for name in next(iter(parts.values()))}
        known[options.model] = {**total, "share": total["agree"] / total["items"], "parts": parts}
    return known


def ask_by_lm_eval(endpoint, task, folder):
    """Document → (exact match, reply) by the harness's own command against the running engine."""
    out = folder / "lm_eval_out"
    url = f"http://127.0.0.1:{endpoint.port}/v1/chat/completions"
    given = {
        "--model": "local-chat-completions",
        "--model_args": f"model={endpoint.model},base_url={url},num_concurrent=1",
        "--tasks": task.stem,
        "--include_path": str(task.parent),
        "--output_path": str(out),
    }
    command = [os.environ[INTERPRETER_VARIABLE], "-m", "lm_eval", *(part for pair in given.items() for part in pair)]
    ours = {"OPENAI_API_KEY": endpoint.api_key or "none", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    subprocess.run(
        [*command, "--apply_chat_template", "--log_samples"], check=True, stdout=sys.stderr, env={**os.environ, **ours}
    )
    (path,) = out.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {str(row["doc_id"]): (float(row["exact_match"]), row["resps"][0][0]) for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--outputs", type=int, default=616)
    parser.add_argument("--live", default="0:40", help="which problems are asked of a real model; 0:0 for none")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = problems(options.items)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("HF_HOME", str(folder / "hf"))
        os.environ["HF_HUB_OFFLINE"] = "1"
        workspace = Workspace(root=folder)
        tasks = read_by_lm_eval(folder, rows, workspace)
        by_style = styles(rows, tasks)
        result = {
            "lm_eval": subprocess.check_output(
                [os.environ[INTERPRETER_VARIABLE], "-c", "import importlib.metadata as m; print(m.version('lm_eval'))"],
                text=True,
            ).strip(),
            "items": len(rows),
            "styles": by_style,
            "mean": {key: sum(row[key] for row in by_style.values()) / len(by_style) for key in ("ours", *tasks)},
            "outputs": whole_solutions(options.outputs, folder, workspace),
            "replay": replay(rows, folder, workspace),
            "live": asked_live(options, folder, workspace),
        }
    print(json.dumps(result, indent=2, ensure_ascii=False))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    solutions = result["outputs"]
    worse = [style for style, row in by_style.items() if row["ours"] < max(row[key] for key in tasks)]
    equal = result["replay"]["equal"] == result["replay"]["total"]
    agreed = all(one["share"] >= 0.98 for one in result["live"].values())
    print(f"styles read worse than by lm_eval: {worse or 'none'}")
    print(f"whole solutions read better by lm_eval: {solutions['read_as_meant_by_theirs_alone'] or 'none'}")
    return 0 if not worse and not solutions["read_as_meant_by_theirs_alone"] and equal and agreed else 1


if __name__ == "__main__":
    raise SystemExit(main())
