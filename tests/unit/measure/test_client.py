import asyncio
import json
import time

import pytest

from llmopt.errors import EngineError
from llmopt.measure.client import Client, run
from llmopt.records import Endpoint, InferenceParams, Request

CHUNKED = ("Transfer-Encoding: chunked", "")
ASK = Request(item_id="q1", messages=[{"role": "user", "content": "몇 개?"}], params=InferenceParams(max_tokens=8))


@pytest.fixture(params=["unix", "tcp"])
def over(request):
    """Over TCP reads are stamped by the kernel, over Unix sockets in the read callback: two ways into one client."""
    return request.param


def stream(wire, *pieces):
    return [wire.head(extra=CHUNKED), *wire.chunked(*pieces, wire.delta(finish="stop"), wire.DONE)]


def failure(wire, status, message):
    body = json.dumps({"error": {"message": message}}).encode()
    return [wire.head(status, "No", content_type="application/json", extra=(f"Content-Length: {len(body)}", "")), body]


def test_a_body_has_every_setting_and_nothing_that_was_not_set():
    params = InferenceParams(
        temperature=0.0, top_p=0.9, top_k=10, min_p=0.05, repetition_penalty=1.1, max_tokens=7, seed=3, thinking=False,
        thinking_budget=64, prompt_form="zero_shot",
    )  # fmt: skip
    client = Client(Endpoint(model="m", port=1))
    request = Request(item_id="a", messages=ASK.messages, params=params, extra={"cache_prompt": False, "top_k": 5})
    assert client.body(request) == {
        "model": "m", "messages": [{"role": "user", "content": "몇 개?"}], "temperature": 0.0, "top_p": 0.9, "top_k": 5,
        "min_p": 0.05, "repetition_penalty": 1.1, "repeat_penalty": 1.1, "max_tokens": 7, "seed": 3,
        "thinking_token_budget": 64, "thinking_budget_tokens": 64, "stream": True,
        "stream_options": {"include_usage": True}, "cache_prompt": False,
        "chat_template_kwargs": {"enable_thinking": False, "thinking_budget": 64},
    }  # fmt: skip
    bare = client.body(Request(item_id="a", messages=ASK.messages, params=InferenceParams()))
    assert set(bare) == {"model", "messages", "stream", "stream_options"}


def test_a_field_can_be_renamed_or_left_out():
    client = Client(Endpoint(model="m", port=1), fields={"top_k": (), "repetition_penalty": ("repeat_penalty",)})
    body = client.body(Request(item_id="a", messages=(), params=InferenceParams(top_k=1, repetition_penalty=1.2)))
    assert "top_k" not in body
    assert body["repeat_penalty"] == 1.2
    assert "repetition_penalty" not in body


def test_the_prepared_bytes_are_the_body_with_its_length():
    client = Client(Endpoint(model="m", port=1, base_path="/api/v1"))
    head, _, body = client.prepare(ASK).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/chat/completions HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == client.body(ASK)


async def test_connections_are_reused_one_for_each_stream(server, wire):
    server.scripts = [stream(wire, wire.delta("a"))]
    async with Client(server.endpoint) as client:
        for _ in range(3):
            samples = await asyncio.gather(client.send(ASK), client.send(ASK))
            assert all(sample.ok for sample in samples)
    assert server.connections == 2


async def test_planned_start_is_kept_apart_from_the_real_one(server, wire):
    server.scripts = [stream(wire, wire.delta("a"))]
    async with Client(server.endpoint) as client:
        planned = time.monotonic() - 5
        sample = await client.send(ASK, planned_s=planned)
    assert sample.planned_s == planned
    assert sample.sent_s >= planned + 5


async def test_a_tokenizer_counts_where_the_server_does_not(server, wire):
    server.scripts = [stream(wire, wire.delta("셋 더하기 넷"))]
    async with Client(server.endpoint, count_tokens=lambda text: len(text.split())) as client:
        sample = await client.send(ASK)
    assert (sample.completion_tokens, sample.tokens_counted_by) == (3, "tokenizer")


async def test_nobody_there_is_a_failed_sample_and_one_sentence(tmp_path):
    async with Client(Endpoint(model="m", socket_path=str(tmp_path / "no.sock"))) as client:
        sample = await client.send(ASK, planned_s=1.0)
        assert (sample.error, sample.planned_s) == ("refused", 1.0)
        with pytest.raises(EngineError) as error:
            await client.check(ASK)
    assert error.value.key == "measure.refused"


@pytest.mark.parametrize(
    ("status", "key"), [(401, "wrong_key"), (403, "wrong_key"), (404, "wrong_model"), (500, "request_failed")]
)
async def test_a_check_explains_what_is_wrong(server, wire, status, key):
    server.scripts = [failure(wire, status, "the model `x` does not exist")]
    async with Client(server.endpoint) as client:
        with pytest.raises(EngineError) as error:
            await client.check(ASK)
    assert error.value.key == f"measure.{key}"
    assert str(error.value)


async def test_a_check_of_a_server_that_never_ends_names_the_time(server, wire):
    server.scripts = [[wire.head(extra=CHUNKED), *wire.chunked(wire.delta("a"))[:-1], wire.HANG]]
    async with Client(server.endpoint, timeout_s=0.1) as client:
        with pytest.raises(EngineError) as error:
            await client.check(ASK)
    assert error.value.key == "measure.timed_out"


async def test_a_server_that_repeats_the_key_does_not_get_it_into_a_record(server, wire):
    server.scripts = [failure(wire, 400, "bad key secret given")]
    async with Client(server.endpoint) as client:
        sample = await client.send(ASK)
    assert sample.error == "http_400: bad key *** given"


async def test_the_stamp_of_an_event_lies_between_writing_it_and_reading_on(server, wire):
    marks = []
    script = [wire.head(extra=CHUNKED)]
    for letter in "abc":
        data = wire.delta(letter)
        script += [lambda: marks.append(time.monotonic_ns()), b"%x\r\n" % len(data) + data + b"\r\n", wire.GAP]
    done = wire.DONE
    server.scripts = [[*script, b"%x\r\n" % len(done) + done + b"\r\n0\r\n\r\n"]]
    async with Client(server.endpoint) as client:
        sample = await client.send(ASK)
    assert len(sample.token_s) == 3
    assert all(mark * 1e-9 <= at for mark, at in zip(marks, sample.token_s, strict=True))


def test_the_runner_measures_outside_any_loop():
    async def main():
        return type(asyncio.get_running_loop()).__module__

    assert run(main()).split(".")[0] in {"uvloop", "asyncio"}
