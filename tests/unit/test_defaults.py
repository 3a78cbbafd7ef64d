"""The specification's table of defaults, on every recorded machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmopt.hardware.defaults import starting_defaults, starting_threads
from llmopt.hardware.probe import probe
from llmopt.hardware.recorded import RecordedMachine
from llmopt.messages import t
from llmopt.records import ModelInfo, Strategy

MACHINES = Path(__file__).parent.parent / "fixtures" / "machines"
SMALL = {"dtype": "float16", "quantization": "int4", "batch_size": 1, "gradient_checkpointing": True}
LARGE = {"dtype": "float16", "quantization": None, "batch_size": 4}


def cpu(threads: int) -> dict[str, object]:
    return {"engine": "llamacpp", "quantization": "Q4_K_M", "batch_size": 1, "threads": threads}


def parallel(ways: int) -> dict[str, object]:
    return {"tensor_parallel_size": ways, "pipeline_parallel_size": 1}


EXPECTED = {
    "nvidia_one_24g": LARGE,
    "nvidia_small_6g": SMALL,
    "nvidia_many_80g": LARGE | parallel(8),
    "nvidia_visible_subset": LARGE | parallel(2),
    "nvidia_mig": LARGE,
    "nvidia_driver_broken": cpu(4),
    "amd_mi300x": LARGE,
    "amd_unified_apu": LARGE | {"unified_memory": True},
    "intel_arc_16g": LARGE,
    "apple_m3_max": LARGE | {"engine": "llamacpp", "unified_memory": True},
    "jetson_orin": LARGE | {"unified_memory": True},
    "gb10_unified": LARGE | {"unified_memory": True},
    "cpu_avx512": cpu(24),
    "cpu_no_avx2": cpu(4),
    "container_one_core": cpu(1),
    "cgroup_v2_quota": cpu(2),
    "cgroup_v1_quota": cpu(1),
    "slurm_job": LARGE | parallel(2),
    "no_proc": cpu(4),
    "windows_pc": SMALL,
}


def hardware(name: str):
    return probe(RecordedMachine.load(MACHINES / f"{name}.json"))


def defaults(name: str, **more) -> dict[str, object]:
    return {row.name: row.value for row in starting_defaults(hardware(name), **more)}


def test_every_recording_has_its_defaults() -> None:
    assert {path.stem for path in MACHINES.glob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_defaults_of_a_machine(name: str) -> None:
    assert defaults(name) == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_value_has_its_reason_in_both_languages(name: str) -> None:
    for strategy in (None, *Strategy):
        for row in starting_defaults(hardware(name), strategy=strategy):
            for language in ("ko", "en"):
                text = t(row.reason, lang=language, **row.values)
                assert "{" not in text
                assert bool(re.search(r"[가-힣]", text)) == (language == "ko")
            assert row.text


def middle_card():
    recording = {
        "system": "Linux",
        "architecture": "x86_64",
        "files": {"/proc/driver/nvidia/version": "x"},
        "nvml": {
            "driver": "550",
            "devices": [{"name": "RTX 3060", "uuid": "GPU-12", "total": 12288 << 20, "capability": [8, 6]}],
        },
    }
    return probe(RecordedMachine(recording))


def model(parameters: float, heads: int | None = None) -> ModelInfo:
    return ModelInfo(name="m", path="p", format="hub", parameters=int(parameters), heads=heads)


@pytest.mark.parametrize(
    ("size", "kv_gib", "quantization"),
    [(3e9, 1, None), (5e9, 0.5, None), (5e9, 3, "int4"), (7e9, 0, "int4"), (None, 0, None)],
)
def test_a_middle_card_depends_on_weights_and_cache(size, kv_gib, quantization) -> None:
    given = model(size) if size else None
    rows = {row.name: row.value for row in starting_defaults(middle_card(), given, kv_cache_bytes=int(kv_gib * 2**30))}
    assert rows == {"dtype": "float16", "quantization": quantization, "batch_size": 2}


@pytest.mark.parametrize(("heads", "ways"), [(32, 8), (14, 7), (12, 6), (5, 5), (None, 8)])
def test_tensor_parallel_divides_the_heads(heads, ways) -> None:
    assert defaults("nvidia_many_80g", model=model(7e9, heads))["tensor_parallel_size"] == ways


def test_strategies_set_sampling_or_engine_and_batch() -> None:
    accuracy = defaults("nvidia_one_24g", strategy=Strategy.ACCURACY)
    assert (accuracy["temperature"], accuracy["top_p"], accuracy["top_k"]) == (0.1, 0.3, 10)
    creativity = defaults("nvidia_one_24g", strategy=Strategy.CREATIVITY)
    assert (creativity["temperature"], creativity["top_p"], creativity["top_k"]) == (0.8, 0.9, 50)
    speed = defaults("nvidia_one_24g", strategy=Strategy.SPEED)
    assert (speed["engine"], speed["batch_size"], speed["dynamic_batching"]) == ("vllm", 16, True)
    assert defaults("cpu_avx512", strategy=Strategy.SPEED)["engine"] == "llamacpp"
    assert "engine" not in defaults("windows_pc", strategy=Strategy.SPEED)


def test_threads_never_exceed_what_may_be_used() -> None:
    for path in MACHINES.glob("*.json"):
        machine = probe(RecordedMachine.load(path))
        assert 1 <= starting_threads(machine) <= max(1, machine.cpu.usable_cores)
