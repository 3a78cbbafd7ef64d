import pytest

from llmopt.measure.self_check import accuracy_of, check_client
from llmopt.records import Sample
from llmopt.runtime.guardian import Guardian


def sample(name, sent, *times):
    return Sample(item_id=name, planned_s=sent, sent_s=sent, ended_s=times[-1], token_s=times)


def stamp(name, received_ms, *written_ms):
    return {"key": name, "received_ns": int(received_ms * 1e6), "written_ns": [int(ms * 1e6) for ms in written_ms]}


def test_errors_are_what_we_say_less_what_was_done():
    samples = [sample("a", 1.000, 1.053, 1.070), sample("b", 2.000, 2.050, 2.075)]
    stamps = [stamp("a", 1001, 1051, 1071), stamp("b", 2000, 2050, 2070), stamp("other", 1, 2)]
    found = accuracy_of(samples, stamps, streams=2, cpu_s=0.004)
    assert (found.requests, found.events) == (2, 4)
    assert found.ttft_error_p50_ms == pytest.approx(1.5)
    assert found.itl_error_p50_ms == pytest.approx(4.0)
    assert found.itl_error_p99_ms == pytest.approx(4.98)
    assert found.cpu_s_per_1000_events == pytest.approx(1.0)


def test_without_a_match_there_is_no_accuracy():
    with pytest.raises(ValueError, match="stamp"):
        accuracy_of([sample("a", 0.0, 1.0)], [], streams=1)


async def test_the_client_is_close_to_the_truth_on_this_machine(tmp_path):
    with Guardian(tmp_path / "guard", cgroups=False) as guardian:
        timing = {"ttft_ms": 200, "itl_ms": 20, "tokens": 10}
        found = await check_client(guardian=guardian, streams=4, requests_each=3, processes=2, timing=timing)
    assert (found.requests, found.events) == (12, 120)
    assert found.ttft_error_p50_ms < 100  # half of what is measured, on a machine however busy
    assert found.itl_error_p50_ms < 20
