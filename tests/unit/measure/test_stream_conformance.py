"""The table of stream oddities: each row is what a server may do and what the sample must then say."""

import json

import pytest

from llmopt.measure.client import Client
from llmopt.records import InferenceParams, Request

ASK = Request(item_id="q1", messages=[{"role": "user", "content": "?"}], params=InferenceParams(max_tokens=8))
CHUNKED = ("Transfer-Encoding: chunked", "")


def usage(wire, completion, prompt=5, **more):
    return wire.event(choices=[], usage={"prompt_tokens": prompt, "completion_tokens": completion, **more})


def rows(w):
    role = w.event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    stop = w.event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    end = [stop, w.DONE]

    def stream(*pieces, extra=CHUNKED, status=200, reason="OK"):
        return [w.head(status, reason, extra=extra), *w.chunked(*pieces)]

    def plain(body, status=200, reason="OK"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return [
            w.head(status, reason, content_type="application/json", extra=(f"Content-Length: {len(body)}", "")),
            body,
        ]

    ab = [w.delta("a"), w.delta("b")]
    whole = b"".join([role, *ab, *end])
    korean = w.delta("가나")
    smile = json.dumps({"choices": [{"index": 0, "delta": {"content": "😀"}}]})
    high, low = smile.replace("\\ud83d\\ude00", "\\ud83d"), smile.replace("\\ud83d\\ude00", "\\ude00")
    message = {"choices": [{"message": {"content": "ab"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}
    return {
        # name: (script, text, events, further facts)
        "plain stream": (stream(role, *ab, *end), "ab", 2, {"finish_reason": "stop", "tokens_counted_by": "chunks"}),
        "role-only first event is no token": (stream(role, w.delta("ab"), *end), "ab", 1, {}),
        "role and content in the first event": (stream(w.delta("ab", role="assistant"), *end), "ab", 1, {}),
        "empty deltas are no tokens": (stream(w.delta(""), w.delta("ab"), w.delta(""), *end), "ab", 1, {}),
        "null content": (stream(w.event(choices=[{"delta": {"content": None}}]), *ab, *end), "ab", 2, {}),
        "null delta": (stream(w.event(choices=[{"delta": None}]), *ab, *end), "ab", 2, {}),
        "a space or newline is a token": (stream(w.delta("a"), w.delta(" "), w.delta("\n"), *end), "a \n", 3, {}),
        "content in the finishing event": (stream(w.delta("a"), w.delta("b", "length"), w.DONE), "ab", 2, {"finish_reason": "length"}),
        "usage-only tail": (stream(*ab, stop, usage(w, 2), w.DONE), "ab", 2, {"completion_tokens": 2, "prompt_tokens": 5, "tokens_counted_by": "usage"}),
        "usage in the last content event": (stream(w.delta("a"), w.event(choices=[{"delta": {"content": "b"}, "finish_reason": "stop"}], usage={"completion_tokens": 2}), w.DONE), "ab", 2, {"completion_tokens": 2, "token_counts": ()}),
        "running usage tells tokens per event": (
            stream(*(w.event(choices=[{"delta": {"content": c}}], usage={"completion_tokens": n}) for c, n in (("a", 1), ("bcd", 4), ("e", 5))), *end),
            "abcde", 3, {"completion_tokens": 5, "token_counts": (1, 3, 1)}),
        "several tokens in an event": (stream(w.delta("a"), w.delta("bcdefghi"), stop, usage(w, 9), w.DONE), "abcdefghi", 2, {"completion_tokens": 9, "token_counts": (2, 7)}),
        "usage without content tokens": (stream(role, stop, usage(w, 0), w.DONE), "", 0, {"completion_tokens": 0, "error": None}),
        "cached prompt tokens": (stream(*ab, stop, usage(w, 2, prompt_tokens_details={"cached_tokens": 4}), w.DONE), "ab", 2, {"cached_tokens": 4}),
        "reasoning_content deltas": (stream(w.delta(reasoning_content="hm"), w.delta("ab"), *end), "ab", 2, {"reasoning": "hm"}),
        "reasoning deltas": (stream(w.delta(reasoning="hm"), w.delta("ab"), *end), "ab", 2, {"reasoning": "hm"}),
        "reasoning in tags": (stream(w.delta("<think>"), w.delta("hm"), w.delta("</think>\n\n"), w.delta("ab"), *end), "ab", 4, {"reasoning": "hm"}),
        "reasoning cut off": (stream(w.delta("<think>"), w.delta("hm", "length"), w.DONE), "", 2, {"reasoning": "hm", "first_answer_s": None}),
        "tool-call deltas": (
            stream(*(w.event(choices=[{"delta": {"tool_calls": [{"index": 0, "function": f}]}}]) for f in ({"name": "f", "arguments": ""}, {"arguments": "{"}, {"arguments": "}"}, {})), *end),
            "", 3, {}),
        "a refusal is content": (stream(w.delta(refusal="no"), *end), "no", 1, {}),
        "content as parts": (stream(w.event(choices=[{"delta": {"content": [{"type": "text", "text": "ab"}]}}]), *end), "ab", 1, {}),
        "legacy text field": (stream(w.event(choices=[{"index": 0, "text": "ab", "finish_reason": "stop"}]), w.DONE), "ab", 1, {}),
        "a second choice is not counted": (stream(w.delta("ab"), w.event(choices=[{"index": 1, "delta": {"content": "zz"}}]), *end), "ab", 1, {}),
        "an event in three reads": (stream(ab[0][:9], ab[0][9:30], ab[0][30:] + ab[1], *end), "ab", 2, {}),
        "UTF-8 cut inside a letter": (stream(korean[:korean.index("가".encode()) + 1], korean[korean.index("가".encode()) + 1:], *end), "가나", 1, {}),
        "a surrogate pair in two events": (stream(f"data: {high}\n\n".encode(), f"data: {low}\n\n".encode(), *end), "😀", 2, {}),
        "everything in one read": ([w.head(extra=CHUNKED) + b"%x\r\n" % len(whole) + whole + b"\r\n0\r\n\r\n"], "ab", 2, {}),
        "one byte a chunk": (stream(*(whole[k:k + 1] for k in range(len(whole)))), "ab", 2, {}),
        "comments and pings": (stream(b": ping\n\n", ab[0], b":\n\n", ab[1], *end), "ab", 2, {}),
        "CR LF line ends": (stream(*(e.replace(b"\n", b"\r\n") for e in (*ab, *end))), "ab", 2, {}),
        "CR line ends": (stream(*(e.replace(b"\n", b"\r") for e in (*ab, *end))), "ab", 2, {}),
        "no space after data:": (stream(*(e.replace(b"data: ", b"data:") for e in (*ab, *end))), "ab", 2, {}),
        "data over several lines": (stream(b'data: {"choices": [{"delta":\ndata: {"content": "ab"}}]}\n\n', *end), "ab", 1, {}),
        "id, event and retry fields": (stream(b"id: 7\nevent: message\nretry: 10\n" + ab[0], ab[1], *end), "ab", 2, {}),
        "a byte order mark": (stream(b"\xef\xbb\xbf" + ab[0], ab[1], *end), "ab", 2, {}),
        "nothing after [DONE] counts": (stream(*ab, *end, w.delta("zz")), "ab", 2, {}),
        "no [DONE] after the finish": (stream(*ab, stop), "ab", 2, {"finish_reason": "stop"}),
        "[DONE] but the answer is left open": ([w.head(extra=CHUNKED), *w.chunked(*ab, *end)[:-1], w.HANG], "ab", 2, {}),
        "the last blank line is missing": (stream(*ab, stop.rstrip()), "ab", 2, {"finish_reason": "stop"}),
        "chunk extensions and trailers": ([w.head(extra=CHUNKED), b"%x;x=1\r\n" % len(whole) + whole + b"\r\n", b"0\r\nX-T: 1\r\n\r\n"], "ab", 2, {}),
        "content-length framing": ([w.head(extra=(f"Content-Length: {len(whole)}", "")), whole], "ab", 2, {}),
        "delimited by closing": ([b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", whole, w.CLOSE], "ab", 2, {}),
        "interim 100 and 103 answers": ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", w.GAP, *stream(*ab, *end)], "ab", 2, {}),
        "no stream but one JSON answer": (plain(message), "ab", 1, {"completion_tokens": 2, "token_counts": ()}),
        "an event of 1 MB": (stream(w.delta("x" * 1_000_000), *end), "x" * 1_000_000, 1, {}),
        # failures
        "error in mid-stream": (stream(ab[0], w.event(error={"message": "out of memory", "code": 500})), "a", 1, {"error": "server_error: out of memory"}),
        "named error event": (stream(ab[0], b'event: error\ndata: {"message": "boom"}\n\n'), "a", 1, {"error": "server_error: boom"}),
        "old error object": (stream(w.event(object="error", message="too long")), "", 0, {"error": "server_error: too long"}),
        "broken JSON": (stream(ab[0], b"data: {oops\n\n", *end), "a", 1, {"error": "malformed_event: {oops"}),
        "an event that is no object": (stream(b"data: [1]\n\n"), "", 0, {"error": "malformed_event: [1]"}),
        "closed in mid-stream": ([w.head(extra=CHUNKED), *w.chunked(*ab)[:-1], w.CLOSE], "ab", 2, {"error": "closed_early"}),
        "closed in mid-event": ([w.head(extra=CHUNKED), *w.chunked(ab[0], ab[1][:20])[:-1], w.CLOSE], "a", 1, {"error": "closed_early"}),
        "cut off, delimited by closing": ([b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", ab[0], w.CLOSE], "a", 1, {"error": "closed_early"}),
        "429 with a reason": (plain({"error": {"message": "slow down"}}, 429, "Too Many"), "", 0, {"error": "http_429: slow down"}),
        "503 without a body": (plain(b"", 503, "Busy"), "", 0, {"error": "http_503"}),
        "404 in FastAPI's shape": (plain({"detail": "Not Found"}, 404, "Not Found"), "", 0, {"error": "http_404: Not Found"}),
        "400 as plain text": (plain(b"bad  thing\n", 400, "Bad"), "", 0, {"error": "http_400: bad thing"}),
        "a redirect": (plain(b"", 307, "Moved"), "", 0, {"error": "http_307"}),
        "a web page": ([w.head(content_type="text/html", extra=("Content-Length: 13", "")), b"<html></html>"], "", 0, {"error": "malformed_event: <html></html>"}),
        "compressed though not asked for": ([w.head(extra=("Content-Encoding: gzip", "Content-Length: 3", "")), b"\x1f\x8b\x08"], "", 0, {"error": "compressed: gzip"}),
        "not HTTP at all": ([b"\x00\x01\x02\x03", w.CLOSE], "", 0, {"error": "not_http"}),
    }  # fmt: skip


class _Blank:
    """Stands in for the wire vocabulary while the rows are only being named."""

    def __getattr__(self, name):
        filler = "가".encode() + b"data: x"
        return filler if name.isupper() else lambda *_, **__: [filler] if name == "chunked" else filler


NAMES = tuple(rows(_Blank()))


def test_the_table_is_as_long_as_promised():
    assert len(NAMES) >= 25


@pytest.mark.parametrize("name", NAMES)
async def test_oddity(server, wire, name):
    script, text, events, facts = rows(wire)[name]
    server.scripts = [script]
    async with Client(server.endpoint, timeout_s=30) as client:
        sample = await client.send(ASK)
    facts = {"error": None, **facts}
    assert {key: getattr(sample, key) for key in facts} == facts
    assert (sample.text, len(sample.token_s)) == (text, events)
    stamps = [sample.planned_s, sample.sent_s, *sample.token_s, sample.ended_s]
    assert stamps == sorted(stamps)


async def test_a_stream_that_never_ends_becomes_a_failed_sample(server, wire):
    server.scripts = [[wire.head(extra=CHUNKED), *wire.chunked(wire.delta("a"))[:-1], wire.HANG]]
    async with Client(server.endpoint, timeout_s=0.2) as client:
        sample = await client.send(ASK)
    assert (sample.error, sample.text, len(sample.token_s)) == ("timed_out", "a", 1)


async def test_a_connection_closed_while_idle_is_replaced_without_a_trace(server, wire):
    good = [wire.head(extra=CHUNKED), *wire.chunked(wire.delta("a", "stop"), wire.DONE)]
    server.scripts = [[*good, wire.CLOSE], good]
    async with Client(server.endpoint) as client:
        first, second = await client.send(ASK), await client.send(ASK)
    assert (first.error, second.error, second.text) == (None, None, "a")
    assert server.connections == 2
