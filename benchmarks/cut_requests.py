"""What an engine does with requests whose client has gone, how it tells, and whether the next pass suffers.

    python benchmarks/cut_requests.py --engine llamacpp [--model smollm2-135m] [--rounds 3] [--out FILE]
    python benchmarks/cut_requests.py --engine vllm --model FOLDER

Three passes in turns (A B C, C B A …), each of eight short answers in four streams: after a rest; right after eight
long answers were cut off; and after those when the program had waited as it does between two trials
(``search.forgetting.idle``). Once more is cut off and only watched: how long the process tree computes, and what the
engine's own gauges say. transformers and vLLM need an environment (``llmopt engines install …``) and a folder of
safetensors. Another job on the machine makes the figures worthless.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from memory_fit import info

from llmopt.engines.base import Engine, InTurn
from llmopt.engines.launch import RunningEngine, launch
from llmopt.engines.registry import get_engine
from llmopt.hardware.probe import probe
from llmopt.measure.client import Client
from llmopt.measure.engine_metrics import EngineWatch
from llmopt.measure.load import LoadRun, drive
from llmopt.records import InferenceParams, Load, Request, Settings, Task
from llmopt.runtime.guardian import Guardian
from llmopt.search.forgetting import AT_WORK, idle

STREAMS, SHORT, LONG, ASKED = 4, 16, 600, 8
REST_S, WATCHED_S, PERIOD_S = 4.0, 20.0, 0.2
BUSY = 0.5
"""Cores above which a process tree is at work: reading its figures five times a second takes less."""
TOPICS = (
    "rivers",
    "stones",
    "apples",
    "clouds",
    "lamps",
    "ships",
    "bread",
    "winter",
    "glass",
    "horses",
    "maps",
    "wool",
)
RESTED, CUT, AWAITED = "after a rest", "right after a cut", "after a cut, once idle"


def settings_of(name: str, model, more: Sequence[str]) -> dict:
    """The engine's own defaults, small where a CPU needs it; ``more`` are NAME=VALUE."""
    task = Task(load=Load(streams=STREAMS), max_tokens=LONG, prompt_tokens=64)
    found = dict(get_engine(name).baseline(model, probe(), task))
    if name == "vllm":
        found |= {"enforce_eager": True, "core_binding": "nobind", "threads": 2, "kv_cache_bytes": 512 << 20}
    found |= {"prefix_cache": False} if "prefix_cache" in found else {}
    return found | {key: json.loads(value) for key, _, value in (one.partition("=") for one in more)}


class Pass:
    """What is asked of one running engine."""

    def __init__(self, running: RunningEngine, client: Client, engine: Engine, settings: Settings) -> None:
        self._running, self._client = running, client
        self._extra, self._names = dict(engine.request_extra(settings)), dict(engine.metric_names)
        self._in_turn = isinstance(engine, InTurn) and engine.in_turn(settings)
        self._asked = 0

    def _requests(self, tokens: int) -> list[Request]:
        found = []
        for _ in range(ASKED):
            self._asked += 1
            text = f"Number {self._asked}. Tell a very long story about {TOPICS[self._asked % len(TOPICS)]}."
            params = InferenceParams(temperature=0.0, max_tokens=tokens)
            message = {"role": "user", "content": text}
            found.append(Request(item_id=str(self._asked), messages=[message], params=params, extra=self._extra))
        return found

    async def short(self) -> float:
        """Tokens per second of one pass."""
        began_s = time.monotonic()
        run = await drive(self._client, self._requests(SHORT), Load(streams=STREAMS))
        assert all(sample.ok for sample in run.samples), [sample.error for sample in run.samples]
        return sum(len(sample.token_s) for sample in run.samples) / (time.monotonic() - began_s)

    async def cut(self) -> LoadRun:
        """Eight long answers at once, cut off as soon as some tokens have come."""
        stop = asyncio.Event()
        load = Load(streams=ASKED)
        running = asyncio.ensure_future(drive(self._client, self._requests(LONG), load, stop=stop))
        before = self._client.events_seen()
        while self._client.events_seen() < before + ASKED and not running.done():  # noqa: ASYNC110 - nobody tells of events
            await asyncio.sleep(0.02)
        stop.set()
        return await running

    async def waited(self) -> tuple[bool, float]:
        """Whether the program's own wait ended well, and how long it took."""
        began_s = time.monotonic()
        told = await idle(self._running.endpoint, self._names, in_turn=self._in_turn)
        return told, time.monotonic() - began_s

    async def watched(self) -> dict:
        """After one more cut: the last second of work, and what the gauges said last."""
        run, began_s = await self.cut(), time.monotonic()
        names = {word: self._names[word] for word in AT_WORK if word in self._names}
        watch = EngineWatch(endpoint=self._running.endpoint, names=names)
        rows: list[tuple[float, float, dict[str, float] | None]] = []
        before = (began_s, cpu_s(self._running.pids()))
        while time.monotonic() < began_s + WATCHED_S:
            await asyncio.sleep(PERIOD_S)
            now = (time.monotonic(), cpu_s(self._running.pids()))
            watch.readings.clear()
            await watch.read()
            cores = (now[1] - before[1]) / (now[0] - before[0])
            rows.append((round(now[0] - began_s, 2), round(cores, 2), watch.readings[0] if watch.readings else None))
            before = now
        at_work = [at_s for at_s, cores, _ in rows if cores > BUSY]
        told = [at_s for at_s, _, gauges in rows if gauges and any(gauges.values())]
        return {
            "cut": run.cut, "answered": len(run.samples), "worked_s": max(at_work, default=0.0),
            "told_s": max(told, default=0.0) if names else None, "rows": rows,
        }  # fmt: skip


def cpu_s(pids: Sequence[int]) -> float:
    """Processor seconds of these processes so far."""
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


async def measure(name: str, settings: Settings, model, guardian: Guardian, root: Path, *, rounds: int) -> dict:
    engine = get_engine(name)
    speeds: dict[str, list[float]] = {RESTED: [], CUT: [], AWAITED: []}
    waits = []
    async with (
        launch(engine, model, settings, guardian=guardian, run_root=root) as running,
        Client(running.endpoint) as client,
    ):
        one = Pass(running, client, engine, settings)
        await one.short()
        seen = await one.watched()
        for turn in range(rounds):
            for kind in list(speeds)[:: 1 if turn % 2 == 0 else -1]:
                await asyncio.sleep(REST_S)
                if kind != RESTED:
                    await one.waited()
                    await one.cut()
                if kind == AWAITED:
                    waits.append(await one.waited())
                speeds[kind].append(await one.short())
                if kind == CUT:  # what is left of it must not reach the next
                    await asyncio.sleep(WATCHED_S)
    return {"engine": name, "settings": dict(settings), "watched": seen, "speeds": speeds, "waits": waits}


def tell(found: dict) -> None:
    seen = found["watched"]
    print(f"{found['engine']}: {seen['cut']} requests cut off; at work for {seen['worked_s']:.1f} s afterwards", end="")
    print("" if seen["told_s"] is None else f", its gauges said so until {seen['told_s']:.1f} s")
    rested = statistics.mean(found["speeds"][RESTED])
    for kind, speeds in found["speeds"].items():
        mean = statistics.mean(speeds)
        each = " ".join(f"{speed:.1f}" for speed in speeds)
        print(f"  {kind:24} {mean:7.1f} tokens/s ({mean / rested:.0%} of a rested pass; {each})")
    print(
        "  waited:", ", ".join(f"{seconds:.2f} s {'idle' if told else 'not told'}" for told, seconds in found["waits"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="llamacpp")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="more")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    model = info(given.model)
    settings = settings_of(given.engine, model, given.more)
    with Guardian() as guardian, tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(given.engine, settings, model, guardian, Path(folder), rounds=given.rounds))
    if given.out:
        with given.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(found) + "\n")
    tell(found)


if __name__ == "__main__":
    main()
