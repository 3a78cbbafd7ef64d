"""Answers kept by everything that determines them: no model gets another's, and no crash leaves a wrong one."""

import dataclasses
import multiprocessing
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import StorageError
from llmopt.measure.cache import AnswerKey, ResponseCache
from llmopt.records import InferenceParams, Sample

KEY = AnswerKey(
    model="sha-1",
    engine="llamacpp",
    engine_version="b1",
    launch={"cache_type_k": "f16"},
    messages=({"role": "user", "content": "6 + 7은?"},),
    params=InferenceParams(temperature=0.0, max_tokens=64),
    template="t1",
)
SAMPLE = Sample(
    item_id="i",
    planned_s=0.1,
    sent_s=0.2,
    ended_s=1.5,
    token_s=(0.3, 0.4),
    text="정답: 13",
    finish_reason="stop",
    completion_tokens=5,
)


def changed(**values):
    return dataclasses.replace(KEY, **values)


DIFFERENT = {
    "model": changed(model="sha-2"),
    "engine": changed(engine="vllm"),
    "version": changed(engine_version="b2"),
    "launch": changed(launch={"cache_type_k": "q4_0"}),
    "template": changed(template="t2"),
    "messages": changed(messages=({"role": "user", "content": "6 + 8은?"},)),
    "role": changed(messages=({"role": "system", "content": "6 + 7은?"},)),
    "temperature": changed(params=InferenceParams(temperature=0.5, max_tokens=64, seed=1)),
    "max_tokens": changed(params=InferenceParams(temperature=0.0, max_tokens=32)),
    "seed": changed(params=InferenceParams(temperature=0.0, max_tokens=64, seed=2)),
    "repeat": changed(repeat=1),
    "extra": changed(extra={"grammar": "root ::= [0-9]+"}),
}


@pytest.fixture
def cache(tmp_path):
    return ResponseCache(tmp_path / "answers")


def test_a_kept_answer_comes_back_whole_also_in_another_process(cache, tmp_path):
    assert cache.get(KEY) is None
    cache.put(KEY, SAMPLE)
    assert cache.get(KEY) == SAMPLE
    assert ResponseCache(tmp_path / "answers").get(KEY) == SAMPLE


@pytest.mark.parametrize("name", DIFFERENT)
def test_whatever_determines_an_answer_is_part_of_its_key(cache, name):
    cache.put(KEY, SAMPLE)
    assert cache.get(DIFFERENT[name]) is None


def test_what_does_not_determine_an_answer_is_not(cache):
    cache.put(KEY, SAMPLE)
    same = changed(
        launch=dict(KEY.launch), params=InferenceParams(temperature=0.0, max_tokens=64, prompt_form="zero_shot")
    )
    assert cache.get(same) == SAMPLE  # the form is in the messages already


def test_samples_drawn_without_a_seed_are_never_reused(cache):
    key = changed(params=InferenceParams(temperature=0.9))
    cache.put(key, SAMPLE)
    assert cache.get(key) is None
    seeded = changed(params=InferenceParams(temperature=0.9, seed=3))
    cache.put(seeded, SAMPLE)
    assert cache.get(seeded) == SAMPLE


def test_failed_requests_are_not_kept(cache):
    cache.put(KEY, dataclasses.replace(SAMPLE, error="timed_out"))
    assert cache.get(KEY) is None


def test_a_torn_last_line_is_skipped_and_closed(tmp_path, cache):
    cache.put(KEY, SAMPLE)
    cache.put(changed(repeat=1), SAMPLE)
    path = next((tmp_path / "answers").glob("*.jsonl"))
    whole = path.read_bytes()
    for cut in range(len(whole) // 2 + 1, len(whole) - 1, 7):
        path.write_bytes(whole[:cut])
        again = ResponseCache(tmp_path / "answers")
        assert again.get(KEY) == SAMPLE
        assert again.get(changed(repeat=1)) is None
        again.put(changed(repeat=2), SAMPLE)
        assert ResponseCache(tmp_path / "answers").get(changed(repeat=2)) == SAMPLE


@given(st.binary(max_size=300))
def test_any_damage_is_survived(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    (folder / f"{KEY.group}.jsonl").write_bytes(data)
    damaged = ResponseCache(folder)
    assert damaged.get(KEY) is None
    damaged.put(KEY, SAMPLE)
    assert ResponseCache(folder).get(KEY) == SAMPLE


def _write(folder, start, count):
    cache = ResponseCache(folder)
    for n in range(start, start + count):
        cache.put(dataclasses.replace(KEY, repeat=n), SAMPLE)


def test_two_processes_may_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    folder = tmp_path / "answers"
    writers = [context.Process(target=_write, args=(folder, start, 60)) for start in (0, 60)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    cache = ResponseCache(folder)
    assert all(cache.get(dataclasses.replace(KEY, repeat=n)) == SAMPLE for n in range(120))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_writer_leaves_only_whole_answers(tmp_path):
    context = multiprocessing.get_context("spawn")
    folder = tmp_path / "answers"
    writer = context.Process(target=_write, args=(folder, 0, 100_000))
    writer.start()
    path = folder / f"{KEY.group}.jsonl"
    while not (path.exists() and path.stat().st_size > 5_000):
        assert writer.is_alive()
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(60)
    cache = ResponseCache(folder)
    kept = [n for n in range(2000) if cache.get(dataclasses.replace(KEY, repeat=n))]
    assert kept == list(range(len(kept)))
    assert len(kept) > 10


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_one_clear_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError) as caught:
        ResponseCache(tmp_path / "answers").put(KEY, SAMPLE)
    assert caught.value.key == "quality.cache_write"


def test_a_file_in_the_way_is_one_clear_sentence(tmp_path):
    (tmp_path / "answers").write_text("x")
    with pytest.raises(StorageError) as caught:
        ResponseCache(tmp_path / "answers").put(KEY, SAMPLE)
    assert caught.value.next_step
