"""GGUF → safetensors, so that one model entry serves every engine where no hub can be reached.

The transformers library's own reader does it (``workers/gguf_to_safetensors.py``, in the interpreter of a transformers
environment). The result lies beside the fetched weights under the checksum of its source, with the checksums of its
files; a whole one is used again by every study, a cut-off one is thrown away and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmopt.errors import StorageError, WeightsError
from llmopt.models.metadata import read_model
from llmopt.models.progress import Meter, ProgressCallback
from llmopt.models.weights import weights_cache
from llmopt.paths import ensure
from llmopt.runtime.environment import TELEMETRY_OFF

__all__ = ["convert", "converted", "source_digest"]

NOTE = "llmopt-conversion.json"
FORMAT = 1
"""Raised when the way of converting changes, so that older results are not taken for new ones."""
BYTES_A_WEIGHT = 2

POLL_S = 0.2
LAST_LINES = 12
_CHUNK = 1 << 20


def converted(gguf: Path, sha256: str | None = None) -> Path | None:
    """The folder made of ``gguf`` earlier, whole and unchanged; None where there is none."""
    folder = _folder(gguf, sha256)
    note = _read_note(folder)
    return folder if note is not None and _sizes(folder, note["files"]) == note["files"] else None


def convert(
    gguf: Path,
    *,
    python: str,
    sha256: str | None = None,
    progress: ProgressCallback | None = None,
    name: str = "",
) -> Path:
    """The safetensors folder of ``gguf``, made by ``python`` (an interpreter with transformers) where it is not there.

    ``sha256`` is that of the file where it was already seen. Raises WeightsError where the file cannot be converted and
    StorageError where the disk refuses; nothing half-made stays under the final name.
    """
    found = converted(gguf, sha256)
    if found is not None:
        return found
    final = _folder(gguf, sha256)
    ensure(final.parent)
    with _alone(final):
        found = converted(gguf, sha256)  # another process was faster
        if found is not None:
            return found
        partial = final.with_name(f"{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        _room_for(gguf, final.parent)
        try:
            versions = _run(gguf, partial, python, progress, name or gguf.name)
            read_model(partial)  # its headers are whole, or this raises
            _write_note(partial, gguf, sha256, versions)
            partial.replace(final)
        except OSError as error:
            raise StorageError("weights.unwritable", folder=final, reason=error.strerror or error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


def source_digest(folder: Path) -> str | None:
    """What the folder's weights are, for fingerprints: its source's checksum with the way of converting."""
    note = _read_note(folder)
    return None if note is None else f"{note['source_sha256']}+safetensors{note['format']}"


def _run(gguf: Path, target: Path, python: str, progress: ProgressCallback | None, name: str) -> dict[str, Any]:
    """Start the worker and follow its stages; the growing files show how far the writing is."""
    script = Path(__file__).resolve().parents[1] / "workers" / "gguf_to_safetensors.py"
    meter = Meter(progress, phase="convert", what=name, total_bytes=None)
    switches = {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", **TELEMETRY_OFF}
    env = {**os.environ, **switches}
    target.mkdir(parents=True)
    log = target / "conversion.log"
    with log.open("wb") as output, log.open(encoding="utf-8", errors="replace") as lines:
        child = subprocess.Popen(
            [python, str(script), str(gguf), str(target)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            while child.poll() is None:
                time.sleep(POLL_S)
                meter.reach(sum(file.stat().st_size for file in target.glob("*.safetensors")))
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
        told = [json.loads(line) for line in lines if line.startswith('{"stage"')]
    text = log.read_text(encoding="utf-8", errors="replace")
    if child.returncode != 0 or not told or told[-1]["stage"] != "done":
        raise _failed(gguf, text, child.returncode)
    log.unlink()
    return {key: value for key, value in told[-1].items() if key != "stage"}


def _failed(gguf: Path, text: str, code: int) -> WeightsError:
    lines = [line for line in text.splitlines() if line.strip()]
    reason = lines[-1][:300] if lines else f"exit {code}"
    return WeightsError("weights.conversion_failed", path=gguf, reason=reason, detail="\n".join(lines[-LAST_LINES:]))


def _folder(gguf: Path, sha256: str | None) -> Path:
    """Named by the file's checksum; without one by its path, size and time, which change when it does."""
    if sha256 is None:
        status = gguf.stat()
        seen = f"{gguf.resolve()} {status.st_size} {status.st_mtime_ns}"
        sha256 = hashlib.blake2b(seen.encode(), digest_size=16).hexdigest()
    return weights_cache() / "converted" / f"{gguf.stem}-{sha256[:16]}"


def _room_for(gguf: Path, folder: Path) -> None:
    parameters = read_model(gguf).parameters or gguf.stat().st_size * 2
    needed, free = parameters * BYTES_A_WEIGHT, shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError("weights.no_space", folder=folder, needed_mb=needed >> 20, free_mb=free >> 20)


def _write_note(folder: Path, gguf: Path, sha256: str | None, versions: dict[str, Any]) -> None:
    note = {
        "format": FORMAT,
        "source": str(gguf),
        "source_sha256": sha256 or _sha256(gguf),
        "versions": versions,
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "sha256": {path.name: _sha256(path) for path in sorted(folder.glob("*.safetensors"))},
    }
    (folder / NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")


def _read_note(folder: Path) -> dict[str, Any] | None:
    try:
        note: dict[str, Any] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if note.get("format") == FORMAT and isinstance(note.get("files"), dict) else None


def _sizes(folder: Path, names: dict[str, int]) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


@contextmanager
def _alone(final: Path) -> Iterator[None]:
    """One conversion of a file at a time; a second process waits and finds the result."""
    with final.with_name(f"{final.name}.lock").open("a+b") as file:
        if sys.platform != "win32":
            import fcntl  # noqa: PLC0415 - exists on POSIX only

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
