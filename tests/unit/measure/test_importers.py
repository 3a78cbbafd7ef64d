import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmopt.errors import DataError
from llmopt.measure.importers import import_results
from llmopt.messages import t

FILES = Path(__file__).parents[2] / "fixtures" / "importers"


def value(run, name):
    return run.estimates[name].value


@pytest.mark.parametrize("name", ["vllm_summary", "vllm_detailed", "guidellm", "aiperf"])
def test_the_same_run_reads_alike_whoever_measured_it(name):
    run = import_results(FILES / f"{name}.json")[0]
    assert run.model == "demo/model"
    assert "4" in run.load
    assert value(run, "ttft_p50_ms") == pytest.approx(100)
    assert value(run, "tpot_p50_ms") == pytest.approx(50)
    assert value(run, "e2e_p50_ms") == pytest.approx(550)
    assert value(run, "answers_per_minute") == pytest.approx(7 * 60, rel=0.4)
    assert 0 < value(run, "error_rate") < 0.2
    for key in run.differences:
        assert t(key, lang="ko") != t(key, lang="en")


def test_vllms_itl_is_a_gap_between_chunks():
    run = import_results(FILES / "vllm_summary.json")[0]
    assert "itl_p50_ms" not in run.estimates
    assert value(run, "inter_chunk_p99_ms") == 50
    assert run.estimates["ttft_p50_ms"].low is None
    assert run.load == "concurrency 4"


def test_per_request_times_are_measured_by_our_own_formulas():
    run = import_results(FILES / "vllm_detailed.json")[0]
    assert value(run, "itl_p50_ms") == pytest.approx(50)
    assert run.estimates["ttft_p50_ms"].low is not None
    assert run.estimates["ttft_p50_ms"].n == 7
    assert "ttft_p99_ms" not in run.estimates or run.estimates["ttft_p99_ms"].method.startswith("as vllm")


def test_guidellm_gives_one_run_for_each_load_and_its_tpot_is_left_out():
    closed, poisson = import_results(FILES / "guidellm.json")
    assert (closed.load, poisson.load, closed.version) == ("concurrent 4", "poisson 2.0/s", "0.8.1")
    assert value(closed, "ttfot_p50_ms") == 120
    assert value(closed, "attainment") == 0.9
    assert (closed.estimates["ttft_p50_ms"].low, closed.estimates["ttft_p50_ms"].high) == (90, 110)
    assert closed.estimates["ttft_p99_ms"].low is None
    assert 55.0 not in {estimate.value for estimate in closed.estimates.values()}


def test_an_aiperf_run_that_did_not_finish_says_so(tmp_path):
    content = json.loads((FILES / "aiperf.json").read_text())
    whole = import_results(FILES / "aiperf.json")[0]
    assert value(whole, "inter_chunk_p50_ms") == 49
    (tmp_path / "part.json").write_text(json.dumps({**content, "is_complete": False}))
    assert "measure.import_incomplete" in import_results(tmp_path / "part.json")[0].differences
    seconds = copy.deepcopy(content)
    seconds["time_to_first_token"] |= {"unit": "s", "p50": 0.1, "avg": 0.1}
    (tmp_path / "s.json").write_text(json.dumps(seconds))
    assert value(import_results(tmp_path / "s.json")[0], "ttft_p50_ms") == pytest.approx(100)


@pytest.mark.parametrize(("name", "load"), [("vllm", "concurrency 2"), ("guidellm", "concurrent 2"), ("aiperf", "2")])
def test_files_the_tools_wrote_themselves_are_read(name, load):
    """Recorded against the fake engine by ``benchmarks/client_peers.py record``: TTFT 50 ms, then 8 tokens 10 ms apart."""
    versions = json.loads((FILES / "recorded" / "versions.json").read_text())
    run = import_results(FILES / "recorded" / f"{name}.json")[0]
    assert run.model == "fake"
    assert load in run.load
    assert run.version in {"", versions[name]}  # vLLM's file does not say
    assert value(run, "error_rate") == 0
    assert {estimate.n for estimate in run.estimates.values()} <= {12, 12 * 7}  # requests, or the gaps of their tokens
    assert 100 < value(run, "e2e_p50_ms") < 200
    assert 500 < value(run, "answers_per_minute") < 1500
    if name == "vllm":  # its first event is the role
        assert value(run, "ttft_p50_ms") < 10
    else:
        assert 40 < value(run, "ttft_p50_ms") < 80
        assert 9 < value(run, "tpot_p50_ms") < 15


def test_appended_results_are_one_run_a_line(tmp_path):
    line = json.dumps(json.loads((FILES / "vllm_summary.json").read_text()))
    (tmp_path / "many.json").write_text(f"{line}\n{line}\n")
    assert len(import_results(tmp_path / "many.json")) == 2


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("{}", "import_unknown"), ("[1]", "import_unknown"), ("{", "import_unreadable"), ("", "import_unreadable"),
        ('{"benchmarks": [{"metrics": 3}], "metadata": {}}', "import_unreadable"),
        ('{"benchmarks": [3], "metadata": {}}', "import_unreadable"),
        ('{"request_throughput": 1, "duration": 1, "completed": "many"}', "import_unreadable"),
    ],
)  # fmt: skip
def test_any_other_file_is_refused_in_one_sentence(tmp_path, content, key):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError) as error:
        import_results(tmp_path / "x.json")
    assert error.value.key == f"measure.{key}"
    assert "x.json" in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="none"):
        import_results(tmp_path / "none.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150)
@given(name=st.sampled_from(["vllm_detailed", "guidellm", "aiperf"]), value=json_values, data=st.data())
def test_whatever_is_wrong_in_a_file_is_a_data_error_or_left_out(tmp_path_factory, name, value, data):
    content = json.loads((FILES / f"{name}.json").read_text())
    place = content
    for _ in range(data.draw(st.integers(1, 4))):
        if not isinstance(place, dict) or not place:
            break
        key = data.draw(st.sampled_from(sorted(place)))
        parent, place = place, place[key]
        last = key
    parent[last] = value
    path = tmp_path_factory.mktemp("x") / "x.json"
    path.write_text(json.dumps(content))
    try:
        runs = import_results(path)
    except DataError:
        return
    assert all(isinstance(e.value, float | int) for run in runs for e in run.estimates.values())
