"""The gate: results that a broken prompt explains better than skill are named, sound ones are not."""

import random

import pytest

from llmopt.measure.sanity import check_sanity
from llmopt.messages import t
from llmopt.records import AnswerStatus, Item, Score


def choices(count=100, options=4):
    rng = random.Random(1)
    letters = "ABCDE"[:options]
    return [
        Item(id=str(n), question="?", kind="choice", answers=(rng.choice(letters),), options=tuple(letters))
        for n in range(count)
    ]


def scored(items, letter_of, status=AnswerStatus.OK):
    made = ((item, letter_of(item)) for item in items)
    return [
        Score(item_id=i.id, value=float(x in i.answers), status=status, extracted=x, rule="marker") for i, x in made
    ]


def keys(items, scores, **rest):
    return [finding.key for finding in check_sanity(items, scores, **rest)]


def test_sound_results_give_no_finding():
    items, rng = choices(), random.Random(2)
    good = scored(items, lambda item: item.answers[0] if rng.random() < 0.7 else rng.choice("ABCD"))
    assert keys(items, good) == []
    assert keys(items, good, reference=0.75) == []


def test_guessing_is_not_below_chance():
    for seed in range(10):
        items = choices()
        guess = {item.id: random.Random(f"{seed} {item.id}").choice("ABCD") for item in items}
        assert "quality.below_chance" not in keys(items, scored(items, lambda item, guess=guess: guess[item.id]))


def test_below_chance():
    items = choices()
    wrong = scored(items, lambda item: next(x for x in "ABCD" if x not in item.answers))
    assert "quality.below_chance" in keys(items, wrong)


def test_always_the_same_letter():
    items = choices()
    found = check_sanity(items, scored(items, lambda item: "A"))
    assert [f.key for f in found] == ["quality.constant_answer"]
    assert found[0].values["letter"] == "A"


def test_a_set_whose_gold_is_always_a_is_no_constant_answerer():
    items = [Item(id=str(n), question="?", kind="choice", answers=("A",), options=("가", "나")) for n in range(40)]
    # all right, and yet always one letter: the score shows no skill, and the gate says so
    assert keys(items, scored(items, lambda item: "A")) == ["quality.constant_answer"]


@pytest.mark.parametrize(
    ("status", "share", "flagged"),
    [
        ("truncated", 0.06, True),
        ("truncated", 0.05, False),
        ("empty", 0.06, True),
        ("wrong_language", 0.06, True),
        ("refused", 0.06, True),
        ("no_answer_found", 0.2, False),
        ("no_answer_found", 0.21, True),
    ],
)
def test_too_many_of_one_status(status, share, flagged):
    items = [Item(id=str(n), question="?") for n in range(100)]
    bad = round(100 * share)
    scores = [
        Score(item_id=str(n), value=0.5, status=AnswerStatus(status) if n < bad else AnswerStatus.OK)
        for n in range(100)
    ]
    assert (f"quality.many_{status}" in keys(items, scores)) is flagged


def test_failed_requests_are_named_apart():
    items = choices()
    scores = [Score(item_id=item.id, value=0.0, status=AnswerStatus.REQUEST_ERROR) for item in items]
    assert keys(items, scores) == ["quality.failed_requests"]


def test_far_off_a_reference_of_equal_protocol():
    items = [Item(id=str(n), question="?") for n in range(100)]
    scores = [Score(item_id=str(n), value=float(n < 50), status=AnswerStatus.OK) for n in range(100)]
    assert keys(items, scores, reference=0.69) == []
    assert keys(items, scores, reference=0.71) == ["quality.off_reference"]


def test_few_answers_say_nothing():
    items = choices(9)
    assert keys(items, scored(items, lambda item: "A")) == []


def test_every_finding_has_a_message():
    items = choices()
    wrong = scored(items, lambda item: next(x for x in "ABCD" if x not in item.answers), AnswerStatus.TRUNCATED)
    for finding in check_sanity(items, wrong, reference=1.0):
        for language in ("ko", "en"):
            assert t(finding.key, lang=language, **finding.values)
