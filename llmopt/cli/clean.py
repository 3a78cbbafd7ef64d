"""``llmopt clean``: frees memory and removes what this tool made, after showing what and how much."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from llmopt.cli.options import Output, debug_option, json_option, lang_option, option
from llmopt.cli.tables import table
from llmopt.errors import StorageError, UsageError
from llmopt.messages import t
from llmopt.paths import MARKER, Workspace
from llmopt.report.words import size

__all__ = ["Plan", "command", "plan"]

KINDS = ("cache", "results", "logs")
ENGINES = "engines"
_GENERATED = re.compile(r"[a-z0-9_]+\.[0-9a-f]+\.seed\d+\.n\d+\.jsonl|rows-[0-9a-f]+\.jsonl|hub")
_DATABASE = re.compile(r"llmopt\.db(?:-wal|-shm|-journal)?")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file or folder of our making, all of whose content goes."""

    kind: str
    path: Path
    bytes: int


@dataclass(kw_only=True)
class Plan:
    """What would go, and what is left with the reason (a message key)."""

    items: list[Found] = field(default_factory=list)
    left: list[tuple[Path, str]] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    """Marked folders that go too once nothing but their mark is in them."""

    @property
    def bytes(self) -> int:
        """How much disk the items take."""
        return sum(item.bytes for item in self.items)


def plan(workspace: Workspace, kinds: tuple[str, ...]) -> Plan:
    """Look, and touch nothing: only what lies below a marked folder, and no symbolic link is followed."""
    found = Plan()
    if "cache" in kinds:
        _marked(found, "cache", workspace.cache, keep={ENGINES: "clean.why_engines"})
        _marked(found, "cache", workspace.data, only=_GENERATED)
        _weights(found)
    if "results" in kinds:
        _results(found, workspace.results)
    if "logs" in kinds:
        _marked(found, "logs", workspace.logs)
    return found


def _is_link(path: Path) -> bool:
    return path.is_symlink() or getattr(path, "is_junction", bool)()


def _usable(found: Plan, folder: Path) -> bool:
    """Whether ``folder`` is a real folder with our mark; otherwise, where it exists, it is noted as left."""
    if _is_link(folder):
        found.left.append((folder, "clean.why_link"))
    elif folder.is_dir():
        mark = folder / MARKER
        if mark.is_file() and not mark.is_symlink():
            found.roots.append(folder)
            return True
        found.left.append((folder, "clean.why_unmarked"))
    return False


def _marked(
    found: Plan, kind: str, folder: Path, *, only: re.Pattern[str] | None = None, keep: dict[str, str] | None = None
) -> None:
    if not _usable(found, folder):
        return
    for child in sorted(folder.iterdir()):
        if child.name == MARKER:
            continue
        why = (keep or {}).get(child.name)
        if why is None and only is not None and not only.fullmatch(child.name):
            why = "clean.why_foreign"
        _take(found, kind, child, why)


def _take(found: Plan, kind: str, path: Path, why: str | None = None) -> None:
    if why is None and _is_link(path):
        why = "clean.why_link"
    if why is None:
        found.items.append(Found(kind=kind, path=path, bytes=_bytes(path)))
    else:
        found.left.append((path, why))


def _results(found: Plan, folder: Path) -> None:
    """Studies' folders bear their own mark; the database is ours where the folder is."""
    ours = _usable(found, folder)
    if _is_link(folder) or not folder.is_dir():
        return
    for child in sorted(folder.iterdir()):
        if child.name == MARKER:
            continue
        if child.is_dir() and not _is_link(child):
            marked = (child / MARKER).is_file() and not (child / MARKER).is_symlink()
            _take(found, "results", child, None if marked else "clean.why_unmarked")
        elif ours:
            _take(found, "results", child, None if _DATABASE.fullmatch(child.name) else "clean.why_foreign")


def _weights(found: Plan) -> None:
    """Files of the user's cache that we assembled from the package index; others were put there by hand."""
    from llmopt.models.catalogue import built_in_models
    from llmopt.models.weights import weights_cache

    folder = weights_cache()
    files = {Path(e.gguf.files[0]).name for e in built_in_models().values() if e.packages and e.gguf}
    names = [re.escape(name) + r"(?:\.partial|\.lock)?" for name in sorted(files)]
    _marked(found, "cache", folder, only=re.compile("|".join([*names, "verified", r"fetch-.*"])))


def _bytes(path: Path) -> int:
    if not path.is_dir():
        return path.lstat().st_size
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total


def _remove(path: Path) -> Iterator[tuple[Path, str]]:
    """Remove ``path`` without following links, also not ones that appear meanwhile; yields what had to stay."""
    if _is_link(path):
        yield path, t("clean.why_link")
        return
    if not path.is_dir():
        yield from _attempt(path, path.unlink)
        return
    for child in sorted(path.iterdir()):
        yield from _remove(child)
    with suppress(OSError):  # something stayed inside, and was named above
        path.rmdir()


def _attempt(path: Path, call: Any) -> Iterator[tuple[Path, str]]:
    try:
        call()
    except FileNotFoundError:
        return
    except OSError as error:
        yield path, t("clean.why_failed", why=error.strerror or str(error))


def _require_idle(workspace: Workspace) -> None:
    """Raise where a run measures on this machine or a living process works on a study of this workspace."""
    from llmopt.runtime.locks import MachineBusy, current_holder

    holder = current_holder()
    if holder is not None:
        raise MachineBusy(holder)
    _require_no_study(workspace)


def _require_no_study(workspace: Workspace) -> None:
    """A broken database is held by nobody, and being rid of it may be why this was called."""
    from llmopt.store.database import Store

    if workspace.database.is_file():
        with suppress(StorageError), Store.open(workspace.database, read_only=True) as store:
            for study, pid in store.held():
                raise UsageError("clean.busy", study=study, pid=pid)


@click.command("clean", help=t("cli.clean.long"), short_help=t("cli.clean.short"))
@option("--all", "everything", key="clean.all", is_flag=True)
@option("--cache", key="clean.cache", is_flag=True)
@option("--results", key="clean.results", is_flag=True)
@option("--logs", key="clean.logs", is_flag=True)
@option("--yes", "-y", key="opt.yes", is_flag=True)
@json_option
@debug_option
@lang_option
def command(*, everything: bool, cache: bool, results: bool, logs: bool, yes: bool, as_json: bool, debug: bool) -> None:
    """Show, ask, remove, free."""
    del debug
    chosen = dict(zip(KINDS, (cache, results, logs), strict=True))
    kinds = tuple(kind for kind in KINDS if everything or chosen[kind])
    if not kinds:
        raise UsageError("clean.nothing_chosen")
    workspace, output = Workspace.here(), Output(as_json=as_json)
    _require_idle(workspace)
    found = plan(workspace, kinds)
    _show(output, found, workspace.root)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("clean.no_terminal")
        if not click.confirm(t("clean.ask"), default=False, err=as_json):
            output.say(t("clean.cancelled"))
            output.data(_facts(found, removed=[], stayed=[], orphans=[]))
            return
    _carry_out(output, workspace, found)


def _near(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _show(output: Output, found: Plan, root: Path) -> None:
    if found.items:
        rows = [[t(f"clean.kind_{item.kind}"), _near(item.path, root), size(item.bytes)] for item in found.items]
        output.say(table([t(f"clean.column_{name}") for name in ("kind", "path", "size")], rows))
        output.say(t("clean.total", count=len(found.items), size=size(found.bytes)))
    else:
        output.say(t("clean.nothing"))
    for path, why in found.left:
        output.say(t("clean.left", path=_near(path, root), why=t(why)))
    output.say(t("clean.also"))


def _carry_out(output: Output, workspace: Workspace, found: Plan) -> None:
    """Remove under the machine's lock, so that no study starts meanwhile."""
    from llmopt.hardware.memory import get_resource_manager
    from llmopt.runtime.locks import measuring_lock

    with measuring_lock("clean"):
        _require_no_study(workspace)  # one may have begun while the question was on the screen
        orphans, strangers = _sweep()
        stayed = [left for item in found.items for left in _remove(item.path)]
        for root in found.roots:
            _remove_empty(root)
        memory = get_resource_manager().cleanup_all_devices()
    removed = [item for item in found.items if not os.path.lexists(item.path)]
    for path, why in stayed:
        output.say(t("clean.left", path=path, why=why))
    for pid, program in strangers:
        output.say(t("clean.stranger", pid=pid, command=program))
    freed = found.bytes - sum(_bytes(item.path) for item in found.items if item not in removed)
    free = size(memory.host.available_bytes)
    output.say(t("clean.done", count=len(removed), size=size(freed), orphans=len(orphans), free=free))
    output.data(_facts(found, removed=removed, stayed=stayed, orphans=orphans))


def _sweep() -> tuple[list[int], list[tuple[int, str]]]:
    if sys.platform == "win32":  # engines end with their job object there: nothing can be orphaned
        return [], []
    from llmopt.runtime.guardian import sweep_orphans

    swept = sweep_orphans()
    return list(swept.removed), list(swept.strangers)


def _remove_empty(root: Path) -> None:
    """Take a marked folder away when only its mark is left."""
    with suppress(OSError):
        if [child.name for child in root.iterdir()] == [MARKER]:
            (root / MARKER).unlink()
            root.rmdir()


def _facts(found: Plan, *, removed: list[Found], stayed: list[tuple[Path, str]], orphans: list[int]) -> dict[str, Any]:
    rows = [{"kind": i.kind, "path": str(i.path), "bytes": i.bytes, "removed": i in removed} for i in found.items]
    left = [{"path": str(path), "why": t(why)} for path, why in found.left]
    left += [{"path": str(path), "why": why} for path, why in stayed]
    return {"items": rows, "left": left, "orphans": orphans, "bytes": found.bytes}
