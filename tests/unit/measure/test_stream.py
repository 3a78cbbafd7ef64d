import json

from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.stream import _apportion, read_answer, split_thinking
from llmopt.runtime.http import Exchange

texts = st.text(st.characters(codec="utf-8"), max_size=6)
deltas = st.one_of(
    texts.map(lambda text: {"content": text}),
    texts.map(lambda text: {"role": "assistant", "content": text}),
    texts.map(lambda text: {"reasoning_content": text}),
    texts.map(lambda text: {"content": None, "tool_calls": [{"function": {"arguments": text}}]}),
    texts.map(lambda text: {"content": text, "reasoning_content": text}),
)


def exchange(chunks, **more):
    headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
    return Exchange(sent_ns=0, ended_ns=len(chunks) + 1, status=200, headers=headers, chunks=chunks, **more)


def wire(deltas, *, ascii_only, spaced, **more):
    separators = (", ", ": ") if spaced else (",", ":")
    lines = [
        json.dumps(
            {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more},
            ensure_ascii=ascii_only,
            separators=separators,
        )
        for delta in deltas
    ]
    return [(k + 1, f"data: {line}\n\n".encode()) for k, line in enumerate([*lines, "[DONE]"])]


@given(
    st.lists(deltas, max_size=12), st.booleans(), st.booleans(), st.sampled_from([{}, {"usage": None}, {"created": 7}])
)
def test_reading_by_pattern_says_what_parsing_every_event_would(deltas, ascii_only, spaced, more):
    sample = read_answer(exchange(wire(deltas, ascii_only=ascii_only, spaced=spaced, **more)), item_id="a")
    text = "".join(delta.get("content") or "" for delta in deltas)
    reasoning = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    bearing = [
        k + 1
        for k, delta in enumerate(deltas)
        if delta.get("content")
        or delta.get("reasoning_content")
        or (delta.get("tool_calls") or [{"function": {}}])[0]["function"].get("arguments")
    ]
    assert sample.error is None
    assert (sample.text, sample.reasoning) == (text, reasoning) or "</" in text
    assert [round(at * 1e9) for at in sample.token_s] == bearing


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), st.integers(1, 5)),
        min_size=2,
        max_size=8,
    )
)
def test_running_usage_is_read_from_every_event(parts):
    total, chunks = 0, []
    for k, (text, tokens) in enumerate(parts):
        total += tokens
        body = {"choices": [{"index": 0, "delta": {"content": text}}], "usage": {"completion_tokens": total}}
        chunks.append((k + 1, f"data: {json.dumps(body)}\n\n".encode()))
    chunks.append((len(parts) + 1, b"data: [DONE]\n\n"))
    sample = read_answer(exchange(chunks), item_id="a")
    assert sample.completion_tokens == total
    assert (sample.token_counts or (1,) * len(parts)) == tuple(tokens for _, tokens in parts)


@given(st.integers(1, 500), st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_tokens_are_shared_out_completely(total, sizes):
    total = max(total, len(sizes))
    counts = _apportion(total, sizes)
    assert sum(counts) == total
    assert min(counts) >= 1


@given(st.binary(max_size=300), st.integers(1, 9))
def test_no_body_breaks_the_reader(body, size):
    chunks = [(k + 1, body[k : k + size]) for k in range(0, len(body), size)]
    for status in (200, 400, 500):
        sample = read_answer(Exchange(ended_ns=1000, status=status, chunks=chunks), item_id="a")
        assert sample.error is None or sample.error


def test_thinking_is_split_from_the_answer():
    assert split_thinking("<think>\nhm\n</think>\n\n답: 7") == ("hm", "답: 7")
    assert split_thinking("hm</think>7") == ("hm", "7")
    assert split_thinking("<thought>hm</thought>7") == ("hm", "7")
    assert split_thinking("<think>hm") == ("hm", "")
    assert split_thinking("7") == ("", "7")
