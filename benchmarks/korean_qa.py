"""Check 5,000 items of korean_qa a seed and time their generation.

    python benchmarks/korean_qa.py [--items 5000] [--seeds 0 1 2] [--json FILE]

Counts duplicates, gold answers the second solver does not find in the text, particles that do not fit the word before
them, and answers printed in their own question; all must be 0. ``--items`` are checked of 256 and of 1k tokens, a
fifth as many of 4k and a twentieth of 16k. Speed is the best of five runs in this process, first run left out, for each
passage length, in processor time (other work may run beside it), with the characters written in a second of it and what
an item takes of memory: for ``--items`` items of every length, and for the 200 of a set by name, which carry the whole
cost of the chapters their passages are surrounded by. Every run has a seed of its own.
"""

import argparse
import json
import platform
import sys
import time
import tomllib
from pathlib import Path

from llmopt.workload.korean.audit import misfits
from llmopt.workload.korean_qa import SET_VERSION, generate, genres, template_ids
from llmopt.workload.korean_qa.generator import LEVEL_TOKENS
from llmopt.workload.korean_qa.solver import solve

OTHERS = ("묵는", "농가")
OF_A_NAMED_SET = 200
FEWER = {1: 1, 2: 1, 3: 5, 4: 20}
"""Level → one item of it is checked for so many of the shortest level: a long one has much text."""


def nouns():
    """The documents' own nouns that end like a particle (고을, 내과): the audit cannot know them."""
    found = set(OTHERS)
    for path in Path(genres.__file__).parent.glob("*.toml"):
        read = tomllib.loads(path.read_text(encoding="utf-8"))
        for field in (*read["fields"], *read["group_fields"]):
            found.update((field["label"].split()[-1], *field.get("texts", ()), *field.get("tails", ())))
            found.update(word for head in field.get("heads", ()) for word in head.split())
    return tuple(found)


def check(items, known):
    items = [item for item in items if item.split != "examples"]
    texts = [text for item in items for text in (item.question, str(item.meta["context"]))]
    return {
        "items": len(items),
        "duplicates": len(items) - len({(item.question, item.meta["context"]) for item in items}),
        "solvers_disagree": sum(solve(item) not in item.answers for item in items),
        "particle_errors": sum(not str(word).endswith(known) for text in texts for word in misfits(text)),
        "answers_printed": sum(map(prints_its_answer, items)),
    }


def prints_its_answer(item):
    gold = item.options["ABCD".index(item.answers[0])] if item.options else item.answers[0]
    return item.meta["query"]["op"] != "pair" and gold in item.question


def speed(count, level):
    generate(10, 0)
    runs = []
    for seed in range(6):
        begin = time.process_time()
        items = generate(count, seed, levels=(level,))
        taken_s = time.process_time() - begin
        passages = [str(item.meta["context"]) for item in items]
        runs.append((taken_s, sum(map(len, passages)), sum(map(sys.getsizeof, passages)) / len(passages)))
        del items, passages
    taken_s, written, held = min(runs[1:])
    return {
        "items": count,
        "items_per_second": round(count / taken_s),
        "million_characters_per_second": round(written / taken_s / 1e6, 1),
        "passage_kilobytes_in_memory": round(held / 1e3, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="none: the speed alone")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    known = nouns()
    checks = {
        f"seed {seed}, {LEVEL_TOKENS[level]} tokens": check(
            generate(options.items // fewer, seed, levels=(level,)), known
        )
        for seed in options.seeds
        for level, fewer in FEWER.items()
    }
    result = {
        "set": SET_VERSION,
        "templates": len(template_ids()),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "speed": {
            f"{LEVEL_TOKENS[level]} tokens": [speed(count, level) for count in (options.items, OF_A_NAMED_SET)]
            for level in LEVEL_TOKENS
        },
        "checks": checks,
    }
    text = json.dumps(result, ensure_ascii=False, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    failed = any(count for found in checks.values() for name, count in found.items() if name != "items")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
