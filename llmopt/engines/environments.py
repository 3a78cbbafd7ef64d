"""An environment of its own for a heavy engine: pinned packages, installed step by step, checked before it counts.

The environment lies in the workspace (see ``locate.environment_folder``) or where the user says. Finished steps are
noted in it, so that an interrupted installation goes on where it stopped; pip keeps what it has downloaded itself.
Packages that were being unpacked when it stopped are removed: pip takes what lies there for whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from llmopt.engines.accelerators import gpus
from llmopt.engines.locate import NOTE, environment_folder, environment_note, python_in
from llmopt.errors import EngineError, StorageError, UsageError, WeightsError
from llmopt.paths import MARKER, ensure
from llmopt.records import Hardware, digest

__all__ = ["Recipe", "Step", "install", "installable", "recipe_for"]

LOCK = ".lock"
GB = 10**9
POLL_S = 0.2
TELL_S = 1.0
LAST_LINES = 12
UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectionError|ConnectTimeout|ReadTimeout|Name or service not known|"
    r"Temporary failure in name resolution|Network is unreachable|ProxyError|SSLError|CERTIFICATE_VERIFY_FAILED|"
    r"Could not fetch URL",
    re.IGNORECASE,
)
NOT_OFFERED = re.compile(r"No matching distribution|Could not find a version", re.IGNORECASE)

StepName = Literal["make", "fetch", "unpack", "remove", "check", "ready"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an engine's environment is made of; ``remove`` are packages whose builds do not fit the others."""

    engine: str
    name: str
    version: str
    packages: tuple[str, ...]
    module: str
    disk_gb: float
    remove: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The same for environments that need not be made again."""
        return digest([self.name, self.packages, self.remove])


@dataclass(frozen=True, kw_only=True)
class Step:
    """One report of progress: what is done now, the package it concerns, packages so far, seconds since the start."""

    name: StepName
    what: str
    packages: int
    seconds: float


Progress = Callable[[Step], None]


@cache
def _recipes() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("recipes.json").read_text(encoding="utf-8"))
    return dict(found["recipes"])


def installable() -> tuple[str, ...]:
    """The engines that can be installed."""
    return tuple(name for name in _recipes() if not name.endswith("-cpu"))


def recipe_for(engine: str, hardware: Hardware) -> Recipe:
    """What suits this machine: the CPU build where there is no GPU. Raises UsageError for an engine without recipe."""
    if engine not in installable():
        raise UsageError("environments.no_recipe", name=engine, known=", ".join(installable()))
    name = engine if gpus(hardware) or f"{engine}-cpu" not in _recipes() else f"{engine}-cpu"
    raw: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in _recipes()[name].items()}
    recipe = Recipe(engine=engine, name=name, **raw)
    if recipe.systems and hardware.system and not any(hardware.system.startswith(one) for one in recipe.systems):
        raise EngineError("environments.other_system", name=name, systems=", ".join(recipe.systems))
    return recipe


def install(
    recipe: Recipe,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    now_s: Callable[[], float] = time.monotonic,
) -> Path:
    """Make (or finish) the environment and return its interpreter.

    Raises WeightsError where the package index cannot be reached, StorageError where disk or permissions forbid it,
    EngineError where packages cannot be installed or the engine does not start in the finished environment.
    """
    folder = (folder or environment_folder(recipe.engine)).expanduser().resolve()
    _begin(folder, recipe)
    with _alone(folder):
        work = _Installation(folder, recipe, progress or (lambda _: None), now_s)
        return work.run()


class _Installation:
    def __init__(self, folder: Path, recipe: Recipe, progress: Progress, now_s: Callable[[], float]) -> None:
        self._folder = folder
        self._recipe = recipe
        self._progress = progress
        self._now_s = now_s
        self._began_s = now_s()
        self._packages = 0

    def run(self) -> Path:
        half = environment_note(self._folder).get("unpacking")
        done = () if half else _done(self._folder, self._recipe)
        _note(self._folder, self._recipe, done)
        steps: tuple[tuple[StepName, Callable[[], None]], ...] = (
            ("make", self._make),
            ("fetch", self._fetch),
            *((("remove", self._remove),) if self._recipe.remove else ()),
            ("check", self._check),
        )
        for name, step in steps:
            if name in done:
                continue
            self._tell(name, self._recipe.name)
            step()
            done = (*done, name)
            _note(self._folder, self._recipe, done)
        self._tell("ready", self._recipe.name)
        return self._python

    @property
    def _python(self) -> Path:
        found = python_in(self._folder)
        if found is None:
            raise StorageError("environments.no_python", folder=self._folder)
        return Path(found)

    def _make(self) -> None:
        try:
            self._clear()
            venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt", clear=False).create(self._folder)
        except OSError as error:
            raise StorageError(
                "environments.unwritable", folder=self._folder, reason=error.strerror or error
            ) from error
        except subprocess.CalledProcessError as error:  # a Python without ensurepip, as some distributions ship it
            raise EngineError("environments.no_venv", python=sys.executable, detail=_tail(error.output)) from error

    def _fetch(self) -> None:
        try:
            self._pip("install", "--progress-bar", "off", "--prefer-binary", *self._recipe.packages)
        except BaseException:
            if environment_note(self._folder).get("unpacking"):
                self._clear()
                _note(self._folder, self._recipe, ())
            raise

    def _clear(self) -> None:
        """Remove the packages and the interpreter, so that nothing half unpacked is ever taken for whole."""
        for entry in self._folder.iterdir():
            if entry.name in (NOTE, MARKER, LOCK) or entry.suffix == ".log":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def _remove(self) -> None:
        self._pip("uninstall", "--yes", *self._recipe.remove)

    def _check(self) -> None:
        """The engine's own package must load: wrong builds show here, not in the middle of a study."""
        code = f"import {self._recipe.module}"
        log = self._folder / "check.log"
        if self._watched([str(self._python), "-c", code], log, lambda _: None) != 0:
            text = log.read_text(encoding="utf-8", errors="replace")
            from llmopt.failures import classify  # noqa: PLC0415 - reads its catalogue; only needed here

            failure = classify(text, engine=self._recipe.engine)
            why = f"{failure.what} {failure.why}" if failure.known else _last(text)
            raise EngineError("environments.does_not_load", name=self._recipe.name, reason=why, detail=_tail(text))

    def _pip(self, *arguments: str) -> None:
        """Run the environment's own pip; it keeps the user's index, proxies and certificates."""
        log = self._folder / "pip.log"
        argv = [str(self._python), "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
        if self._watched(argv, log, self._read) != 0:
            raise _pip_error(log.read_text(encoding="utf-8", errors="replace"), self._recipe)

    def _read(self, line: str) -> None:
        """Turn a line of pip into progress."""
        words = line.split()
        if line.startswith(("Collecting ", "Processing ")):
            self._packages += 1
            self._tell("fetch", words[1].rpartition("/")[2])
        elif line.lstrip().startswith("Downloading "):
            self._tell("fetch", " ".join(words[1:]).rpartition("/")[2])
        elif line.startswith("Installing collected packages"):
            _note(self._folder, self._recipe, ("make",), unpacking=True)
            self._tell("unpack", str(self._packages))

    def _watched(self, argv: list[str], log: Path, on_line: Callable[[str], None]) -> int:
        """Run ``argv`` with its output in ``log``, every new line handed on; an exception ends the child."""
        env = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as output, log.open(encoding="utf-8", errors="replace") as lines:
            child = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            try:
                while True:
                    for line in lines:
                        on_line(line.rstrip())
                    try:
                        code = child.wait(POLL_S)
                    except subprocess.TimeoutExpired:
                        continue
                    for line in lines:
                        on_line(line.rstrip())
                    return code
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()

    def _tell(self, name: StepName, what: str) -> None:
        seconds = self._now_s() - self._began_s
        self._progress(Step(name=name, what=what, packages=self._packages, seconds=seconds))


# ── the folder ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _begin(folder: Path, recipe: Recipe) -> None:
    """Refuse a folder that is somebody else's, and a disk that is too small."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / NOTE).is_file():
        raise UsageError("environments.foreign_folder", folder=folder)
    try:
        ensure(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StorageError("environments.unwritable", folder=folder, reason=error.strerror or error) from error
    if not (folder / NOTE).is_file():
        _note(folder, recipe, ())
    if free < recipe.disk_gb * GB and "fetch" not in _done(folder, recipe):
        raise StorageError("environments.no_space", folder=folder, needed=recipe.disk_gb, free=round(free / GB, 1))


def _done(folder: Path, recipe: Recipe) -> tuple[str, ...]:
    """The steps that were finished for this very recipe; of another one only the bare environment counts."""
    note = environment_note(folder)
    done = tuple(str(step) for step in note.get("done", ()))
    return done if note.get("key") == recipe.key else tuple(step for step in done if step == "make")


def _note(folder: Path, recipe: Recipe, done: tuple[str, ...], *, unpacking: bool = False) -> None:
    part = folder / f"{NOTE}.part"
    note = {
        "engine": recipe.engine,
        "recipe": recipe.name,
        "key": recipe.key,
        "packages": recipe.packages,
        "done": done,
        "unpacking": unpacking,
    }
    try:
        part.write_text(json.dumps(note, indent=1), encoding="utf-8")
        part.replace(folder / NOTE)
    except OSError as error:
        raise StorageError("environments.unwritable", folder=folder, reason=error.strerror or error) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One installation a folder: another one is refused with an explanation, not waited for."""
    with (folder / LOCK).open("a+b") as file:
        if sys.platform == "win32":
            yield
            return
        import fcntl  # noqa: PLC0415 - exists on POSIX only

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError("environments.busy", folder=folder) from None
        yield


# ── saying what went wrong ─────────────────────────────────────────────────────────────────────────────────────────


def _pip_error(text: str, recipe: Recipe) -> EngineError | WeightsError | StorageError:
    if "No space left on device" in text:
        return StorageError("environments.disk_full", name=recipe.name, detail=_tail(text))
    if UNREACHABLE.search(text):
        return WeightsError("environments.unreachable", name=recipe.name, detail=_tail(text))
    if NOT_OFFERED.search(text):
        version = ".".join(str(part) for part in sys.version_info[:2])
        return EngineError("environments.not_offered", name=recipe.name, python=version, detail=_tail(text))
    return EngineError("environments.pip_failed", name=recipe.name, reason=_last(text), detail=_tail(text))


def _last(text: str) -> str:
    """The last line that says something, credentials masked."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["-"]
    return re.sub(r"//[^/@\s]*@", "//***@", errors[-1].removeprefix("ERROR: ")[:300])


def _tail(text: str | bytes | None) -> str:
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    return re.sub(r"//[^/@\s]*@", "//***@", "\n".join(shown.splitlines()[-LAST_LINES:]))
