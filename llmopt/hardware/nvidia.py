"""NVIDIA devices through the driver's own library (NVML): whole GPUs, MIG slices and unified-memory systems."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llmopt.hardware.devices import DeviceMemory, DeviceUnavailable, Holder
from llmopt.hardware.host import host_memory
from llmopt.hardware.machine import Machine, text_or_none
from llmopt.hardware.visible import visible
from llmopt.records import Device, DeviceType

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CRITICAL_XIDS", "NvidiaLibrary"]

T = TypeVar("T")

CRITICAL_XIDS = frozenset({48, 63, 64, 79, 94, 95})
"""Memory (ECC) faults and "fallen off the bus": no launch may follow on such a device."""

_DRIVER_SIGNS = ("/proc/driver/nvidia/version", "/sys/module/nvidia/version", "/sys/module/nvgpu/initstate")
_WSL_LIBRARIES = "/usr/lib/wsl/lib"
"""Without one of these no NVIDIA driver runs on Linux, and importing its library would only cost time."""

_BOARD = "/proc/device-tree/model"
_BOARD_UUID = "jetson-0"


class NvidiaLibrary:
    """Opened at the first question and kept open: opening takes longer than all the questions together."""

    vendor = "nvidia"
    source = "NVML"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._opened: Any = None
        self._handles: dict[str, Any] = {}
        self._events: dict[str, Any] = {}

    def devices(self) -> tuple[Device, ...]:
        """The devices this process may use."""
        try:
            nvml = self._nvml()
        except DeviceUnavailable:
            board = self._board()
            if board is None:
                raise
            return visible([board], self._machine.env)
        driver = _text(self._ask(nvml.nvmlSystemGetDriverVersion))
        found: list[Device] = []
        for index in range(self._ask(nvml.nvmlDeviceGetCount)):
            handle = self._ask(partial(nvml.nvmlDeviceGetHandleByIndex, index))
            found += self._slices(index, handle, driver) or [self._device(index, handle, driver)]
        return visible(found, self._machine.env)

    def memory(self, device: Device) -> DeviceMemory:
        """What the device holds now."""
        if device.unified_memory:
            return _unified(self._machine)
        nvml = self._nvml()
        handle = self._handle(device)
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        except nvml.NVMLError:  # a driver older than 510 knows the first form only
            memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return DeviceMemory(
            total_bytes=int(memory.total),
            used_bytes=int(memory.used),
            free_bytes=int(memory.free),
            reserved_bytes=int(getattr(memory, "reserved", 0)),
        )

    def holders(self, device: Device) -> tuple[Holder, ...]:
        """Processes that hold its memory."""
        if device.uuid == _BOARD_UUID:
            return ()
        nvml = self._nvml()
        handle = self._handle(device)
        found: dict[int, int | None] = {}
        for name in (
            "nvmlDeviceGetComputeRunningProcesses",
            "nvmlDeviceGetGraphicsRunningProcesses",
            "nvmlDeviceGetMPSComputeRunningProcesses",
        ):
            try:
                processes = getattr(nvml, name)(handle)
            except nvml.NVMLError:  # one kind may be unsupported (MPS off, no display) while the others answer
                continue
            for process in processes:
                used = process.usedGpuMemory
                found[int(process.pid)] = int(used) if used is not None else found.get(int(process.pid))
        ordered = sorted(found.items(), key=lambda item: -(item[1] or 0))
        return tuple(
            Holder(pid=pid, name=text_or_none(self._machine, f"/proc/{pid}/comm") or "", used_bytes=used)
            for pid, used in ordered
        )

    def faults(self, device: Device) -> tuple[int, ...]:
        """Hardware faults since the last call."""
        if device.uuid == _BOARD_UUID:
            return ()
        nvml = self._nvml()
        uuid = device.parent_uuid or device.uuid
        if uuid not in self._events:
            try:
                events = nvml.nvmlEventSetCreate()
                nvml.nvmlDeviceRegisterEvents(
                    self._handle(device, parent=True), nvml.nvmlEventTypeXidCriticalError, events
                )
            except nvml.NVMLError:  # not supported on this device or by this permission: faults stay unknown
                events = None
            self._events[uuid] = events
        found: list[int] = []
        while self._events[uuid] is not None:
            try:
                found.append(int(nvml.nvmlEventSetWait_v2(self._events[uuid], 0).eventData))
            except nvml.NVMLError:  # time-out of zero: no more events
                break
        return tuple(found)

    # ── opening ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _nvml(self) -> Any:
        if self._opened is None:
            if not self._driver_runs():
                raise DeviceUnavailable("hardware.no_driver")
            try:
                nvml = self._machine.library("pynvml")
            except ImportError:
                raise DeviceUnavailable("hardware.no_nvml_package") from None
            try:
                nvml.nvmlInit()
            except nvml.NVMLError as error:
                raise DeviceUnavailable(f"hardware.library_error: {error}") from None
            self._opened = nvml
        return self._opened

    def _driver_runs(self) -> bool:
        if self._machine.system != "Linux":
            return self._machine.system == "Windows"
        if any(text_or_none(self._machine, sign) is not None for sign in _DRIVER_SIGNS):
            return True
        try:
            return "libnvidia-ml.so.1" in self._machine.names(_WSL_LIBRARIES)
        except OSError:
            return False

    def _board(self) -> Device | None:
        """A Jetson board, whose older system releases have no NVML."""
        name = (text_or_none(self._machine, _BOARD) or "").rstrip("\0")
        if "Jetson" not in name:
            return None
        pool = _unified(self._machine)
        return Device(
            index=0,
            uuid=_BOARD_UUID,
            vendor="nvidia",
            kind=DeviceType.CUDA,
            name=name,
            total_bytes=pool.total_bytes,
            free_bytes=pool.free_bytes,
            unified_memory=True,
        )

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except self._opened.NVMLError as error:
            raise DeviceUnavailable(f"hardware.library_error: {error}") from None

    def _ask_or(self, question: Callable[[], T], otherwise: T) -> T:
        """An answer that a driver may lack (not supported, no permission) without the device being unusable."""
        try:
            return question()
        except (self._opened.NVMLError, AttributeError):
            return otherwise

    def _handle(self, device: Device, *, parent: bool = False) -> Any:
        uuid = device.parent_uuid if parent and device.parent_uuid else device.uuid
        if uuid not in self._handles:
            nvml = self._nvml()
            self._handles[uuid] = self._ask(lambda: nvml.nvmlDeviceGetHandleByUUID(uuid))
        return self._handles[uuid]

    # ── describing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _device(self, index: int, handle: Any, driver: str) -> Device:
        nvml = self._opened
        uuid = _text(self._ask(lambda: nvml.nvmlDeviceGetUUID(handle)))
        self._handles[uuid] = handle
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            total, free, unified = int(memory.total), int(memory.free), False
        except nvml.NVMLError:  # GB10 and Jetson have no framebuffer of their own
            pool = _unified(self._machine)
            total, free, unified = pool.total_bytes, pool.free_bytes, True
        capability = self._ask_or(lambda: tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)), None)
        return Device(
            index=index,
            uuid=uuid,
            vendor="nvidia",
            kind=DeviceType.CUDA,
            name=_text(self._ask(lambda: nvml.nvmlDeviceGetName(handle))),
            total_bytes=total,
            free_bytes=free,
            unified_memory=unified,
            compute_capability=(int(capability[0]), int(capability[1])) if capability else None,
            driver=driver,
        )

    def _slices(self, index: int, parent: Any, driver: str) -> list[Device]:
        """The MIG slices of a GPU; the parent's own figures would only show their sum."""
        nvml = self._opened
        enabled = self._ask_or(lambda: nvml.nvmlDeviceGetMigMode(parent)[0], 0)
        if not enabled:
            return []
        whole = self._device(index, parent, driver)
        slices = []
        for position in range(self._ask_or(lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(parent), 0)):
            handle = self._ask_or(partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, parent, position), None)
            if handle is None:
                continue
            uuid = _text(self._ask(partial(nvml.nvmlDeviceGetUUID, handle)))
            memory = self._ask(partial(nvml.nvmlDeviceGetMemoryInfo, handle))
            self._handles[uuid] = handle
            slices.append(
                Device(
                    index=index,
                    uuid=uuid,
                    vendor="nvidia",
                    kind=DeviceType.CUDA,
                    name=_text(self._ask_or(partial(nvml.nvmlDeviceGetName, handle), whole.name)),
                    total_bytes=int(memory.total),
                    free_bytes=int(memory.free),
                    compute_capability=whole.compute_capability,
                    driver=driver,
                    parent_uuid=whole.uuid,
                )
            )
        return slices


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _unified(machine: Machine) -> DeviceMemory:
    """The one pool of a unified-memory system: what the host may still take, the device may."""
    memory = host_memory(machine, {}, {})
    total, free = memory.usable_bytes, memory.available_bytes
    return DeviceMemory(total_bytes=total, used_bytes=max(0, total - free), free_bytes=free)
