"""What an adapter is: how the rows of a published benchmark become items. It holds none of the benchmark's data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmopt.errors import DataError
from llmopt.records import Item
from llmopt.workload.columns import near
from llmopt.workload.user_data import LETTERS

__all__ = ["Adapter", "Cells", "Protocol", "choice_item"]


class Cells:
    """One row of a benchmark, asked for by column; a missing column is an error that names near ones."""

    def __init__(self, values: Mapping[str, Any], *, source: str, number: int) -> None:
        self._values = values
        self._source = source
        self.number = number

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            names = [str(key) for key in self._values]
            shown = {"column": name, "near": near(name, names), "columns": ", ".join(names)}
            raise DataError("data.no_column", source=self._source, **shown)
        return self._values[name]

    def text(self, name: str) -> str:
        """The cell as text without blanks around it."""
        value = self[name]
        return "" if value is None else str(value).strip()

    def maybe(self, name: str) -> Any:
        """The cell, or None where there is no such column."""
        return self._values.get(name)

    def whole(self, name: str) -> int:
        """The cell as a whole number; raises DataError naming row and value."""
        text = self.text(name)
        try:
            return int(float(text))
        except ValueError:
            raise DataError("data.not_a_number", source=self._source, line=self.number, value=text) from None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How we put and score the benchmark, and where that differs from its own way: figures compare only where equal."""

    scoring: str
    shots: int = 0
    max_tokens: int = 512
    official: str = ""
    """The benchmark's own metric, where ours is another."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One benchmark. ``read`` returns None for rows that cannot be asked (no gold, a cut option list)."""

    name: str
    hub: str
    protocol: Protocol
    read: Callable[[Cells, str], Item | None]
    language: str = "ko"
    subsets: Sequence[str] = ()
    """Configurations by name; the first is the default. Empty: one only, or subjects that all belong together."""
    any_subset: bool = False
    """Whether it has more subsets than those named here."""
    test_split: str = "test"
    shown_split: str = ""
    """The split worked examples come from; where empty, a few clusters are set aside."""
    expand: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]] | None = None
    """Turns one nested record into rows (SQuAD-shaped JSON)."""


def choice_item(
    name: str,
    question: str,
    options: Sequence[str],
    gold: int,
    *,
    cluster: str = "",
    meta: Mapping[str, Any] | None = None,
) -> Item | None:
    """A multiple-choice item whose gold option is counted from 0; None where the gold is not among the options."""
    if not 0 <= gold < min(len(options), len(LETTERS)):
        return None
    return Item(
        id=name,
        question=question,
        answers=(LETTERS[gold],),
        kind="choice",
        cluster=cluster,
        options=tuple(options),
        meta=dict(meta or {}),
    )
