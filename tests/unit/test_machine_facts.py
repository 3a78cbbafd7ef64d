"""Every fact of ``status --detailed`` has its source or its reason, on every recorded machine."""

import re
from pathlib import Path

import pytest

from llmopt.cli.status_details import fact_line
from llmopt.hardware.facts import machine_facts
from llmopt.hardware.probe import describe_unread, probe
from llmopt.hardware.recorded import RecordedMachine
from llmopt.messages import set_language

MACHINES = sorted((Path(__file__).parent.parent / "fixtures" / "machines").glob("*.json"))
ASKED = {
    "cpu.model", "cpu.physical_cores", "cpu.logical_cores", "cpu.usable_cores", "cpu.features", "cpu.numa_nodes",
    "cpu.quota", "memory.total", "memory.limit", "disk.free", "CUDA_VISIBLE_DEVICES", "batch.job",
}  # fmt: skip


def facts_of(name):
    machine = RecordedMachine.load(next(path for path in MACHINES if path.stem == name))
    return {fact.name: fact for fact in machine_facts(probe(machine), machine)}


@pytest.mark.parametrize("name", [path.stem for path in MACHINES])
def test_each_fact_has_a_source_or_a_reason(name):
    facts = facts_of(name)
    assert facts.keys() >= ASKED
    assert [fact for fact in facts.values() if not fact.source and not fact.why] == []
    for language in ("ko", "en"):
        set_language(language)
        try:
            for fact in facts.values():
                why = describe_unread(fact.why) if fact.why else None
                line = fact_line(
                    {"fact": fact.name, "value": fact.value, "kind": fact.kind, "source": fact.source, "why": why}
                )
                assert "None" not in line
                assert "{" not in line
                if why and language == "ko":
                    assert re.search("[가-힣]", line)
        finally:
            set_language(None)


def test_limits_slices_and_allocations_are_told():
    assert facts_of("cgroup_v2_quota")["cpu.quota"].value == 2.5
    assert "cgroup" in facts_of("cgroup_v2_quota")["memory.limit"].source
    assert facts_of("cgroup_v1_quota")["cpu.quota"].source.endswith("cpu.cfs_quota_us")
    assert facts_of("nvidia_mig")["mig"].value
    assert facts_of("nvidia_one_24g")["mig"].value is None
    assert facts_of("nvidia_visible_subset")["CUDA_VISIBLE_DEVICES"].value
    assert facts_of("slurm_job")["batch.job"].value.startswith("SLURM")
    assert facts_of("no_proc")["cpu.model"].why
    assert facts_of("cpu_avx512")["cpu.quota"].value is None


def test_clashing_packages_are_named_with_the_remedy(monkeypatch):
    from llmopt.cli import status_details
    from llmopt.engines import doctor, registry

    misfit = doctor.Finding(level="error", key="misfit_torch", values={"names": "torchvision"})
    fine = doctor.Finding(level="ok", key="fine", values={"name": "fake", "version": "1"})
    monkeypatch.setattr(registry, "engine_names", lambda: ("vllm", "fake"))
    monkeypatch.setattr(doctor, "examine", lambda name, hardware: (misfit,) if name == "vllm" else (fine,))
    machine = RecordedMachine.load(MACHINES[0])
    found = status_details._engine_clashes(probe(machine))
    assert list(found) == ["vllm: misfit_torch"]
    assert "torchvision" in found["vllm: misfit_torch"]
    assert "pip uninstall" in found["vllm: misfit_torch"]
