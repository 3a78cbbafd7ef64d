"""How likely an engine finds a given continuation: the log-likelihood that multiple-choice benchmarks are scored by.

Two ways, each used only where a probe of the running engine proves it: *echo*, completions that return the prompt's own
log-probabilities (vLLM), and *forced*, one token after the other chosen by a logit bias while the engine reports the
log-probability it had without it (llama.cpp). Both give the same figure: the sum over the continuation's tokens.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from llmopt.records import Endpoint, Sample
from llmopt.runtime.http import HttpError, Response, request

__all__ = ["Likelihood", "Reader", "answer_by_likelihood", "prove_likelihood"]

TIMEOUT_S = 600.0
BIAS = 1000.0
"""Far beyond any difference of logits: the token is chosen whatever the model thinks of it."""
CLOSE = 1e-3
PROBE = "The capital of France is"
OK = 200


class Likelihood(NamedTuple):
    """``log``: the sum of the continuation's log-probabilities; ``greedy``: whether the model would have said it."""

    log: float
    greedy: bool


class Reader(Protocol):
    """One proven way to read likelihoods."""

    @property
    def name(self) -> str:
        """How it reads."""
        ...

    async def read(self, context: str, continuation: str) -> Likelihood:
        """Raises HttpError or ValueError where the engine does not answer as it did when it was probed."""
        ...


async def prove_likelihood(endpoint: Endpoint) -> Reader | None:
    """A reader that this engine proved to have, or None."""
    readers: tuple[Echo | Forced, ...] = (Echo(endpoint), Forced(endpoint))
    for reader in readers:
        try:
            if await reader.proves():
                return reader
        except (HttpError, KeyError, IndexError, TypeError, ValueError):
            continue
    return None


async def answer_by_likelihood(reader: Reader, item_id: str, pairs: Sequence[tuple[str, str]]) -> Sample:
    """The likelihoods of (context, continuation) pairs as a sample whose text is their JSON list."""
    started_s = time.monotonic()
    text, error = "", None
    try:
        found = [await reader.read(*pair) for pair in pairs]
        text = json.dumps([[one.log, one.greedy] for one in found])
    except HttpError as problem:
        error = problem.kind
    except (KeyError, IndexError, TypeError, ValueError) as problem:
        error = f"malformed_answer: {problem}"
    return Sample(
        item_id=item_id,
        planned_s=started_s,
        sent_s=started_s,
        ended_s=time.monotonic(),
        text=text,
        finish_reason=None if error else "stop",
        error=error,
    )


@dataclass(frozen=True)
class Echo:
    """Completions with ``echo``: the log-probabilities of the prompt's own tokens in one request."""

    endpoint: Endpoint
    name: str = "echo"

    async def proves(self) -> bool:
        """Whether a prompt comes back with finite log-probabilities, the first token's excepted."""
        parts = await self._ask(PROBE)
        return len(parts) > 1 and all(value is not None and math.isfinite(value) for _, value, _ in parts[1:])

    async def read(self, context: str, continuation: str) -> Likelihood:
        """The part of the echo that begins where the context ends."""
        context, continuation = _moved_blanks(context, continuation)
        whole = context + continuation
        parts = [one for one in await self._ask(whole) if len(context) <= one[0] < len(whole)]
        if not parts or any(value is None for _, value, _ in parts):
            raise ValueError("no log-probabilities for the continuation")
        return Likelihood(sum(value or 0.0 for _, value, _ in parts), all(greedy for *_, greedy in parts))

    async def _ask(self, prompt: str) -> list[tuple[int, float | None, bool]]:
        """(offset in the text, log-probability, whether it was the likeliest) of each token."""
        wanted = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        body = {"model": self.endpoint.model, "prompt": prompt, **wanted}
        path = f"{self.endpoint.base_path}/completions"
        choice = _checked(await request(self.endpoint, "POST", path, body=body, timeout_s=TIMEOUT_S))["choices"][0]
        if not choice["text"].startswith(prompt):
            raise ValueError("the prompt was not echoed")
        found = choice["logprobs"]
        likeliest = found.get("top_logprobs") or [None] * len(found["tokens"])
        return [
            (offset, value, bool(top) and max(top, key=lambda name: top[name]) == token)
            for token, offset, value, top in zip(
                found["tokens"], found["text_offset"], found["token_logprobs"], likeliest, strict=True
            )
        ]


@dataclass(frozen=True)
class Forced:
    """llama.cpp's own completions: each token of the continuation forced in turn, its true log-probability read."""

    endpoint: Endpoint
    name: str = "forced"

    async def proves(self) -> bool:
        """Whether the second likeliest token, when forced, keeps the log-probability it was listed with."""
        tokens = await self._tokens(PROBE)
        free = await self._next(tokens, {"n_probs": 5})
        second = free["top_logprobs"][1]
        forced = await self._forced(tokens, second["id"])
        return bool(forced["id"] == second["id"] and abs(forced["logprob"] - second["logprob"]) < CLOSE)

    async def read(self, context: str, continuation: str) -> Likelihood:
        """One request a token; the engine keeps the common beginning, so that each reads one token more."""
        context, continuation = _moved_blanks(context, continuation)
        before, whole = await self._tokens(context), await self._tokens(context + continuation)
        total, greedy = 0.0, True
        for place in range(len(before), len(whole)):
            found = await self._forced(whole[:place], whole[place])
            if found["id"] != whole[place]:
                raise ValueError("the engine chose another token than the forced one")
            total += float(found["logprob"])
            greedy = greedy and found["top_logprobs"][0]["id"] == whole[place]
        if len(whole) <= len(before):
            raise ValueError("the continuation adds no token")
        return Likelihood(total, greedy)

    async def _tokens(self, text: str) -> list[int]:
        answer = await self._post("/tokenize", {"content": text, "add_special": True})
        return [int(token) for token in answer["tokens"]]

    async def _forced(self, tokens: Sequence[int], token: int) -> Any:
        return await self._next(tokens, {"n_probs": 1, "logit_bias": [[token, BIAS]]})

    async def _next(self, tokens: Sequence[int], wanted: dict[str, Any]) -> Any:
        body = {"prompt": list(tokens), "n_predict": 1, "temperature": 0, "cache_prompt": True, **wanted}
        return (await self._post("/completion", body))["completion_probabilities"][0]

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        root = self.endpoint.base_path.removesuffix("/v1")
        return _checked(await request(self.endpoint, "POST", root + path, body=body, timeout_s=TIMEOUT_S))


def _moved_blanks(context: str, continuation: str) -> tuple[str, str]:
    """Blanks at the end of the context belong to the continuation, as lm-evaluation-harness counts them."""
    bare = context.rstrip()
    return (bare, context[len(bare) :] + continuation) if bare else (context, continuation)


def _checked(response: Response) -> Any:
    if response.status != OK:
        raise ValueError(f"http_{response.status}")
    return response.json()
