"""Questions to installed engines (their version, their build), asked once a process and with a short patience."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["ask", "ask_json", "child_python_environment", "worker"]

PASSED_ON = (
    *("PATH", "HOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "CUDA_VISIBLE_DEVICES"),
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "CONTAINER_HOST", "XDG_RUNTIME_DIR"),
)
"""What an engine needs to say its version, and a container tool to find its daemon; all else of ours stays here."""


def worker(script: str) -> Path:
    """The path of a stand-alone script of ``llmopt/workers``."""
    return Path(__file__).resolve().parents[1] / "workers" / script


def child_python_environment() -> dict[str, str]:
    """What a question's process gets of our environment."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed, "PYTHONSAFEPATH": "1", "LC_ALL": "C.UTF-8"}


@cache
def ask(*argv: str, timeout_s: float = 20.0) -> str | None:
    """What a command prints (both streams), or None where it is missing, fails or does not answer in time."""
    try:
        done = subprocess.run(
            argv,
            env=child_python_environment(),
            cwd=tempfile.gettempdir(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout + done.stderr).decode(errors="replace")


def ask_json(script: str, event: str) -> dict[str, Any] | None:
    """The JSON line named ``event`` that a worker prints when asked for ``--version``."""
    for line in (ask(sys.executable, str(worker(script)), "--version") or "").splitlines():
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
            if answer.get("event") == event:
                return answer
    return None
