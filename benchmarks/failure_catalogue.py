"""How well failures are recognised: each row's own fixture, whole failing logs with their noise, healthy logs.

    python benchmarks/failure_catalogue.py [--out FILE]

Precision: of all failures named, how many were the right ones. Recall: of all that have a row, how many were named.
False alarms: healthy logs in which a cause is found. Each rate with its exact one-sided 95 % bound. Takes a second, so
CI runs the whole. Exit code 1 where a figure is missed: precision 100 %, recall 95 % or more, no false alarm, a fixture
for every row, at least 40 failing and 20 healthy logs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from llmopt.failures.catalogue import catalogue
from llmopt.failures.classify import UNKNOWN, classify, find_failure
from llmopt.measure.stats.intervals import clopper_pearson

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
LEAST_FAILING, LEAST_HEALTHY = 40, 20
RECALL = 0.95


def cases() -> list[dict[str, Any]]:
    """Every fixture: what it is, what it should be called, what it was called (with and without the engine's name)."""
    rows = json.loads((FIXTURES / "failures" / "rows.json").read_text(encoding="utf-8"))
    found = []
    for wanted, fixture in rows.items():
        given = dict(fixture)
        log, engine = given.pop("log", ""), given.pop("engine")
        for told in (engine, None):
            failure = classify(log, engine=told, **given)
            found.append({"kind": "row", "name": wanted, "wanted": wanted, "got": failure.id})
    index = json.loads((FIXTURES / "logs" / "index.json").read_text(encoding="utf-8"))
    for name, case in index["failing"].items():
        given = dict(case)
        wanted = given.pop("expect")
        log = (FIXTURES / "logs" / "failing" / f"{name}.log").read_text(encoding="utf-8")
        found.append({"kind": "log", "name": name, "wanted": wanted, "got": classify(log, **given).id})
    for name, case in index["healthy"].items():
        log = (FIXTURES / "logs" / "healthy" / f"{name}.log").read_text(encoding="utf-8")
        for engine in (case["engine"], None):
            seen = find_failure(log, engine=engine)
            found.append({"kind": "healthy", "name": name, "wanted": None, "got": seen.id if seen else None})
    return found


def rate(hits: int, n: int) -> dict[str, Any]:
    """A share with n and the bound below which it is not, at one-sided 95 %."""
    return {
        "value": hits / n if n else None,
        "hits": hits,
        "n": n,
        "low_95": clopper_pearson(hits, n, confidence=0.9).low,
    }


def figures(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Precision and recall over rows and logs, apart and together, and false alarms."""
    result: dict[str, Any] = {"rows_in_catalogue": len(catalogue().rows)}
    result["rows_with_fixture"] = len({case["name"] for case in found if case["kind"] == "row"})
    for name, kinds in (("rows", {"row"}), ("logs", {"log"}), ("all", {"row", "log"})):
        chosen = [case for case in found if case["kind"] in kinds]
        named = [case for case in chosen if case["got"] != UNKNOWN]
        explained = [case for case in chosen if case["wanted"] != UNKNOWN]
        right = sum(case["got"] == case["wanted"] for case in named)
        result[name] = {
            "precision": rate(right, len(named)),
            "recall": rate(sum(case["got"] == case["wanted"] for case in explained), len(explained)),
        }
    result["failing_logs"] = len({case["name"] for case in found if case["kind"] == "log"})
    healthy = [case for case in found if case["kind"] == "healthy"]
    result["healthy_logs"] = len({case["name"] for case in healthy})
    result["false_alarms"] = [case["name"] for case in healthy if case["got"] is not None]
    result["wrong"] = [case for case in found if case["kind"] != "healthy" and case["got"] != case["wanted"]]
    return result


def missed(result: dict[str, Any]) -> list[str]:
    """The figures of the specification that are not reached."""
    checks = {
        "a fixture for every row": result["rows_with_fixture"] == result["rows_in_catalogue"],
        "precision": result["all"]["precision"]["value"] == 1.0,
        "recall": result["all"]["recall"]["value"] >= RECALL,
        "failing logs": result["failing_logs"] >= LEAST_FAILING,
        "healthy logs": result["healthy_logs"] >= LEAST_HEALTHY,
        "false alarms": not result["false_alarms"],
    }
    return [name for name, holds in checks.items() if not holds]


def main() -> int:
    """Count, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = figures(cases())
    result["missed"] = missed(result)
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
