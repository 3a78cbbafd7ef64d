"""Where things are kept: the workspace of a project, and the machine-wide state folder. Nothing is made at import."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MARKER", "Workspace", "ensure", "runtime_folder", "state_folder", "write_whole"]


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The folders of one project, below ``root``; each is made when first asked for with ``ensure``."""

    root: Path

    @classmethod
    def here(cls) -> Workspace:
        """The workspace named by ``LLMOPT_HOME``, else the current folder."""
        return cls(root=Path(os.environ.get("LLMOPT_HOME") or Path.cwd()).resolve())

    @property
    def data(self) -> Path:
        """Generated and fetched datasets."""
        return self.root / "data"

    @property
    def results(self) -> Path:
        """One folder a study, and the database."""
        return self.root / "optimization_results"

    @property
    def database(self) -> Path:
        """The SQLite file that is the only truth about trials."""
        return self.results / "llmopt.db"

    @property
    def logs(self) -> Path:
        """Our own JSON-lines logs and the engines' logs."""
        return self.root / "logs"

    @property
    def cache(self) -> Path:
        """Weights, cached answers and calibration of this machine."""
        return self.root / ".cache"

    @property
    def settings_file(self) -> Path:
        """What ``init`` writes and the user edits."""
        return self.root / "config" / "settings.json"

    @property
    def models_file(self) -> Path:
        """The user's overlay of the model catalogue."""
        return self.root / "config" / "models.json"


MARKER = ".llmopt"
"""A file of this name marks a folder as made by this tool: ``clean`` removes only what is below such a mark."""


def ensure(folder: Path) -> Path:
    """Make ``folder`` (marked as ours when it did not exist) and return it; raises OSError as the system gives it."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).touch()
    return folder


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` as it is, so that ``path`` is the old file or the new one at any moment; raises OSError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # whatever ended it, no half file stays
        part.unlink(missing_ok=True)
        raise


def state_folder() -> Path:
    """What is known about this machine and outlives any project (calibration); not made here."""
    base = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".local" / "state") / "llmopt"


def runtime_folder() -> Path:
    """A private folder (mode 0700) for sockets and run files; short, because a Unix socket path holds 107 bytes."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    uid = os.getuid() if hasattr(os, "getuid") else 0
    parent = Path(base) if base and Path(base).is_dir() and os.access(base, os.W_OK) else Path(tempfile.gettempdir())
    folder = parent / f"llmopt-{uid}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
