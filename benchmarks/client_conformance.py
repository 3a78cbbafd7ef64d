"""What each client makes of the oddities of real streams.

    python benchmarks/client_conformance.py --peers ~/llmopt-peers      (about 5 minutes)

``client_oddities`` plays each row once, at known times, one request after the other. A client is right when its own
record of that request says so: a failure where the row is one, else a first token when it came (within SLACK_MS).
llama-benchy is left out: it writes no record of single requests. Our own full table of some 60 rows, with texts and
token counts, is the unit test ``tests/unit/measure/test_stream_conformance.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_common import ROOT, machine, save, table
from client_oddities import FIRST_S, LEAD, Oddity, playing, rows
from client_peers import Job, Outcome, Peers

SLACK_MS = 50.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a client says of one request: when it began (by its own clock), TTFT, and why it failed."""

    began: float
    ttft_ms: float | None
    failed: str = ""


def of_ours(work: Path) -> list[Record]:
    samples = json.loads((work / "ours.json").read_text())["samples"]
    return [
        Record(began=sent, ttft_ms=(token_s[0] - sent) * 1e3 if token_s else None, failed=error or "")
        for _, _, sent, token_s, error in samples
    ]


def of_vllm(work: Path) -> list[Record]:
    content = json.loads((work / "vllm.json").read_text())
    columns = zip(content["start_times"], content["ttfts"], content["errors"], strict=True)
    return [
        Record(began=start, ttft_ms=ttft * 1e3 if ttft else None, failed=(error or "").strip()[-80:])
        for start, ttft, error in columns
    ]


def of_guidellm(work: Path) -> list[Record]:
    found = []
    for kind, requests in json.loads((work / "guidellm.json").read_text())["benchmarks"][0]["requests"].items():
        for one in requests or ():
            why = "" if kind == "successful" else str(one["info"].get("error") or kind)[-80:]
            began = one.get("request_start_time") or one["info"]["timings"].get("resolve_start") or 0.0
            found.append(Record(began=began, ttft_ms=one.get("time_to_first_token_ms"), failed=why))
    return found


def of_aiperf(work: Path) -> list[Record]:
    path = next(iter(sorted(work.rglob("profile_export.jsonl"))))
    found = []
    for line in path.read_text().splitlines():
        one = json.loads(line)
        first = (one.get("metrics") or {}).get("time_to_first_token") or {}
        why = str((one.get("error") or {}).get("message") or one.get("error") or "")[-80:]
        found.append(Record(began=one["metadata"]["request_start_ns"], ttft_ms=first.get("value"), failed=why))
    return found


READERS: Mapping[str, Callable[[Path], list[Record]]] = {
    "ours": of_ours, "vllm": of_vllm, "guidellm": of_guidellm, "aiperf": of_aiperf,
}  # fmt: skip


def judge(row: Oddity, record: Record | None) -> str:
    """``right``, or what is wrong."""
    if record is None:
        return "no record"
    if row.fails:
        return "right" if record.failed else "counted as an answer"
    if record.failed:
        return f"failed: {record.failed.splitlines()[-1][:60]}"
    if record.ttft_ms is None:
        return "no TTFT"
    return "right" if abs(record.ttft_ms - FIRST_S * 1e3) <= SLACK_MS else f"TTFT {record.ttft_ms:.0f} ms"


async def one(peers: Peers, client: str, work: Path) -> tuple[Outcome, dict[str, str]]:
    """One run of one client over the whole table."""
    async with playing() as player:
        job = Job(port=player.port, streams=1, requests=LEAD + len(player.table), tokens=2, detailed=True)
        outcome = await asyncio.to_thread(peers.run, client, job, work)
        played, table_ = list(player.played), player.table
    records = sorted(READERS[client](work), key=lambda record: record.began)
    names = played[len(played) - len(records) :]  # what was asked before measuring has no record
    by_name = dict(zip(names[::-1], records[::-1], strict=False))
    by_name |= {name: record for name, record in zip(names, records, strict=False) if names.count(name) == 1}
    return outcome, {row.name: judge(row, by_name.get(row.name)) for row in table_}


async def main(options: argparse.Namespace) -> None:
    peers = Peers(options.peers, options.only or tuple(READERS))
    state: dict[str, Any] = {**machine(), "first_ms": FIRST_S * 1e3, "slack_ms": SLACK_MS}
    known = json.loads(options.out.read_text()) if options.add and options.out.exists() else {}
    verdicts: dict[str, dict[str, str]] = dict(known.get("verdicts", {}))
    state["versions"] = {**known.get("versions", {}), **peers.versions()}
    with tempfile.TemporaryDirectory(prefix="llmopt-bench-") as folder:
        for client in peers.clients:
            outcome, verdicts[client] = await one(peers, client, Path(folder) / client)
            right = sum(verdict == "right" for verdict in verdicts[client].values())
            print(f"{client}: {right} of {len(verdicts[client])} right {outcome.failed[-200:]}", flush=True)
    save(options.out, {**state, "verdicts": verdicts})
    print(report(verdicts, rows()))


def report(verdicts: Mapping[str, Mapping[str, str]], listed: Sequence[Oddity]) -> str:
    """The table of docs/measurements."""
    names = list(verdicts)
    lines: list[list[Any]] = [[row.name, *(verdicts[name].get(row.name, "–") for name in names)] for row in listed]
    lines.append(["**right**", *(sum(v == "right" for v in verdicts[name].values()) for name in names)])
    return table([f"oddity ({len(listed)})", *names], lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--add", action="store_true", help="keep what the file says of other clients")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measurements" / "client" / "conformance.json")
    asyncio.run(main(parser.parse_args()))
