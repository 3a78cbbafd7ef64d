"""The figures behind "quality that can be trusted": cases of our own, audits of generated sets, coverage of intervals.

    python benchmarks/answer_figures.py [--rounds 4000 | --audit [SET …] --seeds 0 1 …] [--out answers.json]

Cases are counted and run from the test files that hold them. Coverage: right answers of templates of different
difficulty (Beta around the true share) are drawn ``rounds`` times; the share of 95 % intervals that hold the true share
is given with and without the templates as clusters. ``--audit`` checks 5,000 items of each set and seed instead (many
minutes; ``--audit korean_qa --seeds 0 1`` a part of it) and adds that to what ``--out`` already holds.
"""

import argparse
import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

from llmopt.measure.stats.intervals import proportion_interval, wilson

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "numerals": ("tests/unit/test_numerals.py", lambda m: len({written for written, *_ in m.VECTORS}), 200),
    "qa": ("tests/unit/test_answers_qa.py", lambda m: len(m.RIGHT) + len(m.WRONG), 100),
    "particles": ("tests/unit/test_particles.py", lambda m: len(set(m.VECTORS)), 60),
}
SETS = ("korean_math", "korean_qa")
SHAPES = ((20, 5), (40, 3), (60, 5), (100, 2))
SPREAD = 2.0
"""Of the Beta distribution of template difficulty: its two parameters add up to this."""


def loaded(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases():
    found = {}
    for name, (path, count, wanted) in CASES.items():
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", path],
            cwd=ROOT, check=False, capture_output=True, text=True,
        )  # fmt: skip
        last = ran.stdout.strip().splitlines()[-1]
        found[name] = {"cases": count(loaded(path)), "wanted": wanted, "all_right": ran.returncode == 0, "pytest": last}
    return found


def coverage(rounds, p=0.7):
    found = []
    for clusters, size in SHAPES:
        source = random.Random(f"{clusters} {size}")
        clustered = naive = 0
        for _ in range(rounds):
            values, labels = [], []
            for label in range(clusters):
                share = source.betavariate(SPREAD * p, SPREAD * (1 - p))
                values += [float(source.random() < share) for _ in range(size)]
                labels += [label] * size
            ours, plain = proportion_interval(values, clusters=labels), wilson(sum(values), len(values))
            clustered += ours.low <= p <= ours.high
            naive += plain.low <= p <= plain.high
        found.append(
            {"templates": clusters, "items_each": size, "rounds": rounds, "share": p,
             "covered": clustered / rounds, "covered_without_clusters": naive / rounds}
        )  # fmt: skip
    return found


def audits(names, seeds):
    found = {}
    for name in names:
        script = str(ROOT / "benchmarks" / f"{name}.py")
        ran = subprocess.run(
            [sys.executable, script, "--items", "5000", "--seeds", *map(str, seeds)],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        found[name] = json.loads(ran.stdout)
    return found


def joined(kept, found):
    """What earlier runs checked, and what this one did."""
    checks = {name: kept.get(name, {}).get("checks", {}) | new["checks"] for name, new in found.items()}
    return {**kept, **{name: {**new, "checks": checks[name]} for name, new in found.items()}}


def faultless(audit):
    return not any(count for found in audit["checks"].values() for name, count in found.items() if name != "items")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4000)
    parser.add_argument("--audit", nargs="*", choices=SETS, metavar="SET")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out and options.out.exists() else {}
    if options.audit is None:
        result = {**kept, "cases": cases(), "coverage": coverage(options.rounds)}
    else:
        found = audits(options.audit or SETS, options.seeds)
        result = {**kept, "audits": joined(kept.get("audits", {}), found)}
    text = json.dumps(result, ensure_ascii=False, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    right = all(row["all_right"] and row["cases"] >= row["wanted"] for row in result.get("cases", {}).values())
    right = right and all(map(faultless, result.get("audits", {}).values()))
    return 0 if right and all(0.93 <= row["covered"] <= 0.97 for row in result.get("coverage", ())) else 1


if __name__ == "__main__":
    raise SystemExit(main())
