import asyncio

import pytest

from llmopt.measure.client import Client
from llmopt.measure.warmup import WarmUpRule, is_stable, warm_up
from llmopt.records import Endpoint, InferenceParams, Load, Request
from llmopt.search.workload import WARM_UP

RULE = WarmUpRule()
CHUNKED = ("Transfer-Encoding: chunked", "")
ASK = Request(item_id="a", messages=[{"role": "user", "content": "?"}], params=InferenceParams(max_tokens=2))


def counted(rate, seconds=8.0, step=0.25):
    """Events so far every ``step`` seconds under ``rate(t)``."""
    points, total = [(0.0, 0)], 0.0
    for k in range(1, int(seconds / step) + 1):
        total += rate(k * step) * step
        points.append((k * step, round(total)))
    return points


@pytest.mark.parametrize(
    ("rate", "stable"),
    [
        (lambda _: 400, True),
        (lambda t: 400 if t > 3 else 100, True),
        (lambda t: 100 * t, False),
        (lambda t: 400 - 40 * t, False),
        (lambda t: 400 if int(t) % 2 else 200, False),
        (lambda _: 0, False),
    ],
)
def test_stable_is_a_rate_that_neither_drifts_nor_swings(rate, stable):
    assert is_stable(counted(rate), RULE) is stable


def test_too_short_a_time_is_never_stable():
    assert not is_stable(counted(lambda _: 400, seconds=2.0), RULE)


@pytest.mark.parametrize("rule", [RULE, WARM_UP, WarmUpRule(span_s=0.2)])
def test_a_steady_speed_is_seen_within_the_span_of_every_rule(rule):
    late = 1.2 * rule.period_s  # timers fire late, never early
    assert is_stable(counted(lambda _: 4000, seconds=1.5 * rule.span_s + late, step=late), rule)


async def test_warming_up_ends_when_stable_and_never_repeats_a_prompt(server, wire):
    async def pace():
        await asyncio.sleep(0.01)

    server.scripts = [
        [wire.head(extra=CHUNKED), pace, *wire.chunked(wire.delta("a"), pace, wire.delta("b", "stop"), wire.DONE)]
    ]
    rule = WarmUpRule(requests=4, seconds=0.1, cap_s=60.0, span_s=2.0, drift=0.9, spread=0.9)
    async with Client(server.endpoint) as client:
        result = await warm_up(client, [ASK], Load(streams=2), rule=rule)
    assert result.stable
    assert result.seconds < 60
    assert result.failures == 0
    bodies = [body for _, body in server.requests]
    assert len(bodies) == len(set(bodies)) == result.requests  # all of them answered: nothing is left to do
    assert result.cut == 0


async def test_the_cap_ends_what_never_becomes_stable(server, wire):
    server.scripts = [[wire.HANG]]
    async with Client(server.endpoint) as client:
        result = await warm_up(client, [ASK], Load(streams=2), rule=WarmUpRule(cap_s=0.3, patience_s=0.1))
    assert not result.stable
    assert (result.requests, result.cut) == (0, 2)


async def test_a_dead_endpoint_is_not_warmed_for_ever(tmp_path):
    async with Client(Endpoint(model="m", socket_path=str(tmp_path / "none"))) as client:
        result = await warm_up(client, [ASK], Load(streams=2))
    assert (result.stable, result.first_error) == (False, "refused")
    assert result.failures == result.requests > 0
