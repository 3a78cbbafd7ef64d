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
    """Counters from before to after; gauges of the time under load alone: before and after it an engine is idle."""
    running = (-1, 5, 3, -1)
    pages = [page(wire, running=n, hits=10 + 20 * k, queries=100 * k) for k, n in enumerate(running)]
    server.scripts = pages
    async with EngineWatch(endpoint=server.endpoint, names=NAMES, period_s=60.0) as watch:
        await watch.read(meanwhile=True)
        await watch.read(meanwhile=True)
    found = watch.estimates()
    assert found["engine_prefix_hits"].value == 60
    assert found["engine_prefix_hit_share"].value == pytest.approx(0.2)
    assert (found["engine_running_max"].value, found["engine_running_max"].n) == (6, 2)
    assert found["engine_running_mean"].value == pytest.approx((6 + 4) / 2)
    assert "engine_kv_usage_max" not in found


async def test_a_pass_too_short_to_be_looked_at_has_no_gauges(server, wire):
    server.scripts = [page(wire, running=0, hits=1, queries=1)]
    async with EngineWatch(endpoint=server.endpoint, names=NAMES, period_s=60.0) as watch:
        pass
    assert "engine_running_mean" not in watch.estimates()


async def test_readings_go_on_by_themselves(server, wire):
    server.scripts = [page(wire, running=1, hits=1, queries=1)]
    async with EngineWatch(endpoint=server.endpoint, names=NAMES, period_s=0.01) as watch:
        async with asyncio.timeout(20):
            while len(watch.meanwhile) < 4:  # noqa: ASYNC110 - readings come by a timer
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
