"""What every vendor's library must do, run against each of them on recorded machines, and against the fake one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmopt.hardware.amd import AmdLibrary
from llmopt.hardware.apple import AppleLibrary
from llmopt.hardware.devices import DeviceLibrary, DeviceUnavailable, device_libraries, find_devices
from llmopt.hardware.fake import FAKE_VARIABLE, FakeDevice, FakeLibrary
from llmopt.hardware.intel import IntelLibrary
from llmopt.hardware.machine import LiveMachine
from llmopt.hardware.nvidia import NvidiaLibrary
from llmopt.hardware.probe import describe_unread
from llmopt.hardware.recorded import RecordedMachine
from llmopt.records import Device

MACHINES = Path(__file__).parent.parent / "fixtures" / "machines"
GIB = 1 << 30
MIB = 1 << 20


def machine(name: str) -> RecordedMachine:
    return RecordedMachine.load(MACHINES / f"{name}.json")


LIBRARIES = {
    "nvidia": lambda: NvidiaLibrary(machine("nvidia_one_24g")),
    "nvidia many": lambda: NvidiaLibrary(machine("nvidia_many_80g")),
    "nvidia slices": lambda: NvidiaLibrary(machine("nvidia_mig")),
    "nvidia unified": lambda: NvidiaLibrary(machine("gb10_unified")),
    "nvidia jetson": lambda: NvidiaLibrary(machine("jetson_orin")),
    "nvidia windows": lambda: NvidiaLibrary(machine("windows_pc")),
    "amd": lambda: AmdLibrary(machine("amd_mi300x")),
    "amd unified": lambda: AmdLibrary(machine("amd_unified_apu")),
    "intel": lambda: IntelLibrary(machine("intel_arc_16g")),
    "apple": lambda: AppleLibrary(machine("apple_m3_max")),
    "fake": lambda: FakeLibrary([FakeDevice(curve=((0, 0), (10, 5 * GIB))), FakeDevice()], now_s=lambda: 4.0),
}


@pytest.fixture(params=sorted(LIBRARIES))
def library(request) -> DeviceLibrary:
    return LIBRARIES[request.param]()


def test_it_satisfies_the_protocol(library: DeviceLibrary) -> None:
    assert isinstance(library, DeviceLibrary)


def test_devices_are_described_and_stable(library: DeviceLibrary) -> None:
    devices = library.devices()
    assert devices
    assert len({device.uuid for device in devices}) == len(devices)
    for device in devices:
        assert device.vendor == library.vendor
        assert device.name
        assert 0 <= device.free_bytes <= device.total_bytes
        assert device.total_bytes > GIB
    assert [device.uuid for device in library.devices()] == [device.uuid for device in devices]


def test_memory_adds_up(library: DeviceLibrary) -> None:
    for device in library.devices():
        memory = library.memory(device)
        assert memory.total_bytes == device.total_bytes
        assert min(memory.used_bytes, memory.free_bytes, memory.reserved_bytes) >= 0
        assert memory.used_bytes + memory.free_bytes + memory.reserved_bytes <= memory.total_bytes


def test_holders_come_largest_first(library: DeviceLibrary) -> None:
    for device in library.devices():
        used = [holder.used_bytes or 0 for holder in library.holders(device)]
        assert used == sorted(used, reverse=True)


def test_faults_are_told_once(library: DeviceLibrary) -> None:
    for device in library.devices():
        library.faults(device)
        assert library.faults(device) == ()


@pytest.mark.parametrize("kind", [NvidiaLibrary, AmdLibrary, IntelLibrary, AppleLibrary])
@pytest.mark.parametrize("name", ["cpu_avx512", "no_proc"])
def test_a_machine_without_such_devices_gives_a_reason(kind, name: str) -> None:
    with pytest.raises(DeviceUnavailable) as caught:
        kind(machine(name)).devices()
    assert describe_unread(caught.value.reason)


@pytest.mark.parametrize("kind", [AmdLibrary, IntelLibrary, NvidiaLibrary])
def test_a_device_that_went_away_is_unavailable(kind) -> None:
    names = {AmdLibrary: "amd_mi300x", IntelLibrary: "intel_arc_16g", NvidiaLibrary: "nvidia_one_24g"}
    library = kind(machine(names[kind]))
    ghost = Device(
        index=9,
        uuid="GPU-gone",
        vendor="amd",
        kind="rocm",
        name="x",
        total_bytes=1,
        free_bytes=1,  # type: ignore[arg-type]
    )
    with pytest.raises(DeviceUnavailable):
        library.holders(ghost)


def test_amd_holders_count_a_client_once() -> None:
    library = AmdLibrary(machine("amd_mi300x"))
    holders = library.holders(library.devices()[0])
    assert [(holder.pid, holder.name, holder.used_bytes) for holder in holders] == [(4321, "python", 2 * GIB)]


def test_intel_counts_what_is_resident() -> None:
    library = IntelLibrary(machine("intel_arc_16g"))
    device = library.devices()[0]
    assert library.memory(device).used_bytes == 4 * GIB
    assert library.holders(device)[0].pid == 777


def test_nvidia_reserved_memory_is_counted_apart() -> None:
    library = NvidiaLibrary(machine("nvidia_one_24g"))
    memory = library.memory(library.devices()[0])
    assert (memory.used_bytes, memory.reserved_bytes) == (300 * MIB, 400 * MIB)


def test_nvidia_processes_may_hide_their_memory() -> None:
    library = NvidiaLibrary(machine("windows_pc"))
    assert [(holder.pid, holder.used_bytes) for holder in library.holders(library.devices()[0])] == [(4242, None)]


def test_nvidia_faults_are_read_from_the_driver() -> None:
    recording = json.loads((MACHINES / "nvidia_one_24g.json").read_text())
    recording["nvml"]["devices"][0]["xids"] = [79, 13]
    library = NvidiaLibrary(RecordedMachine(recording))
    device = library.devices()[0]
    assert library.faults(device) == (79, 13)
    assert library.faults(device) == ()


def test_amdsmi_names_a_card_where_it_is_installed() -> None:
    class Smi:
        AmdSmiException = RuntimeError
        amdsmi_init = staticmethod(lambda: None)
        amdsmi_shut_down = staticmethod(lambda: None)
        amdsmi_get_processor_handles = staticmethod(lambda: ["h"])
        amdsmi_get_gpu_device_bdf = staticmethod(lambda _handle: "0000:05:00.0")
        amdsmi_get_gpu_asic_info = staticmethod(lambda _handle: {"market_name": "AMD Instinct Named"})

    recorded = machine("amd_mi300x")
    recorded.library = lambda _name: Smi  # type: ignore[method-assign]
    assert AmdLibrary(recorded).devices()[0].name == "AMD Instinct Named"


def test_one_failing_library_hides_no_other() -> None:
    broken, good = NvidiaLibrary(machine("nvidia_driver_broken")), FakeLibrary()
    found = find_devices([broken, good])
    assert [device.vendor for device, _ in found.devices] == ["fake"]
    assert set(found.unread) == {"devices.nvidia"}


def test_the_curve_of_a_fake_device_is_followed() -> None:
    script = FakeDevice(curve=((1, 100), (3, 300), (3, 50)))
    assert [script.used_at(at) for at in (0, 1, 2, 2.5, 3, 9)] == [100, 100, 200, 250, 50, 50]


def test_a_fake_engine_holds_memory_while_it_lives(tmp_path: Path) -> None:
    (tmp_path / "devices.json").write_text(json.dumps([{"name": "Fake 24G", "total_bytes": 24 * GIB}]))
    library = FakeLibrary.from_folder(tmp_path)
    device = library.devices()[0]
    engine = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (tmp_path / str(engine.pid)).write_text(f"0 {3 * GIB}\nnonsense\n")
    assert library.memory(device).used_bytes == 3 * GIB
    assert [holder.pid for holder in library.holders(device)] == [engine.pid]
    engine.communicate(b"\n")
    assert library.memory(device).used_bytes == 0
    assert library.holders(device) == ()


def test_the_fake_device_joins_by_its_variable(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(FAKE_VARIABLE, str(tmp_path))
    faked = LiveMachine()
    assert find_devices(device_libraries(faked)).unread["devices.fake"].startswith("hardware.library_error")
    (tmp_path / "devices.json").write_text('[{"name": "Fake", "total_bytes": 2147483648}]')
    assert any(device.vendor == "fake" for device, _ in find_devices(device_libraries(faked)).devices)
