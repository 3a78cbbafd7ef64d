"""Log-likelihoods: only behind a probe, and the sum over the continuation alone."""

import pytest

from llmopt.measure.likelihood import Echo, answer_by_likelihood, prove_likelihood
from tests.unit.json_server import json_server


def echoing(path, body):
    """Words as tokens, each as likely as its length says; one word more is generated, as vLLM does."""
    if path != "/v1/completions" or not body.get("echo"):
        return 404, {}
    tokens, offsets, at = [], [], 0
    for word in body["prompt"].split(" "):
        token = word if not tokens else " " + word
        tokens.append(token)
        offsets.append(at)
        at += len(token)
    tokens.append(" more")
    offsets.append(at)
    logs = [None, *(-len(token) / 10 for token in tokens[1:])]
    tops = [None, *({token if len(token) < 5 else "x": log} for token, log in zip(tokens[1:], logs[1:], strict=True))]
    found = {"tokens": tokens, "text_offset": offsets, "token_logprobs": logs, "top_logprobs": tops}
    return 200, {"choices": [{"text": body["prompt"] + " more", "logprobs": found}]}


async def test_an_echoing_engine_is_read_from_where_the_context_ends():
    async with json_server(echoing) as endpoint:
        reader = await prove_likelihood(endpoint)
        assert reader is not None
        assert reader.name == "echo"
        short = await reader.read("one two", " abc de")
        assert short.log == pytest.approx(-0.7)
        assert short.greedy
        long = await reader.read("one two ", "abcdef")  # the blank belongs to the continuation
        assert long.log == pytest.approx(-0.7)
        assert not long.greedy


@pytest.mark.parametrize(
    "answer",
    [
        lambda path, body: (404, {}),
        lambda path, body: (200, {"choices": [{"text": " Paris", "logprobs": {"content": []}}]}),  # ignores echo
        lambda path, body: (200, {}),
        lambda path, body: (200, {"tokens": [1, 2], "completion_probabilities": []}),
    ],
)
async def test_an_engine_without_it_is_not_believed(answer):
    async with json_server(answer) as endpoint:
        assert await prove_likelihood(endpoint) is None


async def test_a_forced_token_must_keep_the_probability_it_was_listed_with():
    def serve(right):
        def answer(path, body):
            if path == "/tokenize":
                return 200, {"tokens": [1, 2, 3]}
            if path != "/completion":
                return 404, {}
            forced = body.get("logit_bias")
            found = {"id": 7, "logprob": -0.1, "top_logprobs": [{"id": 7, "logprob": -0.1}, {"id": 9, "logprob": -2.5}]}
            if forced:
                found |= {"id": forced[0][0], "logprob": -2.5 if right else 0.0}
            return 200, {"completion_probabilities": [found]}

        return answer

    async with json_server(serve(right=True)) as endpoint:
        reader = await prove_likelihood(endpoint)
        assert reader is not None
        assert reader.name == "forced"
    async with json_server(serve(right=False)) as endpoint:  # it reports the probability after the bias
        assert await prove_likelihood(endpoint) is None


async def test_a_failed_request_is_a_failed_sample():
    async with json_server(lambda path, body: (500, {})) as endpoint:
        sample = await answer_by_likelihood(Echo(endpoint), "i", [("a", " b")])
    assert sample.error is not None
    assert sample.text == ""
