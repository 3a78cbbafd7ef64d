"""The guard: admits with numbers, watches, releases whatever was raised, proves it, and names who holds on."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from pathlib import Path

import pytest

import core.memory_manager as documented
from llmopt.errors import DoesNotFit
from llmopt.hardware import inprocess
from llmopt.hardware.devices import Holder
from llmopt.hardware.fake import FakeDevice, FakeLibrary
from llmopt.hardware.guard import MemoryNotReturned, ResourceManager, get_resource_manager
from llmopt.hardware.levels import MemoryLevel
from llmopt.hardware.release import allowed_bytes

MIB = 1 << 20
GIB = 1 << 30


class ScriptedGpu(FakeLibrary):
    """A device whose use a test sets by hand."""

    def __init__(self, total: int = 24 * GIB, count: int = 1) -> None:
        super().__init__([FakeDevice(total_bytes=total)] * count)
        self.used = [0] * count
        self.owner = Holder(pid=4321, name="someone", used_bytes=1)
        self.readings = 0

    def _used(self, index: int) -> int:
        self.readings += 1
        return self.used[index]

    def holders(self, device):
        return (self.owner,) if self.used[device.index] else ()


def manager(*libraries, within_s: float = 0.0, **more) -> ResourceManager:
    return ResourceManager(libraries=libraries, within_s=within_s, **more)


def _take_and_raise(gpu: ScriptedGpu, error: BaseException) -> None:
    gpu.used[0] = 2 * GIB
    raise error


def _raise(_model: object, error: BaseException) -> None:
    raise error


class Model:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_the_documented_lines_run_as_written() -> None:
    from core.memory_manager import get_resource_manager

    manager = get_resource_manager()
    with manager.memory_guard("model_name", required_gb=0.25):
        pass
    assert manager.get_memory_stats().host.available_bytes > 0
    manager.cleanup_all_devices()
    assert documented.get_resource_manager() is get_resource_manager()


def test_one_manager_a_process_even_when_asked_at_once() -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(get_resource_manager())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    gpu = ScriptedGpu(total=8 * GIB)
    gpu.used[0] = 3 * GIB
    with pytest.raises(DoesNotFit) as caught, manager(gpu).memory_guard("big", required_gb=6):
        pytest.fail("was admitted")
    assert caught.value.values == {"name": "big", "where": "Fake GPU", "required": "6.00", "available": "5.00"}
    assert "6.00 GiB" in str(caught.value)
    assert caught.value.exit_code == 4


def test_the_freest_device_is_meant_unless_one_is_named() -> None:
    gpus = ScriptedGpu(total=8 * GIB, count=2)
    gpus.used[0] = 6 * GIB
    with manager(gpus).memory_guard("m", required_gb=5):
        pass
    with pytest.raises(DoesNotFit), manager(gpus).memory_guard("m", required_gb=5, device=0):
        pytest.fail("was admitted")
    with pytest.raises(DoesNotFit) as caught, manager(gpus).memory_guard("m", device=7):
        pytest.fail("was admitted")
    assert caught.value.values["count"] == 2


def test_memory_that_comes_back_is_proved() -> None:
    gpu = ScriptedGpu()
    gpu.used[0] = GIB
    with manager(gpu).memory_guard("m", required_gb=4) as guard:
        gpu.used[0] = 5 * GIB
        assert guard.report is None
        gpu.used[0] = GIB + 100 * MIB  # within max(64 MiB, 0.5 % of 24 GiB)
    assert guard.report is not None
    assert guard.report.verified
    assert guard.report.devices[0].returned
    assert guard.report.host_available_bytes > 0


def test_it_waits_for_memory_that_comes_back_late() -> None:
    gpu = ScriptedGpu()
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= 3:
            gpu.used[0] = 0

    late = manager(gpu, within_s=10, now_s=lambda: now[0], sleep=sleep)
    with late.memory_guard("m", required_gb=4) as guard:
        gpu.used[0] = 4 * GIB
    assert guard.report.verified
    assert 3 <= guard.report.seconds <= 3.5


def test_what_stays_is_warned_recorded_and_its_holder_named(caplog) -> None:
    gpu = ScriptedGpu()
    managed = manager(gpu)
    with managed.memory_guard("leaky", required_gb=4) as guard:
        gpu.used[0] = 2 * GIB
    assert not guard.report.verified
    assert managed.releases[-1] is guard.report
    assert guard.report.unreturned_bytes == 2 * GIB - allowed_bytes(0, 24 * GIB)
    assert "pid 4321 someone" in caplog.text
    assert "leaky" in caplog.text


def test_strict_raises_and_never_hides_the_blocks_own_error() -> None:
    gpu = ScriptedGpu()
    with pytest.raises(MemoryNotReturned) as caught, manager(gpu).memory_guard("m", strict=True):
        gpu.used[0] = 2 * GIB
    assert caught.value.exit_code == 4
    assert caught.value.report.devices[0].used_bytes == 2 * GIB
    gpu.used[0] = 0
    with pytest.raises(KeyError) as own, manager(gpu).memory_guard("m", strict=True):
        _take_and_raise(gpu, KeyError("own"))
    assert "m" in own.value.__notes__[0]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), SystemExit(2), GeneratorExit()])
def test_release_and_proof_happen_whatever_was_raised(error: BaseException) -> None:
    model = Model()
    managed = manager(ScriptedGpu())
    with pytest.raises(type(error)), managed.memory_guard("m") as guard:
        _raise(guard.register(model), error)
    assert model.closed
    assert managed.releases[-1].verified


def test_the_locals_of_a_failed_load_are_let_go() -> None:
    references = []

    def load() -> None:
        weights = Model()
        references.append(weakref.ref(weights))
        raise MemoryError("half loaded")

    with pytest.raises(MemoryError) as caught, manager().memory_guard("m"):
        load()
    assert caught.value.__traceback__ is not None
    assert references[0]() is None


def test_only_weak_references_are_kept() -> None:
    managed = manager()
    model = Model()
    managed.register_model("m", model)
    assert managed.registered_models() == ("m",)
    with managed.memory_guard("g") as guard:
        guard.register(Model())
        gc.collect()
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
    assert managed.registered_models() == ()


def test_cleaning_up_empties_registered_models_even_if_one_objects(caplog) -> None:
    class Stubborn(Model):
        def close(self) -> None:
            raise OSError("no")

    good, bad = Model(), Stubborn()
    managed = manager()
    managed.register_model("bad", bad)
    managed.register_model("good", good)
    managed.cleanup_all_devices()
    assert good.closed
    assert "could not be emptied" in caplog.text
    assert managed.registered_models() == ()


def test_guards_nest_and_run_side_by_side() -> None:
    managed = manager(ScriptedGpu())
    with managed.memory_guard("outer") as outer, managed.memory_guard("inner") as inner:
        assert inner is not outer
    threads = [threading.Thread(target=lambda n=n: _guarded(managed, n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(managed.releases) == 6
    assert all(report.verified for report in managed.releases)


def _guarded(managed: ResourceManager, number: int) -> None:
    with managed.memory_guard(f"m{number}"):
        pass


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    for _ in range(3):
        with manager(ScriptedGpu()).memory_guard("m"):
            pass
    assert threading.active_count() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and /dev/shm")
def test_a_tracked_process_and_its_segment_must_be_gone(tmp_path) -> None:
    code = """
        import resource_tracker_off, sys
        from multiprocessing import shared_memory
        segment = shared_memory.SharedMemory(create=True, size=1 << 20)
        print(segment.name, flush=True)
        sys.stdin.readline()
    """.replace("resource_tracker_off, ", "")
    keep = "import os; from multiprocessing import resource_tracker; resource_tracker.unregister('/' + segment.name, 'shared_memory'); os._exit(0)"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code) + keep], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    name = child.stdout.readline().strip()
    alive = [child.pid]
    with manager().memory_guard("engine") as guard:
        guard.track(lambda: tuple(alive))
    assert guard.report.processes_left == (child.pid,)
    assert guard.report.tree_bytes > 0
    with manager().memory_guard("engine") as guard:
        guard.track(lambda: tuple(alive))
        child.communicate("\n", timeout=60)
        alive.clear()
    assert guard.report.segments_left == (f"/dev/shm/{name}",)
    assert not guard.report.verified
    Path("/dev/shm", name).unlink()


def test_the_level_is_there_to_read_and_to_react_to() -> None:
    gpu = ScriptedGpu(total=8 * GIB)
    reached = threading.Event()
    with manager(gpu).memory_guard("m", required_gb=2) as guard:
        assert guard.level is MemoryLevel.SAFE
        guard.on_level(lambda change: reached.set() if change.after is MemoryLevel.EMERGENCY else None)
        gpu.used[0] = 8 * GIB - 10 * MIB
        assert reached.wait(60)
        gpu.used[0] = 0
    assert guard.watch.worst is MemoryLevel.EMERGENCY


def test_statistics_name_devices_holders_and_the_worst_level() -> None:
    gpu = ScriptedGpu(total=8 * GIB)
    gpu.used[0] = 8 * GIB - 100 * MIB
    stats = manager(gpu).get_memory_stats()
    assert stats.level is MemoryLevel.EMERGENCY
    assert stats.devices[0].holders[0].pid == 4321
    assert stats.process.total_bytes > 0


# ── torch objects of the caller, through a stand-in: the real one is tested with the heavy tests ──────────────────


class FakeTensor:
    def __init__(self, size: int, place: str = "cuda:0") -> None:
        self.size = size
        self.device = types.SimpleNamespace(type=place.partition(":")[0], __str__=lambda: place)
        self.place = place

    def untyped_storage(self):
        return types.SimpleNamespace(nbytes=lambda: self.size)


class FakeModule:
    def __init__(self) -> None:
        self.weight = FakeTensor(5 * MIB)

    def to(self, device: str) -> None:
        self.weight.size = 0


class Backend:
    def __init__(self, *, initialised: bool) -> None:
        self.initialised = initialised
        self.calls: list[str] = []
        self.current = None

    def is_initialized(self) -> bool:
        return self.initialised

    def device_count(self) -> int:
        if not self.initialised:
            pytest.fail("asking an uninitialised back end would create a context")
        return 2

    def device(self, index: int):
        self.current = index
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __getattr__(self, name: str):
        return lambda: self.calls.append(f"{name}@{self.current}")


@pytest.fixture
def torch(monkeypatch):
    fake = types.ModuleType("torch")
    fake.nn = types.SimpleNamespace(Module=FakeModule)
    fake.Tensor = FakeTensor
    fake.cuda = Backend(initialised=True)
    fake.xpu = Backend(initialised=False)
    fake.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "torch", fake)
    return fake


def test_every_devices_cache_is_emptied_and_none_is_woken(torch) -> None:
    inprocess.release_caches()
    wanted = ["synchronize", "empty_cache", "ipc_collect", "reset_peak_memory_stats"]
    assert torch.cuda.calls == [f"{name}@{index}" for index in (0, 1) for name in wanted]
    assert torch.xpu.calls == []


def test_a_poisoned_context_does_not_stop_the_release(torch, monkeypatch, caplog) -> None:
    def poisoned(self) -> int:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Backend, "device_count", poisoned)
    inprocess.release_caches()
    assert "could not be emptied" in caplog.text


def test_a_registered_model_gives_up_its_weights(torch) -> None:
    model = FakeModule()
    with manager(ScriptedGpu()).memory_guard("m") as guard:
        guard.register(model)
    assert model.weight.size == 0


def test_tensors_taken_inside_and_still_held_are_named_with_their_holder(torch) -> None:
    gpu = ScriptedGpu()
    before = FakeTensor(7 * MIB)
    kept_by_name = {}
    with manager(gpu).memory_guard("m") as guard:
        kept_by_name["the_culprit"] = FakeTensor(9 * MIB)
        gpu.used[0] = 2 * GIB
    held = guard.report.held
    assert [each.total_bytes for each in held] == [9 * MIB]
    assert any("the_culprit" in name for name in held[0].referrers)
    assert before.size == 7 * MIB


def test_torch_is_never_imported_by_us() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from core.memory_manager import get_resource_manager\n"
        "m = get_resource_manager()\n"
        "with m.memory_guard('x'): pass\n"
        "m.cleanup_all_devices()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
