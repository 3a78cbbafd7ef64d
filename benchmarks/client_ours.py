"""Our measuring client as a program of its own, so that it is accounted for like any other.

python benchmarks/client_ours.py --port 8000 --streams 64 --requests 256 --out result.json
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from llmopt.measure.client import Client, run
from llmopt.measure.load import drive
from llmopt.measure.metrics import speed
from llmopt.measure.stats.intervals import quantile
from llmopt.measure.timing import chunk_gaps_s, ttft_s
from llmopt.records import Endpoint, InferenceParams, Load, Request, Sample


async def main(options: argparse.Namespace) -> None:
    endpoint = Endpoint(model=options.model, port=options.port)
    ask = [{"role": "user", "content": "?"}]
    params = InferenceParams(max_tokens=options.tokens)
    requests = [
        Request(item_id=f"ours-{k}", messages=ask, params=params, extra={"user": f"ours-{k}"})
        for k in range(options.requests)
    ]
    load = Load(streams=options.streams)
    if options.rate:
        load = Load(streams=None, rate=options.rate, arrival="poisson", seed=options.seed)
    async with Client(endpoint, timeout_s=300) as client:
        measured = await drive(client, requests, load)
    figures = {name: asdict(estimate) for name, estimate in speed(measured).items()}
    detail = (
        [(s.item_id, s.planned_s, s.sent_s, s.token_s, s.error) for s in measured.samples] if options.detail else []
    )
    content = {"figures": figures, "plain": plain(measured.samples), "health": asdict(measured.health)}
    options.out.write_text(json.dumps({**content, "samples": detail}))


def plain(samples: Sequence[Sample]) -> dict[str, float]:
    """p99s even where the sample is too small for us to print one, as the peers give them: no interval, no warning."""
    first = sorted(value for sample in samples if (value := ttft_s(sample)) is not None)
    gaps = sorted(itertools.chain.from_iterable(map(chunk_gaps_s, samples)))
    found = {"ttft_p99_ms": first, "inter_chunk_p99_ms": gaps}
    return {name: quantile(values, 0.99) * 1e3 for name, values in found.items() if values}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="fake")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detail", action="store_true", help="keep the stamps of every request")
    parser.add_argument("--out", type=Path, required=True)
    run(main(parser.parse_args()))
