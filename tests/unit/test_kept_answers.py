"""Kept answers: the same weights, settings, prompt and seed give them back; anything else that matters does not."""

from dataclasses import replace

import pytest

from llmopt.config.settings import load_settings
from llmopt.paths import Workspace
from llmopt.records import Sample
from llmopt.search.workload import request_for
from llmopt.study.kept_answers import KeptAnswers
from llmopt.study.prepare import prepare
from llmopt.study.reference import greedy
from llmopt.study.request import StudyRequest


@pytest.fixture
def prepared(tmp_path, demo_model):
    workspace = Workspace(root=tmp_path)
    request = StudyRequest(model=str(demo_model), dataset="korean_math_easy", engine="llamacpp", samples=4)
    return prepare(request, workspace=workspace, settings=load_settings(workspace))


def said(request, text):
    return Sample(item_id=request.item_id, planned_s=0.0, sent_s=0.0, ended_s=1.0, text=text, finish_reason="stop")


def test_an_answer_comes_back_for_the_same_question_alone(prepared):
    configuration = greedy(prepared.baseline)
    first, second = (request_for(item, configuration.request, prepared.work) for item in prepared.search_items[:2])
    KeptAnswers(prepared).put(configuration, [first], [said(first, "정답: 7")])
    kept = KeptAnswers(prepared)
    assert kept.get(configuration, first).text == "정답: 7"
    assert kept.get(configuration, second) is None
    assert kept.get(configuration, replace(first, params=replace(first.params, max_tokens=1))) is None


def test_threads_change_no_answer_but_a_quantised_cache_may(prepared):
    configuration = greedy(prepared.baseline)
    request = request_for(prepared.search_items[0], configuration.request, prepared.work)
    kept = KeptAnswers(prepared)
    kept.put(configuration, [request], [said(request, "정답: 7")])
    other_threads = replace(configuration, launch={**configuration.launch, "threads": 99})
    other_cache = replace(configuration, launch={**configuration.launch, "cache_type_k": "q4_0"})
    assert kept.get(other_threads, request) is not None
    assert kept.get(other_cache, request) is None


def test_other_weights_and_engines_that_are_not_ours_share_nothing(prepared, tmp_path):
    configuration = greedy(prepared.baseline)
    request = request_for(prepared.search_items[0], configuration.request, prepared.work)
    KeptAnswers(prepared).put(configuration, [request], [said(request, "정답: 7")])
    other = replace(prepared, model=replace(prepared.model, sha256="another"))
    assert KeptAnswers(other).get(configuration, request) is None
    nowhere = replace(prepared, model=replace(prepared.model, sha256=None, path="http://elsewhere"))
    unknown = KeptAnswers(nowhere)
    unknown.put(configuration, [request], [said(request, "정답: 8")])
    assert unknown.get(configuration, request) is None


def test_repeats_of_an_item_are_kept_apart(prepared):
    configuration = replace(prepared.baseline, request=replace(prepared.baseline.request, temperature=0.8))
    item = prepared.search_items[0]
    requests = [request_for(item, configuration.request, prepared.work, repeat=n) for n in range(3)]
    kept = KeptAnswers(prepared)
    kept.put(configuration, requests, [said(r, f"정답: {n}") for n, r in enumerate(requests)])
    assert [kept.get(configuration, r).text for r in requests] == ["정답: 0", "정답: 1", "정답: 2"]
