"""Levels that say nothing, how answers ended, and doubts: what results show beside a mean."""

import pytest

from llmopt.measure.findings import findings
from llmopt.records import AnswerStatus, Item, Score


def levels(*accuracies, count=20):
    items, scores = [], []
    for level, accuracy in enumerate(accuracies, start=1):
        for n in range(count):
            items.append(Item(id=f"{level}-{n}", question="?", level=level))
            scores.append(Score(item_id=f"{level}-{n}", value=float(n < accuracy * count), status=AnswerStatus.OK))
    return items, scores


def test_saturated_levels_are_reported_and_lose_their_weight():
    found = findings(*levels(1.0, 0.6, 0.3, 0.0))
    rows = [(row["level"], row["value"], row["saturated"], row["weight"]) for row in found["levels"]]
    assert rows == [(1, 1.0, True, 0.0), (2, 0.6, False, 0.5), (3, 0.3, False, 0.5), (4, 0.0, True, 0.0)]
    assert found["telling"]["value"] == pytest.approx(0.45)
    assert found["telling"]["n"] == 40


def test_the_borders_themselves_still_tell():
    found = findings(*levels(0.95, 0.05))
    assert [row["saturated"] for row in found["levels"]] == [False, False]
    assert found["telling"] is None


def test_where_all_levels_are_saturated_all_keep_their_weight():
    found = findings(*levels(1.0, 0.0))
    assert [(row["saturated"], row["weight"]) for row in found["levels"]] == [(True, 0.5), (True, 0.5)]
    assert found["telling"] is None


def test_one_level_is_the_whole():
    assert findings(*levels(1.0))["levels"] == []


def test_statuses_are_counted_and_doubts_named():
    items, scores = levels(0.5)
    cut = [Score(item_id=items[n].id, value=0.0, status=AnswerStatus.TRUNCATED) for n in range(5)]
    found = findings(items, [*scores[5:], *cut])
    assert {name: row["count"] for name, row in found["statuses"].items()} == {"ok": 15, "truncated": 5}
    assert [doubt["key"] for doubt in found["doubts"]] == ["quality.many_truncated"]


def test_failed_requests_are_no_wrong_answers():
    items, scores = levels(1.0, count=12)
    failed = Score(item_id=items[0].id, value=0.0, status=AnswerStatus.REQUEST_ERROR)
    found = findings(items, [failed, *scores[1:]])
    assert found["statuses"]["request_error"]["count"] == 1
    assert [doubt["key"] for doubt in found["doubts"]] == ["quality.failed_requests"]
