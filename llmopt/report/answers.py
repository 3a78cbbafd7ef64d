"""What the models answered: every item with the answers side by side, and quality by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmopt.measure.findings import findings
from llmopt.measure.quality import by_item
from llmopt.measure.stats.intervals import proportion_interval
from llmopt.messages import t
from llmopt.records import Item, Sample, Score
from llmopt.report import words
from llmopt.report.detail import Detail, SideDetail
from llmopt.report.document import Block, Cell, Marked, Table, Text

__all__ = ["answers_blocks", "levels_table"]

MOST_ITEMS = 200
"""So many items stand in a report, those that tell the sides apart first; all of them are in samples/."""
MOST_CHARACTERS = 600
RIGHT = 0.5


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """The first answer of one side to one item, and its mean value over launches."""

    text: str
    value: float | None
    extracted: str | None
    asked: int


def answers_blocks(detail: Detail) -> list[Block]:
    """The table of answers; the second and further sides are marked against the first."""
    found = [_answers(side) for side in detail.sides]
    names = list(dict.fromkeys(name for side in found for name in side))
    if not names:
        return []
    differing = {name for name in names if len({_outcome(side.get(name)) for side in found}) > 1}
    ordered = sorted(names, key=lambda name: name not in differing)
    shown = ordered[:MOST_ITEMS]
    rows = [_row(name, detail.questions.get(name), found) for name in shown]
    headings = [t("report.item"), t("report.question"), t("report.gold"), *(side.label for side in detail.sides)]
    blocks: list[Block] = []
    several = len(detail.sides) > 1
    if several:
        both = sum(all(name in side for side in found) for name in names)
        blocks.append(Text(text=t("report.answers_counts", both=both, differing=len(differing))))
    if len(shown) < len(names):
        blocks.append(Text(text=t("report.answers_cut", shown=len(shown), total=len(names))))
    alike = frozenset(place for place, name in enumerate(shown) if several and name not in differing)
    caption = t("report.answers_caption_diff") if several else t("report.answers_caption")
    return [*blocks, Table(caption=caption, headings=headings, rows=rows, long=True, alike=alike)]


def _answers(side: SideDetail) -> dict[str, _Answer]:
    values = by_item(side.scores)
    found: dict[str, _Answer] = {}
    pairs: list[tuple[Sample, Score]] = list(zip(side.samples, side.scores, strict=True))
    asked: dict[str, int] = {}
    for sample, _ in pairs:
        asked[sample.item_id] = asked.get(sample.item_id, 0) + 1
    for sample, score in pairs:
        if sample.item_id not in found:
            found[sample.item_id] = _Answer(
                text=sample.text or sample.error or "",
                value=values.get(sample.item_id),
                extracted=score.extracted,
                asked=asked[sample.item_id],
            )
    return found


def _outcome(answer: _Answer | None) -> float | None:
    return None if answer is None else answer.value


def _row(name: str, item: Item | None, sides: Sequence[Mapping[str, _Answer]]) -> list[Cell]:
    question = _cut(item.question) if item else "–"
    gold = " / ".join(item.answers) if item and item.answers else "–"
    cells: list[Cell] = [name, question, gold]
    first = sides[0].get(name)
    for place, side in enumerate(sides):
        answer = side.get(name)
        if answer is None:
            cells.append("–")
        elif place == 0 or first is None:
            cells.append(f"{_mark(answer)} {_cut(answer.text)}")
        else:
            marked = Marked.between(_cut(first.text), _cut(answer.text))
            cells.append(Marked(spans=((f"{_mark(answer)} ", "same"), *marked.spans)))
    return cells


def _mark(answer: _Answer) -> str:
    """Right or wrong in a word, with the share of launches where they did not agree."""
    if answer.value is None:
        return f"[{t('report.failed_request')}]"
    if 0 < answer.value < 1:
        return f"[{t('report.partly_right', percent=f'{100 * answer.value:.0f}')}]"
    return f"[{t('report.right') if answer.value >= RIGHT else t('report.wrong')}]"


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


# ── levels ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def levels_table(detail: Detail) -> Table | None:
    """Right answers by level with the level's weight, and the mean re-weighted to the levels that tell sides apart."""
    items = tuple(detail.questions.values())
    if len({item.level for item in items}) < 2:  # noqa: PLR2004 - one level is the whole
        return None
    reports = {
        side.label: {row["level"]: row for row in findings(items, side.scores)["levels"]} for side in detail.sides
    }
    means = {side.label: by_item(side.scores) for side in detail.sides}
    rows = []
    for level in sorted({item.level for item in items}):
        cells = []
        for label, report in reports.items():
            found = report.get(level)
            if found is None:
                cells.append("–")
                continue
            text = _share([item for item in items if item.level == level], means[label])
            cells.append(text + (f" · {t('report.saturated_level')}" if found["saturated"] else ""))
        rows.append([t("benchmark.level", level=level), *cells])
    if not any(any(cell != "–" for cell in row[1:]) for row in rows):
        return None
    levels = {level for report in reports.values() for level in report}
    telling = {level for report in reports.values() for level, one in report.items() if not one["saturated"]} or levels
    reweighted = [_share([item for item in items if item.level in telling], means[label]) for label in reports]
    named = ", ".join(str(level) for level in sorted(telling))
    rows.append([t("report.reweighted", levels=named), *reweighted])
    return Table(caption=t("report.levels_caption"), headings=[t("report.level"), *reports], rows=rows)


def _share(items: Sequence[Item], values: Mapping[str, float]) -> str:
    asked = [item for item in items if item.id in values]
    if not asked:
        return "–"
    found = proportion_interval([values[i.id] for i in asked], clusters=[i.cluster or i.id for i in asked])
    estimate = {"value": found.value, "low": found.low, "high": found.high, "n": len(asked)}
    return words.interval("accuracy", estimate)
