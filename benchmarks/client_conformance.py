"""What each client makes of the oddities of real streams.

    python benchmarks/client_conformance.py --peers ~/llmopt-peers      (about 20 minutes)

The fake engine plays each oddity at exact times; a client is right when it counts failures as failures and, where the
answer is whole, finds its first token when it came. Our own full table of some 60 rows is the unit test
``tests/unit/measure/test_stream_conformance.py``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from client_common import ROOT, machine, mock, save, table
from client_peers import Job, Peers

TIMING = {"ttft_ms": 200.0, "itl_ms": 20.0, "tokens": 10}
REQUESTS = 4
SLACK_MS = 50.0
FAILS = frozenset({"malformed", "early_eof", "error_event"})
WHOLE = (
    "plain",
    "split_utf8",
    "slow_drip",
    "no_done",
    "no_usage",
    "crlf",
    "comments",
    "glued",
    "empty_deltas",
    "reasoning",
)


def judge(oddity: str, figures: dict[str, float], failed: str) -> str:
    """``right``, or what is wrong."""
    errors = figures.get("error_rate")
    if oddity in FAILS:
        return "right" if errors == 1.0 or (errors is None and failed) else f"error rate {errors}"
    if not figures:
        return f"failed: {failed[-60:]!r}"
    if errors:
        return f"error rate {errors:.2f}"
    first = figures.get("ttft_p50_ms")
    if first is None or abs(first - TIMING["ttft_ms"]) > SLACK_MS:
        return f"ttft {first}"
    return "right"


def main(options: argparse.Namespace) -> None:
    peers = Peers(options.peers, options.only)
    state = {**machine(), "timing": TIMING, "versions": peers.versions(), "not_installed": peers.missing}
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="llmopt-bench-") as folder:
        for oddity in (*WHOLE, *sorted(FAILS)):
            for client in peers.clients:
                script = {} if oddity == "plain" else {"stream": [oddity]}
                with mock(timing=TIMING, mode="sim", scenario=script) as server:
                    job = Job(port=server.port, streams=2, requests=REQUESTS, tokens=int(TIMING["tokens"]))
                    outcome = peers.run(client, job, Path(folder) / f"{oddity}-{client}")
                verdict = judge(oddity, dict(outcome.figures), outcome.failed)
                runs.append({"oddity": oddity, "client": client, "verdict": verdict, "figures": dict(outcome.figures)})
                print(f"{oddity:14} {client:12} {verdict}")
    save(options.out, {**state, "runs": runs})
    names = list(peers.clients)
    found = {(run["oddity"], run["client"]): run["verdict"] for run in runs}
    print(table(["oddity", *names], [[o, *(found[o, name] for name in names)] for o in (*WHOLE, *sorted(FAILS))]))
    print(table(["", *names], [["right", *(sum(found[o, n] == "right" for o in (*WHOLE, *FAILS)) for n in names)]]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measurements" / "client" / "conformance.json")
    main(parser.parse_args())
