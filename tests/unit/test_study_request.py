"""Requests refuse nonsense in one sentence and survive the trip through the database."""

import re
from dataclasses import replace

import pytest

from llmopt.errors import UsageError
from llmopt.messages import LANGUAGES, set_language
from llmopt.records import Strategy
from llmopt.study.optimize import study_name
from llmopt.study.request import StudyRequest


@pytest.mark.parametrize(
    ("field", "value", "key"),
    [
        ("trials", 0, "study.trials"),
        ("trials", -3, "study.trials"),
        ("timeout_s", 0.0, "study.timeout"),
        ("timeout_s", -1.0, "study.timeout"),
        ("timeout_s", float("nan"), "study.timeout"),
        ("timeout_s", float("inf"), "study.timeout"),
        ("method", "annealing", "study.method"),
        ("samples", 1, "study.samples"),
        ("streams", 0, "study.streams"),
        ("rate", 0.0, "study.rate"),
        ("max_tokens", 0, "study.max_tokens"),
    ],
)
def test_nonsense_is_refused_with_a_next_step_in_both_languages(field, value, key):
    with pytest.raises(UsageError) as raised:
        StudyRequest(model="m", dataset="d", **{field: value})
    assert raised.value.key == key
    try:
        for language in LANGUAGES:
            set_language(language)
            assert raised.value.what
            assert raised.value.next_step
    finally:
        set_language(None)


def test_a_stored_request_reads_back_equal_and_ignores_fields_of_later_versions():
    request = StudyRequest(
        model="m", dataset="d", strategy=Strategy.SPEED, constraints=("memory<2GB",), columns={"question": "문제"}
    )
    spec = request.to_spec() | {"of_a_later_version": 1}
    assert StudyRequest.from_spec(spec) == request


def test_studies_that_begin_in_the_same_second_have_names_of_their_own():
    request = StudyRequest(model="/models/a model", dataset="korean_math")
    names = {study_name(request) for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch(r"a-model-korean_math-\d{8}-\d{6}-[0-9a-f]{6}", name) for name in names)
    assert {study_name(replace(request, name=name)) for name in names} == names  # each can be given back by hand
