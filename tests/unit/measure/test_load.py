import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from llmopt.errors import UsageError
from llmopt.measure.arrivals import arrival_times
from llmopt.measure.client import Client
from llmopt.measure.load import SharedPrefix, disjoint, drive, parse_shared_prefix
from llmopt.measure.validity import certify
from llmopt.records import Endpoint, InferenceParams, Load, Request

CHUNKED = ("Transfer-Encoding: chunked", "")


def ask(number=0):
    return Request(item_id=f"q{number}", messages=[{"role": "user", "content": f"{number}?"}], params=InferenceParams())


def asks(count):
    return [ask(number) for number in range(count)]


def answer(wire, *before):
    return [wire.head(extra=CHUNKED), *before, *wire.chunked(wire.delta("a"), wire.delta("b", "stop"), wire.DONE)]


def broken(wire):
    return [wire.head(500, "No", content_type="text/plain", extra=("Content-Length: 0", ""))]


async def test_a_closed_loop_answers_each_request_once(server, wire):
    server.scripts = [answer(wire)]
    seen = []
    async with Client(server.endpoint) as client:
        run = await drive(client, asks(20), Load(streams=4), on_sample=seen.append)
    assert sorted(sample.item_id for sample in run.samples) == sorted(f"q{k}" for k in range(20))
    assert list(run.samples) == seen
    assert all(sample.ok for sample in run.samples)
    assert run.cut == 0
    assert run.started_s <= run.window_start_s <= run.window_end_s <= run.ended_s


async def test_every_stream_is_busy_and_no_more_than_that(server, wire):
    async def together():
        await server.until_in_flight(3)

    server.scripts = [answer(wire, together), answer(wire, together), answer(wire, together), answer(wire)]
    async with Client(server.endpoint) as client:
        await drive(client, asks(12), Load(streams=3))
    assert server.peak == 3
    assert server.connections == 3


async def test_failures_are_samples_and_the_load_goes_on(server, wire):
    server.scripts = [broken(wire), answer(wire), broken(wire), answer(wire)]
    async with Client(server.endpoint) as client:
        run = await drive(client, asks(6), Load(streams=1))
    assert [sample.ok for sample in run.samples] == [False, True, False, True, True, True]
    assert run.samples[0].error == "http_500"


@pytest.mark.parametrize("by", ["stop", "deadline"])
async def test_our_own_end_cuts_off_and_counts_what_is_in_flight(server, wire, by):
    server.scripts = [answer(wire), [wire.HANG]]
    stop = asyncio.Event()

    async def set_stop():
        await server.until_in_flight(2, asked=3)
        stop.set()

    async with Client(server.endpoint) as client, asyncio.TaskGroup() as group:
        deadline_s = None
        if by == "stop":
            group.create_task(set_stop())
        else:
            deadline_s = time.monotonic() + 2
        run = await drive(client, map(ask, itertools.count()), Load(streams=2), stop=stop, deadline_s=deadline_s)
    assert run.cut == 2
    assert len(run.samples) == 1 or by == "deadline"  # a deadline may come before the first answer
    assert run.window_start_s <= run.window_end_s <= run.started_s + 20


async def test_an_endpoint_that_is_gone_ends_an_endless_load(tmp_path):
    async with Client(Endpoint(model="m", socket_path=str(tmp_path / "none"))) as client:
        run = await drive(client, map(ask, itertools.count()), Load(streams=2))
    assert run.gave_up == "refused"
    assert {sample.error for sample in run.samples} == {"refused"}


async def test_an_open_loop_keeps_its_schedule_whatever_the_server_does(server, wire):
    async def late():
        await server.until_in_flight(10)

    server.scripts = [answer(wire, late)]
    load = Load(streams=None, rate=200.0, arrival="poisson", seed=7)
    async with Client(server.endpoint) as client:
        run = await drive(client, asks(10), load)
    planned = sorted(sample.planned_s - run.started_s for sample in run.samples)
    assert planned == pytest.approx(arrival_times(load, 10))
    assert all(sample.sent_s >= sample.planned_s for sample in run.samples)
    assert run.window_end_s - run.started_s == pytest.approx(planned[-1])
    assert server.peak == 10


async def test_prompts_are_rendered_before_the_schedule_starts(server, wire):
    server.scripts = [answer(wire)]
    async with Client(server.endpoint) as client:
        await drive(client, asks(3), Load(streams=None, rate=1000.0, arrival="constant"))
    sent = [json.loads(body)["messages"][0]["content"] for _, body in server.requests]
    assert sorted(sent) == ["0?", "1?", "2?"]


async def test_cancelling_the_driver_cancels_everything(server, wire):
    server.scripts = [[wire.HANG]]
    async with Client(server.endpoint) as client:
        task = asyncio.ensure_future(drive(client, asks(4), Load(streams=2)))
        await server.until_in_flight(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_error_of_the_callback_is_raised_as_it_is(server, wire):
    server.scripts = [answer(wire)]

    def bad(_):
        raise KeyError("mine")

    async with Client(server.endpoint) as client:
        with pytest.raises(KeyError, match="mine"):
            await drive(client, asks(50), Load(streams=2), on_sample=bad)


async def test_an_error_in_the_requests_is_raised_as_it_is(server, wire):
    server.scripts = [answer(wire)]

    def requests():
        yield ask()
        raise KeyError("mine")

    async with Client(server.endpoint) as client:
        with pytest.raises(KeyError, match="mine"):
            await drive(client, requests(), Load(streams=2))


async def test_a_blocked_loop_is_seen(server, wire):
    server.scripts = [answer(wire)]

    def block(_):
        until = time.process_time() + 0.15
        while time.process_time() < until:
            pass

    async def ticks():
        await asyncio.sleep(0.05)

    async with Client(server.endpoint) as client:
        run = await drive(client, asks(3), Load(streams=1), on_sample=block)
        server.scripts = [answer(wire, ticks)]
        calm = await drive(client, asks(3), Load(streams=1))
    assert run.health.lag_max_s > 0.1
    assert run.health.cpu_share > calm.health.cpu_share


def test_a_closed_loop_loads_no_more_than_it_needs():
    code = "import sys, llmopt.measure.load, llmopt.measure.metrics; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"statistics", "random", "difflib", "numpy", "llmopt.measure.stats.verdicts"} & set(loaded)


async def test_the_collector_is_given_back(server, wire):
    import gc

    server.scripts = [answer(wire)]
    async with Client(server.endpoint) as client:
        with contextlib.suppress(RuntimeError):
            await drive(client, asks(2), Load(streams=1))
    assert gc.get_freeze_count() == 0


def test_a_shared_prefix_is_shared_by_groups():
    asked = parse_shared_prefix("40:2").before(asks(4))
    texts = [request.messages[0]["content"] for request in asked]
    assert texts[0] == texts[2] != texts[1] == texts[3]
    assert len(texts[0].split()) == 40
    assert [list(request.messages[1:]) for request in asked] == [list(request.messages) for request in asks(4)]


def test_a_shared_prefix_joins_a_system_message():
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "?"})
    (asked,) = SharedPrefix(tokens=3).before([replace(ask(0), messages=messages)])
    assert [message["role"] for message in asked.messages] == ["system", "user"]
    assert asked.messages[0]["content"].endswith("\n\nBe brief.")


@pytest.mark.parametrize("text", ["", "many", "0", "5:0", "5:x", "-3"])
def test_a_prefix_that_cannot_be_read_is_refused(text):
    with pytest.raises(UsageError, match="--shared-prefix"):
        parse_shared_prefix(text)


def test_disjoint_requests_have_no_common_beginning():
    texts = [request.messages[0]["content"] for request in itertools.islice(disjoint(asks(2)), 30)]
    assert len(set(texts)) == 30
    assert all(not b.startswith(a) for a, b in itertools.pairwise(texts))


HOLDABLE = [Load(streams=2), Load(rate=1000.0, arrival="constant")]


@pytest.mark.parametrize("load", HOLDABLE)
async def test_no_request_is_sent_without_leave(server, wire, load):
    server.scripts = [answer(wire)]
    reached = asyncio.Event()

    class Gate(asyncio.Event):
        async def wait(self):
            reached.set()
            return await super().wait()

    go = Gate()
    async with Client(server.endpoint) as client:
        waiting = asyncio.ensure_future(drive(client, asks(12), load, go=go))
        await asyncio.wait_for(reached.wait(), 30)
        assert not server.requests
        go.set()
        run = await waiting
    assert len(run.samples) == 12
    assert run.held_s == 0  # nothing was under way yet
    assert "measure.warn_held" not in certify(run).warnings


class HeldOnce(asyncio.Event):
    """A leave that is taken away for a moment when it is asked for the tenth time, however busy the machine is."""

    looks = 0

    def is_set(self):
        self.looks += 1
        if self.looks == 10:
            self.clear()
            asyncio.get_running_loop().call_later(0.05, self.set)
        return super().is_set()


@pytest.mark.parametrize("load", HOLDABLE)
async def test_a_load_that_was_held_back_is_not_valid(server, wire, load):
    server.scripts = [answer(wire)]
    go = HeldOnce()
    go.set()
    async with Client(server.endpoint) as client:
        run = await drive(client, asks(40), load, go=go)
    assert len(run.samples) == 40
    assert run.held_s > 0
    assert not certify(run).valid
    assert "measure.warn_held" in certify(run).warnings
