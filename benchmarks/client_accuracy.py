"""How close each client's TTFT and ITL are to the truth, and what it costs, from 1 to 256 streams.

    python benchmarks/client_accuracy.py --peers ~/llmopt-peers      (about 45 minutes; --quick: 5)

The truth is what the mock (``llmopt/workers/fake_engine.py --mode fast``) stamps itself, on the same monotonic clock.
Clients take turns within every round; each cell of the table is the median over the rounds, raw runs are kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from client_common import ROOT, machine, median, mock, save, table
from client_peers import Job, Peers

TIMING = {"ttft_ms": 50.0, "itl_ms": 20.0, "tokens": 64}
TOKENS = int(TIMING["tokens"])
EACH = 4
"""Requests of every stream."""
LONG = 12
"""Requests of every stream in the longer run that shows the cost without start-up."""
FIGURES = {
    "ttft p50": ("ttft", 0.50, ("ttft_p50_ms",)),
    "ttft p99": ("ttft", 0.99, ("ttft_p99_ms", "ttft_max_ms")),
    "itl p50": ("itl", 0.50, ("inter_chunk_p50_ms", "tpot_p50_ms")),
    "itl p99": ("itl", 0.99, ("inter_chunk_p99_ms", "tpot_p99_ms")),
}
"""(truth, quantile, names under which a client may report it). Ours prints no p99 below 368 requests: see --detail."""


def ours_p99(path: Path) -> float | None:
    """The p99 of our stamps even where the sample is too small to print it: the plain percentile, as for the peers."""
    samples = json.loads(path.read_text())["samples"] if path.exists() else []
    first = sorted((times[0] - sent) * 1e3 for _, _, sent, times, error in samples if times and not error)
    return first[min(int(0.99 * len(first)), len(first) - 1)] if first else None


def one(peers: Peers, client: str, streams: int, each: int, work: Path) -> dict[str, Any]:
    """One run of one client: its errors against the mock, and its costs."""
    with mock(timing=TIMING) as server:
        outcome = peers.run(
            client, Job(port=server.port, streams=streams, requests=streams * each, tokens=TOKENS), work
        )
    truth = server.truth()
    figures = dict(outcome.figures)
    if client == "ours":
        figures.setdefault("ttft_p99_ms", ours_p99(work / "ours.json") or float("nan"))
    errors = {}
    for name, (what, q, reported) in FIGURES.items():
        value = next((figures[key] for key in reported if key in figures), None)
        if value is not None and truth.events:
            errors[name] = value - truth.percentile(what, q)
    return {
        "client": client, "streams": streams, "each": each, "failed": outcome.failed, "errors_ms": errors,
        "events": truth.events, "figures": figures, "wall_s": outcome.costs.wall_s, "cpu_s": outcome.costs.cpu_s,
        "max_rss_mb": outcome.costs.max_rss_mb,
    }  # fmt: skip


def measure(peers: Peers, levels: list[int], rounds: int, cost_level: int) -> list[dict[str, Any]]:
    """All runs; the order of the clients rotates from round to round."""
    runs: list[dict[str, Any]] = []
    names = list(peers.clients)
    with tempfile.TemporaryDirectory(prefix="llmopt-bench-") as folder:
        for number in range(rounds):
            order = names[number % len(names) :] + names[: number % len(names)]
            for streams, each in [*((level, EACH) for level in levels), (cost_level, LONG)]:
                for client in order:
                    found = one(peers, client, streams, each, Path(folder) / f"{number}-{client}-{streams}-{each}")
                    runs.append({"round": number, **found})
                    outcome = found["errors_ms"] or found["failed"][-80:]
                    print(f"round {number} {client:12} {streams:4} × {each:2}: {outcome}")
    return runs


def report(runs: list[dict[str, Any]], cost_level: int) -> str:
    """The tables of docs/measurements."""
    cells: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run["each"] == EACH and not run["failed"]:
            for name, error in run["errors_ms"].items():
                cells[run["client"], run["streams"]][name].append(abs(error))
    header = ["client", "streams", *(f"{name} error, ms" for name in FIGURES)]
    rows = [
        [c, n, *(median(found.get(name, [])) for name in FIGURES)]
        for (c, n), found in sorted(cells.items(), key=lambda x: (x[0][1], x[0][0]))
    ]
    costs = []
    for client in sorted({run["client"] for run in runs}):
        short, long = (
            [
                r
                for r in runs
                if r["client"] == client and r["streams"] == cost_level and r["each"] == each and not r["failed"]
            ]
            for each in (EACH, LONG)
        )
        if short and long:
            whole = median([r["cpu_s"] / r["events"] * 1000 for r in short])
            events = median([r["events"] for r in long]) - median([r["events"] for r in short])
            bare = (median([r["cpu_s"] for r in long]) - median([r["cpu_s"] for r in short])) / events * 1000
            costs.append(
                [client, whole, bare, median([r["max_rss_mb"] for r in short]), median([r["wall_s"] for r in short])]
            )
    failed = [
        f"- {r['client']} at {r['streams']} streams, round {r['round']}: {r['failed'][-200:]!r}"
        for r in runs
        if r["failed"]
    ]
    head = ["client", "CPU s per 1,000 events, start-up counted", "without", "largest process, MB", "wall, s"]
    return "\n\n".join([
        "Absolute error of the reported figure against the mock's own stamps, median over rounds:",
        table(header, rows),
        f"Cost at {cost_level} streams:",
        table(head, costs),
        *(["Runs that failed:", "\n".join(failed)] if failed else []),
    ])  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cost-streams", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="two rounds at 64 streams")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measurements" / "client-accuracy.json")
    options = parser.parse_args()
    if options.quick:
        options.streams, options.rounds = [64], 2
    clients = Peers(options.peers, options.only)
    state = {**machine(), "timing": TIMING, "versions": clients.versions(), "not_installed": clients.missing}
    done = measure(clients, options.streams, options.rounds, options.cost_streams)
    save(options.out, {**state, "runs": done})
    print(report(done, options.cost_streams))
