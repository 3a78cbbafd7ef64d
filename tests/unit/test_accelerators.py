"""Several GPUs: sizes that divide heads and layers, devices by UUID, presets that are legal — on recorded machines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmopt.engines.accelerators import placement, ranks_dividing, stages_dividing
from llmopt.engines.registry import get_engine
from llmopt.hardware.probe import probe
from llmopt.hardware.recorded import RecordedMachine
from llmopt.models.catalogue import built_in_models
from llmopt.models.memory_fit import memory_fit
from llmopt.records import Load, Strategy, Task

QWEN = replace(built_in_models()["qwen2.5-7b"].facts, format="safetensors")  # 28 layers, 28 heads, 4 KV heads
TASK = Task(load=Load(streams=8), max_tokens=256, prompt_tokens=512)


@pytest.fixture
def machine(request):
    def of(name):
        path = request.config.rootpath / "tests" / "fixtures" / "machines" / f"{name}.json"
        return probe(RecordedMachine.load(path))

    return of


@pytest.mark.parametrize(
    ("heads", "kv_heads", "devices", "ranks"),
    [
        (28, 4, 8, (1, 2, 4)),
        (32, 8, 8, (1, 2, 4, 8)),
        (28, 4, 3, (1, 2)),
        (12, 2, 8, (1, 2, 4, 6)),  # above two, ranks keep copies of a KV head
        (9, 3, 4, (1, 3)),
        (71, 1, 8, (1,)),
    ],
)
def test_tensor_parallel_sizes_divide_the_heads(heads, kv_heads, devices, ranks):
    assert ranks_dividing(replace(QWEN, heads=heads, kv_heads=kv_heads), devices) == ranks


@pytest.mark.parametrize(("layers", "devices", "stages"), [(28, 4, (1, 2, 4)), (36, 8, (1, 2, 3, 4, 6)), (61, 8, (1,))])
def test_pipeline_sizes_divide_the_layers(layers, devices, stages):
    assert stages_dividing(replace(QWEN, layers=layers), devices) == stages


def test_a_launch_is_given_its_devices_by_uuid(machine):
    hardware = machine("nvidia_many_80g")
    uuids = [device.uuid for device in hardware.devices]
    assert len(uuids) > 2
    assert placement({"tensor_parallel": 2, "pipeline_parallel": 1}, hardware)["CUDA_VISIBLE_DEVICES"].count(",") == 1
    everything = placement({"gpu_layers": 99}, hardware)["CUDA_VISIBLE_DEVICES"]
    assert everything.split(",") == uuids
    busy = replace(hardware.devices[0], free_bytes=1 << 30)
    crowded = replace(hardware, devices=(busy, *hardware.devices[1:]))
    assert placement({"tensor_parallel": 1}, crowded)["CUDA_VISIBLE_DEVICES"] != busy.uuid
    assert placement({"tensor_parallel": 1, "device": "cpu"}, hardware) == {}
    assert placement({"gpu_layers": 0}, hardware) == {}
    alone = placement({"device": "cuda:0"}, hardware)["CUDA_VISIBLE_DEVICES"]
    assert alone in uuids, "one device, which is then the first of those it sees"


def test_a_model_lies_on_all_gpus_in_turns_or_on_one(machine):
    planner, many = get_engine("transformers"), machine("nvidia_many_80g")
    assert {p.name: p.values for p in planner.parameters(QWEN, many, TASK)}["device"] == ("auto", "cuda:0")
    one = planner.parameters(QWEN, machine("nvidia_one_24g"), TASK)
    assert "device" not in {p.name for p in one}
    settings = {**planner.baseline(QWEN, many, TASK), "device": "cuda:0"}
    fit = memory_fit("transformers", QWEN, settings, many, TASK)
    assert fit.available_bytes == max(device.free_bytes for device in many.devices)


def test_what_was_allotted_is_all_that_is_used(machine):
    hardware = machine("nvidia_visible_subset")
    given = placement({"tensor_parallel": 1}, hardware)["CUDA_VISIBLE_DEVICES"]
    assert given in {device.uuid for device in hardware.devices}
    slices = machine("nvidia_mig")
    assert placement({}, slices)["CUDA_VISIBLE_DEVICES"].startswith("MIG-")
    assert placement({}, machine("cpu_avx512")) == {}


def test_unequal_devices_do_not_share_a_model(machine):
    hardware = machine("nvidia_many_80g")
    small = replace(hardware.devices[0], name="NVIDIA T4", total_bytes=16 << 30, free_bytes=200 << 30)
    mixed = replace(hardware, devices=(small, *hardware.devices[1:]))
    chosen = placement({"tensor_parallel": 2}, mixed)["CUDA_VISIBLE_DEVICES"].split(",")
    assert small.uuid not in chosen
    assert len(chosen) == 2


@pytest.mark.parametrize("name", ["nvidia_many_80g", "nvidia_one_24g", "nvidia_small_6g", "nvidia_mig"])
@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers"])
def test_every_preset_is_a_legal_starting_point_of_its_space(machine, name, engine):
    hardware, planner = machine(name), get_engine(engine)
    values = {p.name: p.values for p in planner.parameters(QWEN, hardware, TASK)}
    for strategy in (None, *Strategy):
        settings = planner.preset(QWEN, hardware, TASK, strategy)
        for setting, value in settings.items():
            assert value in values[setting], (setting, value)
        if planner.conflict(settings, QWEN, hardware, TASK) is None:
            devices = placement(settings, hardware).get("CUDA_VISIBLE_DEVICES", "").split(",")
            assert len(devices) <= len(hardware.devices)
            assert memory_fit(engine, QWEN, settings, hardware, TASK).fits is not None
