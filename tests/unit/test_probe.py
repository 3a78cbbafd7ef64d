"""Every recorded machine kind is read right, with the source of what was read and the reason for what was not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.hardware.probe import describe_unread, probe
from llmopt.hardware.recorded import RecordedMachine
from llmopt.records import DeviceType, Hardware

MACHINES = Path(__file__).parent.parent / "fixtures" / "machines"
GIB = 1 << 30
MIB = 1 << 20


def recorded(name: str) -> Hardware:
    return probe(RecordedMachine.load(MACHINES / f"{name}.json"))


# kind: physical, logical, usable cores, usable GiB, available GiB, devices
EXPECTED = {
    "nvidia_one_24g": (16, 32, 32, 64, 60, 1),
    "nvidia_small_6g": (6, 12, 12, 16, 11, 1),
    "nvidia_many_80g": (112, 224, 224, 2048, 1990, 8),
    "nvidia_visible_subset": (8, 16, 16, 256, 250, 2),
    "nvidia_mig": (32, 64, 64, 512, 500, 2),
    "nvidia_driver_broken": (4, 8, 8, 61, 55, 0),
    "amd_mi300x": (96, 96, 96, 1536, 1500, 1),
    "amd_unified_apu": (16, 32, 32, 124, 118, 1),
    "intel_arc_16g": (20, 20, 20, 64, 58, 1),
    "apple_m3_max": (16, 16, 16, 64, 40, 1),
    "jetson_orin": (12, 12, 12, 62, 50, 1),
    "gb10_unified": (20, 20, 20, 120, 112, 1),
    "cpu_avx512": (24, 48, 48, 256, 250, 0),
    "cpu_no_avx2": (4, 4, 4, 8, 6, 0),
    "container_one_core": (1, 1, 1, 2, 1.51171875, 0),
    "cgroup_v2_quota": (8, 16, 2.5, 12, 10, 0),
    "cgroup_v1_quota": (4, 8, 1.5, 4, 3, 0),
    "slurm_job": (64, 128, 16, 64, 64, 2),
    "no_proc": (4, 4, 4, 0, 0, 0),
    "windows_pc": (16, 16, 16, 32, 20, 1),
}


def test_every_recording_has_an_expectation() -> None:
    assert {path.stem for path in MACHINES.glob("*.json")} == set(EXPECTED)
    assert len(EXPECTED) >= 12


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_cores_memory_and_devices(name: str) -> None:
    hardware = recorded(name)
    physical, logical, usable, memory, available, devices = EXPECTED[name]
    assert (hardware.cpu.physical_cores, hardware.cpu.logical_cores) == (physical, logical)
    assert hardware.cpu.usable_cores == usable
    assert hardware.memory.usable_bytes == memory * GIB
    assert hardware.memory.available_bytes == available * GIB
    assert len(hardware.devices) == devices


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_gap_has_a_reason_that_can_be_read_in_both_languages(name: str) -> None:
    hardware = recorded(name)
    facts = {"cpu.model", "cpu.physical_cores", "cpu.usable_cores", "memory.total", "disk.free"}
    assert facts <= hardware.sources.keys() | hardware.unread.keys()
    assert {f"devices.{vendor}" for vendor in ("nvidia", "amd", "intel", "apple")} <= (
        hardware.sources.keys() | hardware.unread.keys()
    )
    assert all(describe_unread(reason) for reason in hardware.unread.values())


def test_a_gpu_is_described_by_its_driver() -> None:
    device = recorded("nvidia_one_24g").devices[0]
    assert device.name == "NVIDIA GeForce RTX 4090"
    assert device.kind is DeviceType.CUDA
    assert device.compute_capability == (8, 9)
    assert device.driver == "570.86"
    assert device.total_bytes == 24564 * MIB
    assert device.free_bytes == (24564 - 300 - 400) * MIB


def test_visible_devices_keep_the_order_given() -> None:
    hardware = recorded("nvidia_visible_subset")
    assert [device.index for device in hardware.devices] == [3, 1]
    assert "CUDA_VISIBLE_DEVICES=3,1" in hardware.sources["devices.nvidia"]


def test_slices_stand_in_place_of_their_gpu() -> None:
    slices = recorded("nvidia_mig").devices
    assert [device.total_bytes for device in slices] == [40192 * MIB, 19968 * MIB]
    assert {device.parent_uuid for device in slices} == {"GPU-55555555-aaaa-bbbb-cccc-000000000001"}
    assert all(device.uuid.startswith("MIG-") for device in slices)


def test_a_broken_driver_is_a_reason_not_a_crash() -> None:
    hardware = recorded("nvidia_driver_broken")
    assert "version mismatch" in describe_unread(hardware.unread["devices.nvidia"])


def test_a_job_gets_what_its_batch_system_gave_it() -> None:
    hardware = recorded("slurm_job")
    assert [device.index for device in hardware.devices] == [2, 3]
    assert hardware.sources["cpu.usable_cores"] == "SLURM_CPUS_PER_TASK"
    assert hardware.sources["memory.limit"] == "SLURM_MEM_PER_NODE"


@pytest.mark.parametrize("name", ["gb10_unified", "jetson_orin", "apple_m3_max", "amd_unified_apu"])
def test_unified_memory_is_the_hosts(name: str) -> None:
    hardware = recorded(name)
    device = hardware.devices[0]
    assert device.unified_memory
    assert 0 < device.free_bytes <= device.total_bytes <= hardware.memory.usable_bytes


def test_amd_memory_is_read_from_the_kernel() -> None:
    device = recorded("amd_mi300x").devices[0]
    assert (device.name, device.kind) == ("AMD Instinct MI300X", DeviceType.ROCM)
    assert (device.total_bytes, device.free_bytes) == (192 * GIB, 190 * GIB)
    assert not device.unified_memory


def test_an_intel_card_is_told_from_the_integrated_one() -> None:
    device = recorded("intel_arc_16g").devices[0]
    assert (device.name, device.total_bytes, device.free_bytes) == ("Intel Arc A770", 16 * GIB, 12 * GIB)
    assert recorded("cpu_no_avx2").unread["devices.intel"] == "hardware.integrated_only"


def test_vector_features_decide_between_builds() -> None:
    assert "avx512f" in recorded("cpu_avx512").cpu.features
    assert "amx_tile" in recorded("cpu_avx512").cpu.features
    assert recorded("cpu_no_avx2").cpu.features == ("sse4_2",)
    assert "i8mm" in recorded("gb10_unified").cpu.features
    assert recorded("jetson_orin").cpu.model == "Arm Cortex-A78AE"


def test_this_machine_is_read_without_a_heavy_import() -> None:
    hardware = probe()
    assert hardware.cpu.logical_cores >= 1
    if sys.platform.startswith("linux"):
        assert hardware.memory.available_bytes > 0
        assert hardware.unread.get("memory.total") is None


@given(st.dictionaries(st.sampled_from(["/proc/cpuinfo", "/proc/meminfo", "/proc/self/cgroup", "/proc/self/mounts",
       "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory.max", "/sys/class/drm/card0/device/vendor",
       "/sys/class/drm/card0/device/resource", "/sys/class/drm/card0/device/mem_info_vram_total"]),
       st.one_of(st.text(max_size=60), st.sampled_from(["0x1002", "0x8086", "max", "max 1", "-1 -1", "MemTotal:",
       "MemTotal: x kB", "0::/a", "3:memory:/a", "c / cgroup2 rw 0 0", "1 2 3", "processor: 0", "processor: x"])),
       max_size=6))  # fmt: skip
def test_damaged_system_files_never_raise(files: dict[str, str]) -> None:
    hardware = probe(RecordedMachine({"system": "Linux", "architecture": "x86_64", "files": files}))
    assert hardware.cpu.logical_cores >= 1
    assert hardware.memory.usable_bytes >= 0
