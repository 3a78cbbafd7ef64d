import json

import pytest

from llmopt.measure.counting import count_tokens
from llmopt.records import Sample

TIMES = (1.0, 2.0, 3.0)


def sample(**more):
    given = {"text": "안녕하세요", "completion_tokens": 3, "tokens_counted_by": "chunks", "token_s": TIMES, **more}
    return Sample(item_id="q", planned_s=0.0, sent_s=0.0, ended_s=3.0, **given)


def reply(wire, body, status=200):
    content = json.dumps(body).encode()
    return [wire.head(status, content_type="application/json", extra=(f"Content-Length: {len(content)}", "")), content]


@pytest.mark.parametrize("told", [{"tokens": [1, 2, 3, 4, 5, 6, 7]}, {"count": 7, "tokens": [1], "max_model_len": 9}])
async def test_tokens_come_from_the_servers_own_tokenizer(server, wire, told):
    server.scripts = [reply(wire, told)]
    (found,) = await count_tokens(server.endpoint, [sample()])
    assert (found.completion_tokens, found.tokens_counted_by) == (7, "tokenizer")
    assert found.token_counts == (3, 2, 2)
    asked = json.loads(server.requests[0][1])
    assert asked["content"] == asked["prompt"] == "안녕하세요"


async def test_a_server_that_told_its_usage_is_not_asked(server, wire):
    server.scripts = [reply(wire, {"count": 7})]
    kept = [sample(tokens_counted_by="usage"), sample(error="refused"), sample(text="")]
    assert await count_tokens(server.endpoint, kept) == tuple(kept)
    assert server.requests == []


@pytest.mark.parametrize(("told", "status"), [({"error": "no"}, 404), ([], 200), ({"tokens": []}, 200), ({"count": True}, 200)])  # fmt: skip
async def test_without_a_tokenizer_chunks_stay_and_it_is_asked_once(server, wire, told, status):
    server.scripts = [reply(wire, told, status)]
    kept = [sample(), sample()]
    assert await count_tokens(server.endpoint, kept) == tuple(kept)
    assert len(server.requests) == 1


async def test_tokens_that_match_the_events_need_no_shares(server, wire):
    server.scripts = [reply(wire, {"count": 4})]
    (found,) = await count_tokens(server.endpoint, [sample()])
    assert (found.completion_tokens, found.token_counts) == (4, ())
