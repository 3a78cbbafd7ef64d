"""Check 5,000 items of korean_qa a seed and time their generation.

    python benchmarks/korean_qa.py [--items 5000] [--seeds 0 1 2] [--json FILE]

Counts duplicates, gold answers the second solver does not find in the text, particles that do not fit the word before
them, and answers printed in their own question; all must be 0. Speed is the best of five runs in this process, first
run left out, for each passage length.
"""

import argparse
import json
import platform
import time
import tomllib
from pathlib import Path

from llmopt.workload.korean.audit import misfits
from llmopt.workload.korean_qa import SET_VERSION, generate, genres, template_ids
from llmopt.workload.korean_qa.generator import LEVEL_TOKENS
from llmopt.workload.korean_qa.solver import solve

OTHERS = ("묵는", "농가")


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
    texts = [text for item in items for text in (item.question, str(item.meta["context"]))]
    return {
        "items": len(items),
        "duplicates": len(items) - len({(item.question, item.meta["context"]) for item in items}),
        "solver_disagrees": sum(solve(item) not in item.answers for item in items),
        "particle_errors": sum(not str(word).endswith(known) for text in texts for word in misfits(text)),
        "answers_printed": sum(map(prints_its_answer, items)),
    }


def prints_its_answer(item):
    gold = item.options["ABCD".index(item.answers[0])] if item.options else item.answers[0]
    return item.meta["query"]["op"] != "pair" and gold in item.question


def items_per_second(count, level):
    generate(10, 0)
    times = []
    for seed in range(6):
        begin = time.perf_counter()
        generate(count, seed, levels=(level,))
        times.append(time.perf_counter() - begin)
    return count / min(times[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    known = nouns()
    result = {
        "set": SET_VERSION,
        "templates": len(template_ids()),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "seeds": {seed: check(generate(options.items, seed), known) for seed in options.seeds},
        "items_per_second": {
            f"{LEVEL_TOKENS[level]} tokens": round(items_per_second(max(20, 2000 // 4**level), level))
            for level in LEVEL_TOKENS
        },
    }
    text = json.dumps(result, ensure_ascii=False, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
