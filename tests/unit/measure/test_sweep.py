import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmopt.measure.arrivals import arrival_times
from llmopt.measure.load import ClientHealth, LoadRun
from llmopt.measure.metrics import speed
from llmopt.measure.saturation import saturating
from llmopt.measure.slo import parse_slo
from llmopt.measure.sweep import highest_load, sweep
from llmopt.records import Load, Measurement, Sample

CALM = ClientHealth(lag_p99_s=0.0, lag_max_s=0.0, cpu_share=0.1)


class Server:
    """Answers in 0.1 s on each of ``slots``; what comes meanwhile waits in order."""

    def __init__(self, slots=4, took=0.1, slo=None):
        self.slots, self.took, self.slo = slots, took, slo
        self.asked = []

    async def figures(self, load):
        run = await self.measure(load)
        return Measurement(estimates=speed(run, self.slo), certificate={"saturated": load.is_open and saturating(run)})

    async def measure(self, load, count=200):
        self.asked.append(load)
        free = [0.0] * (self.slots if load.rate else min(self.slots, load.streams))
        due = arrival_times(load, count) if load.rate else [0.0] * count
        samples = []
        for number, planned in enumerate(due):
            slot = min(range(len(free)), key=free.__getitem__)
            begin = max(free[slot], planned)
            free[slot] = end = begin + self.took
            at = planned if load.rate else begin
            samples.append(Sample(item_id=f"q{number}", planned_s=at, sent_s=at, ended_s=end, token_s=(end,), completion_tokens=1))  # fmt: skip
        end = due[-1] if load.rate else max(free)
        return LoadRun(load=load, samples=tuple(samples), started_s=0.0, ended_s=max(free), window_start_s=0.0, window_end_s=end, health=CALM)  # fmt: skip


async def test_a_sweep_goes_from_one_stream_to_the_capacity():
    found = await sweep(Server().figures, streams=16, levels=4)
    answered = [point.answered_per_s for point in found.points]
    assert answered[0] == pytest.approx(10, rel=0.02)
    assert found.capacity_per_s == pytest.approx(40, rel=0.02)
    assert answered[:5] == sorted(answered[:5])
    assert [point.saturated for point in found.points] == [False, False, False, False, False, True, True]
    assert [point.load.arrival for point in found.points] == [
        "closed",
        "poisson",
        "poisson",
        "poisson",
        "poisson",
        "poisson",
        "closed",
    ]


async def test_every_load_keeps_its_certificate_and_the_capacity_its_interval():
    async def measure(load):
        found = await Server().figures(load)
        return replace(found, warnings=("measure.warn_co_load",), certificate={**found.certificate, "n": 200})

    found = await sweep(measure, streams=16, levels=2)
    assert {(point.warnings, point.certificate["n"]) for point in found.points} == {(("measure.warn_co_load",), 200)}
    capacity = found.fullest.estimates["answers_per_minute"]
    assert capacity.value / 60 == found.capacity_per_s
    assert capacity.low <= capacity.value <= capacity.high


async def test_a_sweep_judges_an_slo_at_every_load():
    found = await sweep(Server(slo=parse_slo("e2e<150ms")).figures, streams=16, levels=3)
    attained = [point.estimates["attainment"].value for point in found.points]
    assert attained[0] == 1.0
    assert attained[-2] < 0.99  # three quarters of the capacity in Poisson arrivals: some have to wait


async def test_an_overload_is_saturation_and_a_bearable_load_is_not():
    server = Server()
    over = await server.measure(Load(streams=None, rate=60.0, arrival="poisson"))
    under = await server.measure(Load(streams=None, rate=25.0, arrival="poisson"))
    assert saturating(over)
    assert not saturating(under)
    few = await server.measure(Load(streams=None, rate=60.0, arrival="poisson"), count=10)
    assert saturating(few) is None


async def test_a_bearable_load_is_rarely_called_saturated_and_an_overload_mostly_is():
    """Neighbouring requests meet the same queue: as independent ones they called every third load of 80 % saturated."""
    found = {}
    for rate in (24.0, 32.0, 52.0):
        server, loads = Server(), [Load(streams=None, rate=rate, arrival="poisson", seed=k) for k in range(40)]
        runs = [await server.measure(load, count=150) for load in loads]
        found[rate] = sum(bool(saturating(run)) for run in runs)
    assert found[24.0] <= 2
    assert found[32.0] <= 6
    assert found[52.0] >= 34


async def test_neither_a_ramp_nor_the_filling_of_an_idle_endpoint_is_saturation():
    ramp = Load(streams=None, rate=24.0, arrival="poisson", ramp_from=2.0, ramp_s=10.0)
    assert not saturating(await Server().measure(ramp, count=400))
    filling = Load(streams=None, rate=10.0, arrival="constant")  # fifty at once from the fifth second on
    assert not saturating(await Server(slots=100, took=5.0).measure(filling, count=100))


@settings(max_examples=40)
@given(st.floats(0.05, 1000), st.floats(0.5, 4))
def test_the_boundary_is_found_to_tolerance(truth, start):
    import asyncio

    asked = []

    async def meets(load):
        asked.append(load)
        return load <= truth

    found = asyncio.run(highest_load(meets, start=start))
    assert found.met <= truth < found.failed
    assert found.failed / found.met <= 1.05 + 1e-9
    assert found.probes == len(asked) < 60


async def test_luck_near_the_boundary_is_outvoted():
    rng = random.Random(1)
    errors = []
    for _ in range(30):

        async def meets(load):
            return load * rng.gauss(1, 0.04) <= 20.0

        found = await highest_load(meets, start=1.0)
        errors.append(abs(found.met / 20 - 1))
    assert sum(errors) / len(errors) < 0.08


async def test_a_ceiling_that_is_met_ends_the_search():
    async def always(_):
        return True

    found = await highest_load(always, start=1.0, ceiling=50.0)
    assert (found.met, found.failed) == (50.0, None)


async def test_nothing_that_is_met_is_said_so():
    async def never(_):
        return False

    found = await highest_load(never, start=1.0)
    assert found.met is None
    assert found.failed < 0.01
