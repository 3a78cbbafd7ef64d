"""The command line as a user has it: a process of its own, in a folder of its own."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from llmopt.cli.app import main
from llmopt.messages import set_language
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 240.0


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard output of a ``--json`` run that prints lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class CommandLine:
    """Runs ``main.py`` in ``folder`` with sockets and caches below ``runtime``; knows which processes are its own."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.folder = folder
        self.runtime = runtime
        self.started: list[subprocess.Popen[str]] = []

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Ours, with the workspace and everything that is kept redirected."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLMOPT_", "LC_", "LANG"))}
        weights = os.environ.get("LLMOPT_WEIGHTS_CACHE")
        ours = {
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_STATE_HOME": str(self.runtime),
            "LLMOPT_HOME": str(self.folder),
            "LLMOPT_LOCK_FILE": str(self.runtime / "measuring.lock"),
            "LLMOPT_WARMUP_CAP_S": "0.1",  # figures are not the subject of these tests
            "LANG": "C.UTF-8",
        }
        return {**kept, **ours, **({"LLMOPT_WEIGHTS_CACHE": weights} if weights else {}), **(extra or {})}

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command and return at once."""
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), *arguments],
            cwd=self.folder,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, patience_s: float = PATIENCE_S) -> Ran:
        """Run a command to its end."""
        process = self.start(*arguments, env=env)
        out, err = process.communicate(timeout=patience_s)
        return Ran(process.returncode, out, err)

    def left_behind(self) -> list[str]:
        """Command lines of living processes that belong to our runs."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(self.runtime) in word for word in words):
                found.append(" ".join(words)[:200])
        return found

    def wait_until_clean(self, patience_s: float = 20.0) -> None:
        """Wait until nothing of ours lives; fails naming what does."""
        assert until(lambda: not self.left_behind(), patience_s), self.left_behind()

    def close(self) -> None:
        """End what a failed test left running."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def cli(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("w")
    runtime = tmp_path_factory.mktemp("r")
    line = CommandLine(folder, runtime)
    yield line
    line.close()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes what the tests of a module share: they read its folder, or copy it to change it."""
    line = CommandLine(tmp_path_factory.mktemp("w"), tmp_path_factory.mktemp("r"))
    yield line
    line.close()


class Inline:
    """The same command line inside this process: for what starts no engine, and is asked often."""

    def __init__(self, folder: Path, runtime: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for name in [name for name in os.environ if name.startswith(("LLMOPT_", "LC_", "LANG"))]:
            patch.delenv(name)
        for name, value in {
            "XDG_RUNTIME_DIR": str(runtime),
            "LLMOPT_HOME": str(folder),
            "LLMOPT_LOCK_FILE": str(runtime / "measuring.lock"),
            "LLMOPT_WEIGHTS_CACHE": str(runtime / "weights"),
            "LANG": "C.UTF-8",
        }.items():
            patch.setenv(name, value)
        patch.chdir(folder)

    def run(self, *arguments: str, lang: str = "en", env: Mapping[str, str] | None = None) -> Ran:
        """Run a command to its end; anything but an exit code is a bug and is raised."""
        out, err = io.StringIO(), io.StringIO()
        logger = logging.getLogger("llmopt")
        before = list(logger.handlers), logger.level, logger.propagate
        with (
            mock.patch.dict(os.environ),  # a command may set variables for the engines it starts
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            for name, value in {"LLMOPT_LANG": lang, **(env or {})}.items():
                patch.setenv(name, value)
            try:
                code = main(arguments)
            finally:
                set_language(None)
                for handler in set(logger.handlers) - set(before[0]):
                    logger.removeHandler(handler)
                    handler.close()
                logger.level, logger.propagate = before[1:]
        return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture
def inside(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Inline:
    """In the workspace of ``cli``: to ask about what its processes made."""
    return Inline(cli.folder, cli.runtime, monkeypatch)


@pytest.fixture
def inline(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Inline:
    return Inline(tmp_path_factory.mktemp("w"), tmp_path_factory.mktemp("r"), monkeypatch)
