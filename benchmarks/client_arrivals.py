"""Does a client keep its schedule, and does it see what a frozen server does to requests that were due meanwhile?

    python benchmarks/client_arrivals.py --peers ~/llmopt-peers      (about 40 minutes; --add adds to the file)

1. Poisson arrivals at 50/s: lateness of every start, realised rate against the schedule's own (ours), and against the
   exponential law as the mock saw the arrivals (all clients).
2. Coordinated omission: the server is stopped for 2 s of every 10. What a user would have waited follows from the
   planned starts and the stops alone; the reported p99 is compared with it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client_common import ROOT, Mock, add_runs, machine, median, mock, percentile, save, table
from client_peers import Job, Outcome, Peers

TIMING = {"ttft_ms": 20.0, "itl_ms": 5.0, "tokens": 8}
RATE = 50.0
PERIOD_S, FROZEN_S = 10.0, 2.0
OPEN_CLIENTS = ("ours", "guidellm", "aiperf", "vllm")


@contextmanager
def freezing(server: Mock) -> Iterator[list[tuple[float, float]]]:
    """Stop the server's whole process group for FROZEN_S of every PERIOD_S; yields the (stop, go on) moments."""
    over = threading.Event()
    spans: list[tuple[float, float]] = []

    def work() -> None:
        while not over.wait(PERIOD_S - FROZEN_S):
            began_s = time.monotonic()
            os.killpg(server.process.pid, signal.SIGSTOP)
            over.wait(FROZEN_S)
            os.killpg(server.process.pid, signal.SIGCONT)
            spans.append((began_s, time.monotonic()))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield spans
    finally:
        over.set()
        thread.join()


def run(
    peers: Peers, client: str, requests: int, seed: int, work: Path, *, frozen: bool
) -> tuple[Outcome, Mock, list[tuple[float, float]]]:
    """One open-loop run of one client."""
    with mock(timing=TIMING, processes=1) as server:
        job = Job(port=server.port, streams=1, requests=requests, tokens=int(TIMING["tokens"]), rate=RATE, seed=seed)
        spans: list[tuple[float, float]] = []
        if frozen:
            with freezing(server) as spans:
                outcome = peers.run(client, job, work)
        else:
            outcome = peers.run(client, job, work)
    return outcome, server, list(spans)


def fidelity(outcome: Outcome, server: Mock, work: Path) -> dict[str, Any]:
    """How well a schedule was kept."""
    arrived = sorted(line["received_ns"] * 1e-9 for line in server.lines)
    gaps = [b - a for a, b in itertools.pairwise(arrived)]
    found: dict[str, Any] = {"failed": outcome.failed, "arrivals": len(arrived)}
    if gaps:
        found["rate_at_server"] = len(gaps) / sum(gaps)
        law = sorted(gaps)
        found["ks_to_exponential"] = max(
            abs((k + 1) / len(law) - (1 - math.exp(-RATE * gap))) for k, gap in enumerate(law)
        )
        found["ks_limit_5_percent"] = 1.36 / math.sqrt(len(law))
    if outcome.client == "ours":
        samples = json.loads((work / "ours.json").read_text())["samples"]
        late = [(sent - planned) * 1e3 for _, planned, sent, _, _ in samples]
        planned = sorted(s[1] for s in samples)
        sent = sorted(s[2] for s in samples)
        schedule = (len(planned) - 1) / (planned[-1] - planned[0])
        realised = (len(sent) - 1) / (sent[-1] - sent[0])
        found |= {"lateness_p99_ms": percentile(late, 0.99), "schedule_rate": schedule, "realised_rate": realised}
        found["realised_over_schedule"] = realised / schedule
    return found


def omission(outcome: Outcome, spans: list[tuple[float, float]], work: Path) -> dict[str, Any]:
    """The reported p99 against the one that follows from the stops."""
    analytic_ms = (FROZEN_S - FROZEN_S * 0.01 * PERIOD_S / FROZEN_S) * 1e3 + TIMING["ttft_ms"]
    reported = next((outcome.figures[k] for k in ("ttft_plan_p99_ms", "ttft_p99_ms") if k in outcome.figures), None)
    if outcome.client == "ours":
        waits = []
        for _, planned, _, _, _ in json.loads((work / "ours.json").read_text())["samples"]:
            frozen = next((go_on - planned for stop, go_on in spans if stop <= planned < go_on), 0.0)
            waits.append(frozen * 1e3 + TIMING["ttft_ms"])
        analytic_ms = percentile(waits, 0.99)
    ratio = reported / analytic_ms if reported is not None else None
    return {"failed": outcome.failed, "analytic_p99_ms": analytic_ms, "reported_p99_ms": reported, "ratio": ratio}


def main(options: argparse.Namespace) -> None:
    peers = Peers(options.peers, options.only or OPEN_CLIENTS)
    state = {**machine(), "timing": TIMING, "rate": RATE, "versions": peers.versions(), "not_installed": peers.missing}
    runs = add_runs(options.out) if options.add else []
    first = 1 + max((run["round"] for run in runs), default=-1)
    with tempfile.TemporaryDirectory(prefix="llmopt-bench-") as folder:
        for number in range(first, first + options.rounds):
            for client in [name for name in peers.clients if name in OPEN_CLIENTS]:
                for frozen in (False, True):
                    work = Path(folder) / f"{number}-{client}-{frozen}"
                    outcome, server, spans = run(peers, client, options.requests, number, work, frozen=frozen)
                    found = omission(outcome, spans, work) if frozen else fidelity(outcome, server, work)
                    runs.append({"round": number, "client": client, "frozen": frozen, **found})
                    print(runs[-1], flush=True)
    save(options.out, {**state, "runs": runs})
    print(report(runs))


def report(runs: list[dict[str, Any]]) -> str:
    """The tables of docs/measurements."""

    def middle(client: str, name: str, *, frozen: bool) -> object:
        values = [r[name] for r in runs if r["client"] == client and r["frozen"] == frozen and r.get(name) is not None]
        return median(values) if values else "–"

    clients = list(dict.fromkeys(run["client"] for run in runs))
    kept = ["rate_at_server", "ks_to_exponential", "ks_limit_5_percent", "lateness_p99_ms", "realised_over_schedule"]
    seen = ["analytic_p99_ms", "reported_p99_ms", "ratio"]
    return "\n\n".join([
        "Poisson 50/s, median over rounds:",
        table(["client", *kept], [[c, *(middle(c, name, frozen=False) for name in kept)] for c in clients]),
        "Server stopped 2 s of every 10 (ratio 1 is right):",
        table(["client", *seen], [[c, *(middle(c, name, frozen=True) for name in seen)] for c in clients]),
    ])  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--requests", type=int, default=3000, help="one minute at 50/s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--add", action="store_true", help="keep the runs that are in the file and add to them")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measurements" / "client" / "arrivals.json")
    main(parser.parse_args())
