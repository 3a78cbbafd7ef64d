"""Estimates of models on hardware that is not here: what fits, what is foreseen, what is not known."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from llmopt.cli.app import cli
from llmopt.errors import UsageError
from llmopt.hardware.recorded import RecordedMachine
from llmopt.messages import t
from llmopt.paths import Workspace
from llmopt.predict.devices import device_spec, hypothetical, known_devices
from llmopt.predict.forecast import Unknown
from llmopt.records import Device, DeviceType
from llmopt.study import estimating
from llmopt.study.estimating import EstimateRequest, estimate, estimate_json, nothing_fits


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMOPT_HOME", str(tmp_path))
    monkeypatch.setenv("LLMOPT_WEIGHTS_CACHE", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Workspace(root=tmp_path)


def rows_of(workspace, **asked):
    return estimate(EstimateRequest(**asked), workspace)[1]


def test_a_model_on_gpus_one_does_not_have(workspace):
    rows = rows_of(workspace, model="qwen2.5-7b", gpus=("h100", "rtx-3090", "l4"))
    assert {row.place for row in rows} == {"h100", "rtx-3090", "l4"}
    h100 = {row.precision: row for row in rows if row.place == "h100"}
    assert list(h100) == ["bfloat16", "fp8", "int4"]
    assert all(row.fit.fits for row in h100.values())
    needs = [row.fit.needed_bytes for row in h100.values()]
    assert needs == sorted(needs, reverse=True)
    figure = h100["bfloat16"].expected.figures["answers_per_minute"]
    assert figure.low < figure.value < figure.high
    # 15.2 GB of weights at 3.35 TB/s: nobody is faster than 220 tokens a second
    assert 180 < h100["bfloat16"].at_most_tokens_per_s < 260


def test_a_device_or_engine_without_a_measured_row_is_not_known(workspace):
    (half, *_) = rows_of(workspace, model="qwen2.5-7b", gpus=("rtx-3090",))
    assert isinstance(half.expected, Unknown)
    assert half.at_most_tokens_per_s is not None  # the bound needs no run
    unseen = rows_of(workspace, model="qwen2.5-7b", gpus=("h100",), engine="llamacpp")
    assert all(isinstance(row.expected, Unknown) for row in unseen)
    for lang in ("ko", "en"):
        assert "llamacpp" in t(unseen[0].expected.reason, lang=lang, **unseen[0].expected.values)


def test_capabilities_decide_the_precisions(workspace):
    assert [row.precision for row in rows_of(workspace, model="qwen2.5-7b", gpus=("t4",))] == ["float16", "int4"]
    assert [row.precision for row in rows_of(workspace, model="qwen2.5-7b", gpus=("a100-sxm",))] == ["bfloat16", "int4"]


def test_several_gpus_share_a_model_only_as_its_heads_allow(workspace):
    (row, *_) = rows_of(workspace, model="qwen2.5-7b", gpus=("6xl40s",))  # 28 heads, 4 KV heads
    assert row.settings["tensor_parallel"] == 4
    assert row.place == "6 x l40s"


def test_what_cannot_fit_is_refused_with_numbers(workspace):
    rows = rows_of(workspace, model="llama3.1-70b", gpus=("l4",))
    refusal = nothing_fits(rows)
    assert refusal is not None
    assert refusal.exit_code == 4
    assert nothing_fits(rows_of(workspace, model="llama3.1-70b", gpus=("l4", "4xh100"))) is None


def test_this_machine_is_looked_at_without_a_gpu_named(workspace):
    rows = rows_of(workspace, model="qwen2.5-7b", engine="llamacpp")
    assert [row.precision for row in rows] == ["q8_0", "q4_k_m"]
    assert rows[0].fit.needed_bytes > rows[1].fit.needed_bytes
    assert isinstance(rows[0].expected, Unknown)  # never measured here


@pytest.mark.parametrize(
    "asked",
    [
        {"gpus": ("h1000x",)},
        {"gpus": ("0xh100",)},
        {"gpus": ("",)},
        {"engine": "vlm"},
        {"model": "nothing-like-it-at-all!"},
        {"streams": 0},
        {"answer_tokens": -3},
    ],
)
def test_what_is_not_there_is_refused_with_near_names(workspace, asked):
    with pytest.raises(UsageError) as refused:
        rows_of(workspace, **{"model": "qwen2.5-7b", **asked})
    assert refused.value.what
    assert refused.value.next_step


def test_the_answer_for_programs_has_every_figure_with_its_interval(workspace):
    request = EstimateRequest(model="qwen3-30b-a3b", gpus=("b200",), streams=64)
    model, rows = estimate(request, workspace)
    plain = json.loads(json.dumps(estimate_json(request, model, rows)))
    assert plain["load"]["streams"] == 64
    for row in plain["rows"]:
        assert row["memory"]["parts"]
        assert row["speed"]["known"]
        for name in ("answers_per_minute", "ttft_p50_ms", "ttft_p95_ms", "tpot_p50_ms"):
            assert row["speed"][name]["low"] < row["speed"][name]["value"] < row["speed"][name]["high"]


@pytest.mark.parametrize("lang", ["ko", "en"])
@pytest.mark.parametrize("more", [[], ["--gpu", "h100", "--parts"], ["--list-gpus"]])
def test_the_command_answers_in_both_languages(workspace, lang, more):
    del workspace
    ran = CliRunner().invoke(cli, ["estimate", "qwen2.5-7b", *more, "--lang", lang], standalone_mode=False)
    assert ran.exception is None, ran.output
    assert ran.output.strip()
    assert "{" not in ran.output


def test_every_described_device_has_a_source_and_is_found_by_its_probed_name():
    for name, spec in known_devices().items():
        assert spec.source, name
        assert spec.checked, name
        assert spec.bandwidth > 1e11
        assert spec.flops_at(16) > 1e13
        assert device_spec(name) == spec
        assert [device.uuid for device in hypothetical(spec, 2)] == [f"hypothetical-{name}-{i}" for i in (0, 1)]


def probed(name, gib=80, parent=None):
    size = gib << 30
    return Device(
        index=0, uuid="u", vendor="nvidia", kind=DeviceType.CUDA, name=name, total_bytes=size, free_bytes=size,
        parent_uuid=parent,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "gib", "found"),
    [
        ("NVIDIA A100-SXM4-80GB", 80, "a100-sxm"),
        ("NVIDIA A100-SXM4-40GB", 40, "a100-sxm-40gb"),
        ("NVIDIA A100 80GB PCIe", 80, "a100-pcie"),
        ("NVIDIA H100 80GB HBM3", 80, "h100"),
        ("NVIDIA H100 PCIe", 80, "h100-pcie"),
        ("NVIDIA H100 NVL", 94, "h100-nvl"),
        ("Tesla V100-SXM2-32GB", 32, "v100-sxm"),
        ("Tesla T4", 15, "t4"),
        ("NVIDIA GeForce RTX 4090", 24, "rtx-4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16, None),
        ("NVIDIA GeForce GTX 1060", 6, None),
    ],
)
def test_drivers_names_lead_to_the_right_figures(name, gib, found):
    spec = device_spec(probed(name, gib))
    assert (spec.name if spec else None) == found
    assert device_spec(probed(name, gib, parent="GPU-1")) is None  # a slice is not the whole


def test_estimating_reads_recorded_machines(workspace, monkeypatch, request):
    fixtures = request.config.rootpath / "tests" / "fixtures" / "machines"
    from llmopt.hardware import probe as probing

    machine = RecordedMachine.load(fixtures / "nvidia_many_80g.json")
    found = probing.probe(machine)
    monkeypatch.setattr(estimating, "probe", lambda: found)
    rows = rows_of(workspace, model="qwen2.5-7b")
    assert rows[0].engine == "vllm"
    assert rows[0].place == ", ".join(dict.fromkeys(device.name for device in found.devices))
    assert rows[0].settings["tensor_parallel"] == 4
