"""Published benchmarks by name: ``kmmlu``, ``kobest/copa``, ``hrm8k:FILE`` - from the hub or from files at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llmopt.errors import DataError
from llmopt.paths import Workspace
from llmopt.records import Item
from llmopt.workload.adapters.base import Adapter, Cells
from llmopt.workload.adapters.benchmarks import ADAPTERS
from llmopt.workload.adapters.hub import choose_files, fetch_split
from llmopt.workload.columns import near
from llmopt.workload.files import SUFFIXES, read_rows
from llmopt.workload.splits import assign_splits, draw

__all__ = ["ADAPTERS", "Benchmark", "load_benchmark", "named_benchmark"]

_EXAMPLE_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a name asks for: an adapter, one of its subsets, and the user's files (None: from the hub)."""

    adapter: Adapter
    subset: str
    path: Path | None

    @property
    def name(self) -> str:
        """As the user wrote it, without the path."""
        return f"{self.adapter.name}/{self.subset}" if self.subset else self.adapter.name


def named_benchmark(source: str) -> Benchmark | None:
    """Read ``NAME[/SUBSET][:PATH]``; None where the name is no benchmark's. Raises DataError for an unknown subset."""
    head, _, path = source.partition(":")
    name, _, subset = head.partition("/")
    adapter = ADAPTERS.get(name)
    if adapter is None:
        return None
    known = {one.casefold(): one for one in adapter.subsets}
    if subset and known and subset.casefold() not in known and not adapter.any_subset:
        raise DataError(
            "data.subset", name=name, subset=subset, near=near(subset, known), known=", ".join(adapter.subsets)
        )
    subset = known.get(subset.casefold(), subset) if subset else (adapter.subsets[0] if adapter.subsets else "")
    return Benchmark(adapter=adapter, subset=subset, path=Path(path).expanduser() if path else None)


def load_benchmark(
    benchmark: Benchmark, *, workspace: Workspace, seed: int, size: int | None
) -> tuple[tuple[Item, ...], tuple[tuple[str, Mapping[str, Any]], ...]]:
    """Items with their splits, and the notes to show: the protocol, and rows that could not be asked."""
    adapter = benchmark.adapter
    rows = list(_items(benchmark, adapter.test_split, workspace))
    usable = [(item.id, item) for item in rows if item is not None]
    if not usable:
        raise DataError("data.empty", path=benchmark.path or adapter.hub)
    wanted = min(len(usable), size or len(usable))
    drawn = [item for _, item in list(draw(usable, wanted, seed))[:wanted]]
    order = {name: place for place, (name, _) in enumerate(usable)}
    drawn.sort(key=lambda item: order[item.id])
    shown = _shown(benchmark, workspace)
    items = (*assign_splits(drawn, examples=not shown), *shown)
    notes: list[tuple[str, Mapping[str, Any]]] = [
        ("data.protocol", {"name": benchmark.name, **asdict(adapter.protocol)}),
    ]
    if len(usable) < len(rows):
        notes.append(("data.not_askable", {"count": len(rows) - len(usable)}))
    return items, tuple(notes)


def _shown(benchmark: Benchmark, workspace: Workspace) -> tuple[Item, ...]:
    """Worked examples from the benchmark's own split for them; none where the user's files have no such split."""
    adapter = benchmark.adapter
    if not adapter.shown_split:
        return ()
    if benchmark.path is not None and not _local_files(benchmark.path, adapter.shown_split, strict=True):
        return ()
    found = (item for item in _items(benchmark, adapter.shown_split, workspace) if item is not None)
    few = [item for _, item in zip(range(_EXAMPLE_ROWS), found, strict=False)]
    return tuple(
        replace(item, id=f"shown-{item.id}", split="examples") for item in few[: max(5, adapter.protocol.shots)]
    )


def _items(benchmark: Benchmark, split: str, workspace: Workspace) -> Iterator[Item | None]:
    adapter = benchmark.adapter
    if benchmark.path is None:
        paths: Sequence[Path] = fetch_split(adapter, benchmark.subset, split, workspace=workspace)
    else:
        paths = _local_files(benchmark.path, split, strict=False)
    number = 0
    for path in paths:
        for row in read_rows(path):
            for values in adapter.expand(row.values) if adapter.expand else (row.values,):
                number += 1
                yield adapter.read(Cells(values, source=str(path), number=number), benchmark.subset)


def _local_files(path: Path, split: str, *, strict: bool) -> list[Path]:
    """The user's file, or the files of a folder that belong to a split (all of them where none is named after it)."""
    if path.is_file():
        return [] if strict else [path]
    found = sorted(p for p in path.glob("**/*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else []
    if not found:
        raise DataError("data.no_file", path=path)
    names = choose_files([str(p.relative_to(path)) for p in found], "", split)
    return [path / name for name in names] or ([] if strict else found)
