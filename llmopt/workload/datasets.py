"""Datasets by name, by path or from plain rows; generated ones are written into the workspace on first use."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from llmopt.errors import DataError
from llmopt.paths import Workspace, ensure, write_whole
from llmopt.records import Dataset, Item, digest
from llmopt.workload.adapters import ADAPTERS, load_benchmark, named_benchmark
from llmopt.workload.columns import guess_columns, near
from llmopt.workload.files import SUFFIXES, Row, read_rows
from llmopt.workload.lm_eval_tasks import load_task, named_task
from llmopt.workload.splits import rank
from llmopt.workload.user_data import Reading, items_from_rows

__all__ = [
    "GENERATED",
    "ColumnView",
    "dataset_names",
    "load_dataset",
    "read_generated",
    "subset",
    "view_columns",
    "write_generated",
]

_SCHEMA_VERSION = 1
_HANGUL_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class _Generator:
    module: str
    function: str
    size: int
    arguments: Mapping[str, Any]


GENERATED: Mapping[str, _Generator] = {
    "korean_math": _Generator(module="llmopt.workload.korean_math", function="generate", size=200, arguments={}),
    "korean_math_easy": _Generator(
        module="llmopt.workload.korean_math", function="generate", size=60, arguments={"levels": (1,)}
    ),
    **{
        f"korean_qa{suffix}": _Generator(
            module="llmopt.workload.korean_qa", function="generate", size=200, arguments={"levels": levels}
        )
        for suffix, levels in {"": (1,), "_1k": (2,), "_4k": (3,), "_16k": (4,), "_all": (1, 2, 3, 4)}.items()
    },
    "korean_knowledge": _Generator(
        module="llmopt.workload.korean_qa.knowledge", function="generate", size=100, arguments={}
    ),
}
"""Built-in generated sets; the suffix of korean_qa is the passage length in tokens (none: about 256)."""


def dataset_names() -> tuple[str, ...]:
    """Every name ``load_dataset`` knows without a path: generated sets, then published benchmarks."""
    return (*GENERATED, *ADAPTERS)


def load_dataset(
    source: str | Path | Iterable[Mapping[str, Any]],
    *,
    workspace: Workspace,
    seed: int = 0,
    size: int | None = None,
    columns: Mapping[str, str] | None = None,
    kind: str | None = None,
    examples: str | Path | Iterable[Mapping[str, Any]] | None = None,
    encoding: str | None = None,
) -> Dataset:
    """A dataset ready to measure with: its items are split, numbered by cluster and fingerprinted.

    ``source`` is a name, a path or rows. ``size`` limits the items drawn (by ``seed``); ``columns`` maps our fields to
    the user's columns, ``kind`` names the scorer where the file's own columns do not tell, ``examples`` brings worked
    examples for the prompts. Raises DataError in one clear sentence for whatever cannot be used.
    """
    if size is not None and size < 1:
        raise DataError("data.size", size=size)
    reading = Reading(seed=seed, size=size, columns=columns, kind=kind, encoding=encoding, examples=examples is None)
    if isinstance(source, str) and source in GENERATED:
        dataset = _generated(source, workspace, seed, size)
    elif isinstance(source, str) and (task := named_task(source)) is not None:
        items, notes = load_task(*task, seed=seed, size=size)
        dataset = _dataset(source, items, source=source, notes=notes)
    elif isinstance(source, str) and (benchmark := named_benchmark(source)) is not None:
        items, notes = load_benchmark(benchmark, workspace=workspace, seed=seed, size=size)
        language = benchmark.adapter.language
        dataset = _dataset(benchmark.name, items, source=source, language=language, notes=notes)
    else:
        dataset = _from_user(source, workspace, reading)
    if examples is None:
        return dataset
    shown = _from_user(examples, workspace, Reading(kind=kind or dataset.items[0].kind, examples=False))
    given = tuple(replace(item, split="examples") for item in shown.items)
    kept = tuple(item for item in dataset.items if item.split != "examples")
    return _dataset(dataset.name, kept + given, source=dataset.source, notes=dataset.notes)


@dataclass(frozen=True, kw_only=True)
class ColumnView:
    """A data file before it is loaded: its columns, what they were taken for, and its first rows."""

    columns: tuple[str, ...]
    guessed: Mapping[str, str]
    rows: tuple[Mapping[str, Any], ...]


def view_columns(source: str | Path, *, workspace: Workspace, encoding: str | None = None, rows: int = 3) -> ColumnView:
    """What a person needs to see to say which column is the question; raises DataError where it cannot be read."""
    path = _find(source, workspace)
    with closing(read_rows(path, encoding=encoding)) as records:
        first = tuple(row.values for row in itertools.islice(records, rows))
    if not first:
        raise DataError("data.empty", path=path)
    columns = tuple(first[0])
    return ColumnView(columns=columns, guessed=guess_columns(columns), rows=first)


def subset(dataset: Dataset, split: str, size: int, *, seed: int = 0) -> tuple[Item, ...]:
    """A seeded draw of ``size`` items of one split, spread evenly over clusters; the same for every trial."""
    items = sorted(dataset.split(split), key=lambda item: rank("subset", seed, item.id))
    seen: dict[str, int] = {}
    order: list[tuple[int, int, Item]] = []
    for place, item in enumerate(items):
        unit = item.cluster or item.id
        seen[unit] = seen.get(unit, 0) + 1
        order.append((seen[unit], place, item))
    order.sort(key=lambda entry: entry[:2])
    return tuple(item for _, _, item in order[:size])


def _generated(name: str, workspace: Workspace, seed: int, size: int | None) -> Dataset:
    generator = GENERATED[name]
    count = size or generator.size
    module = import_module(generator.module)
    version = str(module.SET_VERSION)
    path = workspace.data / f"{name}.{version.rpartition('-')[2]}.seed{seed}.n{count}.jsonl"
    if path.is_file():
        items = read_generated(path)
    else:
        generate: Callable[..., tuple[Item, ...]] = getattr(module, generator.function)
        items = generate(count, seed, **generator.arguments)
        ensure(workspace.data)
        write_generated(path, items, name=name, version=version, seed=seed)
    return _dataset(name, items, source=str(path), language="ko")


def write_generated(path: Path, items: Sequence[Item], *, name: str, version: str, seed: int) -> None:
    """Write a header line and one line an item, whole or not at all; byte-identical for the same arguments."""
    canary = uuid.UUID(digest([name, version, seed], size=16))
    header = {
        "llmopt_dataset": name,
        "schema_version": _SCHEMA_VERSION,
        "version": version,
        "seed": seed,
        "items": len(items),
        "canary": f"llmopt benchmark data, not for training, canary GUID {canary}",
    }
    lines = [header, *(asdict(item) for item in items)]
    text = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines)
    write_whole(path, text)


def read_generated(path: Path) -> tuple[Item, ...]:
    """The items of a file made by ``write_generated``; raises DataError where the file was cut or changed shape."""
    rows = list(read_rows(path, encoding="utf-8"))
    header = rows[0].values
    if header.get("schema_version") != _SCHEMA_VERSION:
        raise DataError("data.generated_damaged", path=path)
    try:
        items = tuple(map(_item, rows[1:]))
    except (TypeError, KeyError):
        raise DataError("data.generated_damaged", path=path) from None
    if len(items) != header.get("items"):
        raise DataError("data.generated_damaged", path=path)
    return items


def _item(row: Row) -> Item:
    values = dict(row.values)
    values["answers"] = tuple(values["answers"])
    values["options"] = tuple(values["options"])
    return Item(**values)


def _from_user(source: str | Path | Iterable[Mapping[str, Any]], workspace: Workspace, reading: Reading) -> Dataset:
    if isinstance(source, str | Path):
        path = _find(source, workspace)
        rows: Iterable[Row] = read_rows(path, encoding=reading.encoding)
        name, origin = path.stem, str(path)
    else:
        rows = _plain_rows(source)
        name, origin = "items", "items"
    read = items_from_rows(rows, origin, reading)
    return _dataset(name, read.items, source=origin, notes=read.notes)


def _plain_rows(rows: Iterable[Mapping[str, Any]]) -> Iterable[Row]:
    for number, values in enumerate(rows, start=1):
        if not isinstance(values, Mapping):
            raise DataError("data.not_an_object", path="items", line=number)
        yield Row(number, values)


def _find(source: str | Path, workspace: Workspace) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    named = [workspace.data / f"{source}{suffix}" for suffix in ("", *SUFFIXES)]
    for candidate in named:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise DataError("data.is_folder", path=path)
    if path.suffix.lower() in SUFFIXES or len(path.parts) > 1:
        raise DataError("data.no_file", path=path)
    raise DataError(
        "data.unknown", name=source, near=near(str(source), dataset_names()), known=", ".join(dataset_names())
    )


def _dataset(
    name: str,
    items: tuple[Item, ...],
    *,
    source: str,
    language: str | None = None,
    notes: tuple[tuple[str, Mapping[str, Any]], ...] = (),
) -> Dataset:
    shown = [{**asdict(item), "meta": {k: v for k, v in item.meta.items() if k != "source"}} for item in items]
    return Dataset(
        name=name,
        items=items,
        fingerprint=digest(shown, size=16),
        language=language or _language(items),
        source=source,
        notes=notes,
    )


def _language(items: Sequence[Item]) -> str:
    text = "".join(item.question for item in items[:50])
    letters = [c for c in text if c.isalpha()]
    hangul = sum("가" <= c <= "힣" for c in letters)
    return "ko" if hangul >= _HANGUL_SHARE * max(1, len(letters)) else "en"
