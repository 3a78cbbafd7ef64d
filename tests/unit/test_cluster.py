"""Which machines of a cluster take part, and what a launch needs of them."""

from __future__ import annotations

import pytest

from llmopt import __version__
from llmopt.errors import UsageError
from llmopt.messages import set_language, t
from llmopt.records import Configuration, Cpu, Device, DeviceType, Hardware, HostMemory, InferenceParams
from llmopt.search.executor import Resources
from llmopt.study.cluster import choose_hardware, needs
from llmopt.study.remote import NodeFacts


def machine(cpu="xeon", gpus=0) -> Hardware:
    devices = tuple(
        Device(
            index=k, uuid=f"u{k}", vendor="nvidia", kind=DeviceType.CUDA, name="H100", total_bytes=80 << 30,
            free_bytes=80 << 30,
        )
        for k in range(gpus)
    )  # fmt: skip
    return Hardware(
        cpu=Cpu(model=cpu, architecture="x86_64", physical_cores=4, logical_cores=8, usable_cores=8),
        memory=HostMemory(total_bytes=64 << 30, available_bytes=60 << 30),
        devices=devices,
    )


def node(host, hardware, version=__version__) -> tuple[str, NodeFacts]:
    return host, NodeFacts(host=host, version=version, hardware=hardware)


def test_the_most_frequent_hardware_takes_part_and_the_others_are_named():
    answers = [node("a", machine()), node("b", machine()), node("c", machine("epyc")), node("d", machine(), "1.0")]
    answers.append(("10.0.0.9", ModuleNotFoundError("No module named 'llmopt'")))
    hardware, machines, over = choose_hardware(answers)
    assert hardware.fingerprint == machine().fingerprint
    assert machines == 2
    assert len(over) == 3
    assert any(who.startswith("c:") for who in over)
    assert any(who.startswith("d: llmopt 1.0, not") for who in over)
    assert any("10.0.0.9" in who and "llmopt" in who for who in over)


@pytest.mark.parametrize(("language", "words"), [("en", "No machine"), ("ko", "클러스터의 어떤 장비도")])
def test_a_cluster_of_other_versions_alone_is_refused(language, words):
    set_language(language)
    try:
        with pytest.raises(UsageError) as caught:
            choose_hardware([node("d", machine(), "1.0")])
        assert caught.value.key == "search.no_machine"
        assert "d: llmopt 1.0" in caught.value.what
        assert words in caught.value.what
        _, _, over = choose_hardware([node("a", machine()), node("d", machine(), "1.0"), node("e", machine("epyc"))])
        told = t("study.cluster_passed_over", who="; ".join(over))
        assert "d: llmopt 1.0" in told
        assert f"e: {machine('epyc').fingerprint}" in told
    finally:
        set_language(None)


def test_gpus_are_reserved_by_parallelism_and_without_any_the_whole_processor():
    most = Resources(cpus=32, gpus=8)
    launch = {"tensor_parallel": 4, "pipeline_parallel": 2}
    wanted = Configuration(engine="vllm", launch=launch, request=InferenceParams())
    assert needs(wanted, machine(gpus=8), most) == Resources(cpus=1.0, gpus=4.0, nodes=2)
    assert needs(wanted, machine(), Resources(cpus=4)) == Resources(cpus=4.0)
    assert needs(wanted, machine(), most) == Resources(cpus=8.0)
