"""Multiple choice by log-probabilities: only behind a probe, and a failed request stays a failed request."""

import math
from contextlib import asynccontextmanager

import pytest

from llmopt.measure.letters import answer_by_letters, letter_shares, proves_logprobs
from llmopt.measure.quality import score
from llmopt.records import AnswerStatus, Item
from tests.unit.json_server import json_server

ITEM = Item(id="c", question="고르세요.", answers=("B",), kind="choice", options=("가", "나", "다"))
ASKED = ({"role": "user", "content": "고르세요. A. 가 B. 나 C. 다"},)


@asynccontextmanager
async def engine(status, body):
    """Always answers the same; the endpoint, and what it was asked."""
    seen = []

    def answer(_path, asked):
        seen.append(asked)
        return status, body

    async with json_server(answer) as endpoint:
        yield endpoint, seen


def alternatives(**values):
    entries = [{"token": token, "logprob": math.log(value)} for token, value in values.items()]
    return {"choices": [{"logprobs": {"content": [{"token": "x", "top_logprobs": entries}]}}]}


def test_spellings_of_a_letter_are_added_up():
    shares = letter_shares({"A": math.log(0.3), " B": math.log(0.2), "(B": math.log(0.2), "가": math.log(0.3)}, 3)
    assert shares == pytest.approx({"A": 0.3 / 0.7, "B": 0.4 / 0.7})
    assert letter_shares({"D": -0.1, "음": -0.2}, 3) == {}


async def test_the_most_probable_letter_is_the_answer():
    async with engine(200, alternatives(A=0.3, B=0.5, C=0.1)) as (endpoint, seen):
        sample = await answer_by_letters(endpoint, ITEM, ASKED)
    assert score(ITEM, sample).value == 1.0
    assert seen[0]["max_tokens"] == 1
    assert seen[0]["logprobs"] is True
    assert seen[0]["messages"] == list(ASKED)


async def test_no_letter_among_the_alternatives_is_an_empty_answer():
    async with engine(200, alternatives(음=0.9, 네=0.1)) as (endpoint, _):
        sample = await answer_by_letters(endpoint, ITEM, ASKED)
    assert score(ITEM, sample).status is AnswerStatus.EMPTY


@pytest.mark.parametrize(
    ("status", "body", "proved"),
    [
        (200, alternatives(A=0.5, B=0.5), True),
        (200, alternatives(A=1.0), False),
        (200, {"choices": [{"logprobs": None}]}, False),
        (200, {"choices": [{"message": {"content": "A"}}]}, False),
        (200, {"error": "no"}, False),
        (400, {"error": "logprobs are not supported"}, False),
    ],
)
async def test_the_probe(status, body, proved):
    async with engine(status, body) as (endpoint, _):
        assert await proves_logprobs(endpoint) is proved


async def test_a_failed_request_is_not_an_answer():
    async with engine(500, {}) as (endpoint, _):
        sample = await answer_by_letters(endpoint, ITEM, ASKED)
    assert sample.error == "http_500"
    assert score(ITEM, sample).status is AnswerStatus.REQUEST_ERROR
    gone = await answer_by_letters(endpoint, ITEM, ASKED)
    assert gone.error
    assert await proves_logprobs(endpoint) is False
