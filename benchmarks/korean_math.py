"""Check 5,000 items of korean_math a seed and time their generation.

    python benchmarks/korean_math.py [--items 5000] [--seeds 0 1 2] [--json FILE]

Counts duplicates, items on which the two solvers disagree, particles the independent audit objects to, and answers
printed in their own question; all must be 0. Speed is the best of five runs in this process, first run left out, in
processor time (other work may run beside it).
"""

import argparse
import json
import platform
import re
import time
from fractions import Fraction
from pathlib import Path

from llmopt.workload.korean.audit import misfits
from llmopt.workload.korean.notation import plain
from llmopt.workload.korean.numerals import find_quantities
from llmopt.workload.korean_math import SET_VERSION, generate
from llmopt.workload.korean_math.program import compile_program, run
from llmopt.workload.korean_math.second_solver import solve
from llmopt.workload.korean_math.template import quantities_in
from llmopt.workload.korean_math.themes import all_templates

PER_TEMPLATE = 60
TEMPLATES = {template.id: template for template in all_templates()}


def check(items):
    normalised = {re.sub(r"\W", "", item.question) for item in items}
    return {
        "items": len(items),
        "duplicates": len(items) - len(normalised),
        "solvers_disagree": sum(not agrees(item) for item in items),
        "particle_errors": sum(len(misfits(item.question)) for item in items),
        "answers_printed": sum(prints_its_answer(item) for item in items),
    }


def agrees(item):
    template = TEMPLATES[item.cluster]
    values = {name: Fraction(value) for name, value in item.meta["values"].items()}
    first = run(compile_program(template.program), values)
    second = solve(template.equations, values, search=template.search)
    return first == second == Fraction(item.answers[0])


def prints_its_answer(item):
    template = TEMPLATES[item.cluster]
    answer = Fraction(item.answers[0])
    sentences = (*template.facts, template.noise, template.question)
    values = {Fraction(item.meta["values"][name]) for text in sentences for name in quantities_in(text)}
    digits = {Fraction(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", item.question)}
    words = {found.quantity.value for found in find_quantities(plain(item.question))} & values
    return answer in values | digits | words


def items_per_second(count):
    generate(10)
    times = []
    for seed in range(6):
        begin = time.process_time()
        generate(count, seed=seed, per_template=PER_TEMPLATE)
        times.append(time.process_time() - begin)
    return count / min(times[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = {
        "set": SET_VERSION,
        "templates": len(TEMPLATES),
        "python": platform.python_version(),
        "items_per_second": round(items_per_second(arguments.items)),
        "checks": {},
    }
    for seed in arguments.seeds:
        items = generate(arguments.items, seed=seed, per_template=PER_TEMPLATE)
        result["checks"][f"seed {seed}"] = check([item for item in items if item.split != "examples"])
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    failed = any(count for found in result["checks"].values() for name, count in found.items() if name != "items")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
