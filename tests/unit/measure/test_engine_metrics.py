import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.engine_metrics import EngineWatch, parse_metrics
from llmopt.records import Endpoint

PAGE = """# HELP e:running requests running
# TYPE e:running gauge
e:running{{model="a"}} {running}
e:running{{model="b"}} 1.0
e:hits_total {hits} 1700000000000
e:queries_total {queries}
e:other 7
broken line
"""
NAMES = {"running": "e:running", "prefix_hits": "e:hits_total", "prefix_queries": "e:queries_total", "kv_usage": "e:kv"}


def test_label_sets_are_summed_and_the_rest_is_skipped():
    found = parse_metrics(PAGE.format(running=2, hits="3e2", queries=400), frozenset(NAMES.values()))
    assert found == {"e:running": 3.0, "e:hits_total": 300.0, "e:queries_total": 400.0}


@given(st.text())
def test_any_page_can_be_read(text):
    assert isinstance(parse_metrics(text, frozenset({"e:running", "a"})), dict)


def page(wire, **values):
    body = PAGE.format(**values).encode()
    return [wire.head(content_type="text/plain", extra=(f"Content-Length: {len(body)}", "")), body]


async def test_counters_become_increases_and_gauges_mean_and_peak(server, wire):
    server.scripts = [page(wire, running=1, hits=10, queries=100), page(wire, running=5, hits=60, queries=200)]
    async with EngineWatch(endpoint=server.endpoint, names=NAMES, period_s=60.0) as watch:
        await watch.read()
    found = watch.estimates()
    assert found["engine_prefix_hits"].value == 50
    assert found["engine_prefix_hit_share"].value == pytest.approx(0.5)
    assert found["engine_running_max"].value == 6
    assert found["engine_running_mean"].value == pytest.approx((2 + 6 + 6) / 3)
    assert "engine_kv_usage_max" not in found


async def test_readings_go_on_by_themselves(server, wire):
    server.scripts = [page(wire, running=1, hits=1, queries=1)]
    async with EngineWatch(endpoint=server.endpoint, names=NAMES, period_s=0.01) as watch:
        async with asyncio.timeout(20):
            while len(watch.readings) < 4:  # noqa: ASYNC110 - readings come by a timer
                await asyncio.sleep(0.01)
    assert watch.estimates()["engine_running_mean"].value == 2


async def test_an_engine_without_metrics_is_no_failure(tmp_path, server, wire):
    async with EngineWatch(endpoint=Endpoint(model="m", socket_path=str(tmp_path / "none")), names=NAMES) as watch:
        pass
    assert watch.estimates() == {}
    server.scripts = [[wire.head(404, "No", extra=("Content-Length: 0", ""))]]
    async with EngineWatch(endpoint=server.endpoint, names=NAMES) as watch:
        pass
    assert watch.estimates() == {}
