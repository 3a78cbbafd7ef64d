"""How close each client's TTFT and ITL are to the truth, and what it costs, from 1 to 256 streams.

    python benchmarks/client_accuracy.py --peers ~/llmopt-peers              (about 25 minutes)
    python benchmarks/client_accuracy.py --streams 1 16 128 256 --each 4 --add   (further levels into the same file)

The truth is what the mock (``llmopt/workers/fake_engine.py --mode fast``) stamps itself, on the same monotonic clock.
Clients take turns within every round, their order rotates; each cell is the median over the rounds, raw runs are kept.
``--each 12 1``: requests of every stream; the shorter run is what start-up costs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client_common import ROOT, add_runs, machine, median, mock, save, table
from client_peers import Job, Peers

TIMING = {"ttft_ms": 50.0, "itl_ms": 20.0, "tokens": 64}
TOKENS = int(TIMING["tokens"])
FIGURES = {
    "ttft p50": ("ttft", 0.50, ("ttft_p50_ms",)),
    "ttft p99": ("ttft", 0.99, ("ttft_p99_ms", "ttft_max_ms")),
    "itl p50": ("itl", 0.50, ("inter_chunk_p50_ms", "tpot_p50_ms")),
    "itl p99": ("itl", 0.99, ("inter_chunk_p99_ms", "tpot_p99_ms")),
}
"""(truth, quantile, names under which a client may report it)."""


def one(peers: Peers, client: str, streams: int, each: int, work: Path) -> dict[str, Any]:
    """One run of one client: its errors against the mock, and its costs."""
    with mock(timing=TIMING) as server:
        outcome = peers.run(
            client, Job(port=server.port, streams=streams, requests=streams * each, tokens=TOKENS), work
        )
    truth = server.truth()
    figures = dict(outcome.figures)
    if client == "ours" and not outcome.failed:
        figures = {**json.loads((work / "ours.json").read_text())["plain"], **figures}
    errors = {}
    for name, (what, q, reported) in FIGURES.items():
        value = next((figures[key] for key in reported if key in figures), None)
        if value is not None and truth.events:
            errors[name] = value - truth.percentile(what, q)
    return {
        "client": client, "streams": streams, "each": each, "failed": outcome.failed, "errors_ms": errors,
        "truth_ms": {name: truth.percentile(what, q) for name, (what, q, _) in FIGURES.items()},
        "events": truth.events, "figures": figures, "wall_s": outcome.costs.wall_s, "cpu_s": outcome.costs.cpu_s,
        "max_rss_mb": outcome.costs.max_rss_mb,
    }  # fmt: skip


def measure(peers: Peers, cases: Sequence[tuple[int, int]], rounds: int, first: int) -> list[dict[str, Any]]:
    """All runs; the order of the clients rotates from round to round."""
    runs: list[dict[str, Any]] = []
    names = list(peers.clients)
    with tempfile.TemporaryDirectory(prefix="llmopt-bench-") as folder:
        for number in range(first, first + rounds):
            turn = number % len(names)
            for streams, each in cases:
                for client in names[turn:] + names[:turn]:
                    found = one(peers, client, streams, each, Path(folder) / f"{number}-{client}-{streams}-{each}")
                    runs.append({"round": number, **found})
                    outcome = found["errors_ms"] or found["failed"][-80:]
                    print(f"round {number} {client:12} {streams:4} × {each:2}: {outcome}", flush=True)
    return runs


def report(runs: list[dict[str, Any]], cost_level: int) -> str:
    """The tables of docs/measurements."""
    cells = errors_of(runs)
    header = ["client", "streams", "runs", *(f"{name} error, ms" for name in FIGURES)]
    rows = [
        [c, n, max(map(len, found.values()), default=0), *(median(found.get(name, [])) for name in FIGURES)]
        for (c, n), found in sorted(cells.items(), key=lambda x: (x[0][1], x[0][0]))
    ]
    costs = [[client, *values.values()] for client, values in costs_of(runs, cost_level).items()]
    failed = [
        f"- {r['client']} at {r['streams']} streams, round {r['round']}: {r['failed'][-200:]!r}"
        for r in runs
        if r["failed"]
    ]
    head = ["client", "runs", "CPU s per 1,000 events, start-up counted", "without", "largest process, MB", "wall, s"]
    return "\n\n".join([
        "Absolute error of the reported figure against the mock's own stamps, median over rounds:",
        table(header, rows),
        f"Cost at {cost_level} streams:",
        table(head, costs),
        *(["Runs that failed:", "\n".join(failed)] if failed else []),
    ])  # fmt: skip


def errors_of(runs: Sequence[dict[str, Any]]) -> dict[tuple[str, int], dict[str, list[float]]]:
    """(client, streams) → figure → absolute errors, from the longest runs of each level."""
    longest = {level: max(r["each"] for r in runs if r["streams"] == level) for level in {r["streams"] for r in runs}}
    cells: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run["each"] == longest[run["streams"]] and not run["failed"]:
            for name, error in run["errors_ms"].items():
                cells[run["client"], run["streams"]][name].append(abs(error))
    return cells


def costs_of(runs: Sequence[dict[str, Any]], level: int) -> dict[str, dict[str, float]]:
    """What each client cost at ``level`` streams: the whole of its longer runs, and what is left without start-up."""
    found = {}
    done = [r for r in runs if r["streams"] == level and not r["failed"]]
    for client in sorted({run["client"] for run in done}):
        mine = [r for r in done if r["client"] == client]
        most, least = max(r["each"] for r in mine), min(r["each"] for r in mine)
        long, short = ([r for r in mine if r["each"] == each] for each in (most, least))
        bare = float("nan")
        if most > least:
            events = median([r["events"] for r in long]) - median([r["events"] for r in short])
            bare = (median([r["cpu_s"] for r in long]) - median([r["cpu_s"] for r in short])) / events * 1000
        found[client] = {
            "runs": len(long),
            "cpu_s_per_1000": median([r["cpu_s"] / r["events"] * 1000 for r in long]),
            "cpu_s_per_1000_without_start": bare,
            "max_rss_mb": median([r["max_rss_mb"] for r in long]),
            "wall_s": median([r["wall_s"] for r in long]),
        }
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--streams", type=int, nargs="+", default=[64])
    parser.add_argument("--each", type=int, nargs="+", default=[12, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cost-streams", type=int, default=64)
    parser.add_argument("--add", action="store_true", help="keep the runs that are in the file and add to them")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measurements" / "client" / "accuracy.json")
    options = parser.parse_args()
    clients = Peers(options.peers, options.only)
    state = {**machine(), "timing": TIMING, "versions": clients.versions(), "not_installed": clients.missing}
    before = add_runs(options.out) if options.add else []
    start = 1 + max((run["round"] for run in before), default=-1)
    levels = [(level, each) for level in options.streams for each in options.each]
    done = [*before, *measure(clients, levels, options.rounds, start)]
    save(options.out, {**state, "runs": done})
    print(report(done, options.cost_streams))
