"""A machine kept as JSON: its files, environment and drivers' answers, so that any probe can be replayed elsewhere.

Fields: ``system``, ``architecture``, ``env``, ``affinity`` (``"0-7"``), ``disk_free``, ``files`` (path → text),
``denied`` (folders nobody may read), ``processor`` (a short form of ``/proc/cpuinfo``), ``sysctl``, ``psutil_memory``,
``nvml`` (``driver``, ``devices`` or ``error``). All but ``system`` and ``architecture`` may be left out.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["RecordedMachine", "recorded_nvml"]


class RecordedMachine:
    """Answers a probe's questions from a recording."""

    def __init__(self, recording: Mapping[str, Any]) -> None:
        self.system: str = recording["system"]
        self.architecture: str = recording["architecture"]
        self._recording = recording
        self._files: dict[str, str] = dict(recording.get("files", {}))
        if "processor" in recording:
            self._files["/proc/cpuinfo"] = _cpuinfo(recording["processor"])
        self._denied: tuple[str, ...] = tuple(recording.get("denied", ()))

    @classmethod
    def load(cls, path: Path) -> RecordedMachine:
        """The recording in a JSON file."""
        return cls(json.loads(path.read_text(encoding="utf-8")))

    @property
    def env(self) -> Mapping[str, str]:
        """The recorded environment."""
        env: Mapping[str, str] = self._recording.get("env", {})
        return env

    def text(self, path: str) -> str:
        """A recorded file."""
        if path.startswith(self._denied):
            raise PermissionError(13, "Permission denied", path)
        if path not in self._files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self._files[path]

    def names(self, folder: str) -> tuple[str, ...]:
        """The recorded names below a folder."""
        if folder.startswith(self._denied):
            raise PermissionError(13, "Permission denied", folder)
        prefix = folder.rstrip("/") + "/"
        found = {path[len(prefix) :].split("/")[0] for path in self._files if path.startswith(prefix)}
        if not found:
            raise FileNotFoundError(2, "No such file or directory", folder)
        return tuple(sorted(found))

    def affinity(self) -> frozenset[int] | None:
        """The recorded set of CPUs."""
        text = self._recording.get("affinity")
        return _cpu_set(text) if text else None

    def disk_free(self, path: str) -> int:
        """The recorded free space."""
        if "disk_free" not in self._recording:
            raise PermissionError(13, "Permission denied", path)
        return int(self._recording["disk_free"])

    def sysctl(self, name: str) -> str | int | None:
        """A recorded sysctl value."""
        value: str | int | None = self._recording.get("sysctl", {}).get(name)
        return value

    def psutil_memory(self) -> tuple[int, int, int, int]:
        """The recorded figures."""
        if "psutil_memory" not in self._recording:
            raise ImportError("psutil")
        total, available, swap_total, swap_free = self._recording["psutil_memory"]
        return total, available, swap_total, swap_free

    def library(self, name: str) -> Any:
        """The recorded driver library: only NVML is kept."""
        if name != "pynvml" or "nvml" not in self._recording:
            raise ImportError(name)
        return recorded_nvml(self._recording["nvml"])


def _cpu_set(text: str) -> frozenset[int]:
    cpus: set[int] = set()
    for part in text.split(","):
        low, _, high = part.partition("-")
        cpus |= set(range(int(low), int(high or low) + 1))
    return frozenset(cpus)


def _cpuinfo(processor: Mapping[str, Any]) -> str:
    """``/proc/cpuinfo`` as an x86 kernel prints it; threads of a core lie ``cores`` apart, as they do there."""
    cores, packages = processor["cores"], processor.get("packages", 1)
    lines = []
    for cpu in range(processor["threads"]):
        core = cpu % cores
        lines += [
            f"processor\t: {cpu}",
            f"model name\t: {processor['model']}",
            f"physical id\t: {core * packages // cores}",
            f"core id\t\t: {core}",
            f"flags\t\t: {processor['flags']}",
            "",
        ]
    return "\n".join(lines)


class _NvmlError(Exception):
    pass


class _Nvml:
    """A driver that answers from its recording; a handle is the recorded device itself."""

    def __init__(self, recording: Mapping[str, Any]) -> None:
        self.recording = recording
        self.devices: list[dict[str, Any]] = recording.get("devices", [])

    def init(self) -> None:
        if "error" in self.recording:
            raise _NvmlError(self.recording["error"])

    def by_uuid(self, uuid: str) -> dict[str, Any]:
        for device in self.devices:
            for each in (device, *device.get("mig", ())):
                if each["uuid"] == uuid:
                    return dict(each)
        raise _NvmlError("Not Found")


def _field(name: str) -> Any:
    def ask(handle: dict[str, Any]) -> Any:
        if name not in handle:
            raise _NvmlError("Not Supported")
        return handle[name]

    return ask


def _memory(handle: dict[str, Any], version: int | None = None) -> SimpleNamespace:
    if "total" not in handle:
        raise _NvmlError("Not Supported")
    used, reserved = handle.get("used", 0), handle.get("reserved", 0)
    free = handle["total"] - used - reserved
    if version is None:  # the first form counts what the driver reserves as used
        return SimpleNamespace(total=handle["total"], used=used + reserved, free=free)
    return SimpleNamespace(total=handle["total"], used=used, free=free, reserved=reserved)


def _processes(handle: dict[str, Any]) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in handle.get("processes", ())]


def _slice(handle: dict[str, Any], position: int) -> dict[str, Any]:
    slices: list[dict[str, Any]] = handle.get("mig", [])
    if position >= len(slices):
        raise _NvmlError("Not Found")
    return slices[position]


def _next_event(events: list[int], _timeout_ms: int) -> SimpleNamespace:
    if not events:
        raise _NvmlError("Timeout")
    return SimpleNamespace(eventData=events.pop(0))


def recorded_nvml(recording: Mapping[str, Any]) -> SimpleNamespace:
    """The part of the NVML binding that ``nvidia.py`` uses, answering from a recording."""
    driver = _Nvml(recording)
    return SimpleNamespace(
        NVMLError=_NvmlError,
        nvmlMemory_v2=2,
        nvmlInit=driver.init,
        nvmlSystemGetDriverVersion=lambda: recording["driver"],
        nvmlDeviceGetCount=lambda: len(driver.devices),
        nvmlDeviceGetHandleByIndex=driver.devices.__getitem__,
        nvmlDeviceGetHandleByUUID=driver.by_uuid,
        nvmlDeviceGetUUID=_field("uuid"),
        nvmlDeviceGetName=_field("name"),
        nvmlDeviceGetMemoryInfo=_memory,
        nvmlDeviceGetCudaComputeCapability=_field("capability"),
        nvmlDeviceGetMigMode=lambda handle: (int("mig" in handle), int("mig" in handle)),
        nvmlDeviceGetMaxMigDeviceCount=lambda _handle: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=_slice,
        nvmlDeviceGetComputeRunningProcesses=_processes,
        nvmlDeviceGetGraphicsRunningProcesses=lambda _handle: [],
        nvmlDeviceGetMPSComputeRunningProcesses=_field("mps_processes"),
        nvmlEventTypeXidCriticalError=8,
        nvmlEventSetCreate=list,
        nvmlDeviceRegisterEvents=lambda handle, _kind, events: events.extend(handle.get("xids", ())),
        nvmlEventSetWait_v2=_next_event,
    )
