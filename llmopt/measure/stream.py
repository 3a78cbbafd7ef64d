"""From the raw exchange of one streamed request to its Sample: which events are tokens, and what was answered.

Content-bearing are non-empty text, reasoning and tool-call deltas. Role-only, empty, usage-only and comment events
are not tokens and never stop a clock. Failures become samples with ``error`` set to ``kind: message``.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal

from llmopt.measure.sse import Event, Splitter
from llmopt.records import Sample
from llmopt.runtime.http import Exchange

__all__ = ["TokenCounter", "read_answer", "reading", "split_thinking"]

TokenCounter = Callable[[str], int]
"""Counts tokens where the server does not say."""

OK = 200
NS = 1e-9
SLICE = 64
"""Reads taken between two yields: about a tenth of a millisecond, so that stamping other streams never waits longer."""
THINKING_TAGS = (("<think>", "</think>"), ("<thought>", "</thought>"))
ERROR_CHARACTERS = 300
UNSURE = re.compile(rb'["\\\n]')
"""What could end or escape a JSON string, or has no place in one."""
USAGE = re.compile(rb'"usage":\s*\{')
"""An event that tells running token counts: it is always parsed."""


def read_answer(
    exchange: Exchange, *, item_id: str, planned_s: float | None = None, count_tokens: TokenCounter | None = None
) -> Sample:
    """The Sample of a finished exchange, read in one go."""
    steps = reading(exchange, item_id=item_id, planned_s=planned_s, count_tokens=count_tokens)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def reading(
    exchange: Exchange, *, item_id: str, planned_s: float | None = None, count_tokens: TokenCounter | None = None
) -> Generator[None, None, Sample]:
    """The same in slices: yields every few events, so that a busy loop can stamp other streams between."""
    answer = _Answer()
    if exchange.answered and exchange.status != OK:
        answer.fail(f"http_{exchange.status}", _error_text(_body(exchange)))
    elif exchange.headers.get("content-encoding", "identity") != "identity":
        answer.fail("compressed", exchange.headers["content-encoding"])
    elif "json" in exchange.headers.get("content-type", ""):
        answer.take(Event(exchange.ended_ns, _body(exchange)))
    else:
        for start in range(0, len(exchange.chunks), SLICE):
            answer.read(exchange.chunks[start : start + SLICE])
            if answer.over:
                break
            yield
        answer.read_rest()
    answer.close(exchange)
    return answer.sample(exchange, item_id=item_id, planned_s=planned_s, count_tokens=count_tokens)


def split_thinking(text: str) -> tuple[str, str]:
    """(reasoning, answer) of a text whose engine does not separate them; an unclosed tag makes all of it reasoning."""
    for opening, closing in THINKING_TAGS:
        before, found, after = text.partition(closing)
        if found:
            return before.strip().removeprefix(opening).strip(), after.lstrip()
        if text.lstrip().startswith(opening):
            return text.lstrip().removeprefix(opening).strip(), ""
    return "", text


class _Answer:
    """What the events of one answer have said so far."""

    def __init__(self) -> None:
        self.at_ns: list[int] = []
        self.pieces: list[str] = []
        self.is_answer: list[bool] = []
        self.reasoning: list[str] = []
        self.running: list[int | None] = []
        self.usage: Mapping[str, Any] = {}
        self.timings: Mapping[str, Any] = {}
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.over = False
        self.torn = False
        self.seen = 0
        self.splitter = Splitter()
        self.pattern = _Pattern()

    def fail(self, kind: str, message: str = "") -> None:
        """Keep the first failure."""
        if self.error is None:
            self.error = f"{kind}: {message}" if message else kind
        self.over = True

    def read(self, chunks: Sequence[tuple[int, bytes]]) -> None:
        """Read what some reads brought."""
        done = 0
        while done < len(chunks) and not self.over:
            left = chunks[done:]
            texts = self.pattern.texts_of([raw for _, raw in left]) if self.splitter.between_events else []
            if texts:  # nearly all reads: what is the same for all of them is filled in later
                self.at_ns += [at_ns for at_ns, _ in left[: len(texts)]]
                self.pieces += texts
            else:
                self._read_one(*left[0])
            done += len(texts) or 1

    def _read_one(self, at_ns: int, raw: bytes) -> None:
        before = len(self.at_ns)
        found = self.splitter.feed(at_ns, raw)
        for event in found:
            self.take(event)
            if self.over:
                return
        if len(found) == len(self.at_ns) - before == 1 and self.pieces[-1] and not self.reasoning[-1]:
            self.pattern.learn(raw, self.pieces[-1])

    def read_rest(self) -> None:
        """Read what was left when the stream ended."""
        tail = None if self.over else self.splitter.end()
        if tail is not None:
            self.take(tail)

    def take(self, event: Event) -> None:
        """Read one event."""
        self.seen += 1
        data = event.data.strip()
        if data == b"[DONE]":
            self.over = True
            return
        try:
            payload = json.loads(data.decode("utf-8", "replace"))
        except ValueError:
            if event.whole:
                self.fail("malformed_event", data[:80].decode("utf-8", "replace"))
            self.torn = True
            return
        if not isinstance(payload, dict):
            self.fail("malformed_event", data[:80].decode("utf-8", "replace"))
            return
        if event.name == "error" or payload.get("error") or payload.get("object") == "error":
            self.fail("server_error", _error_text(data))
            return
        self._read(event.at_ns, payload)

    def _read(self, at_ns: int, payload: Mapping[str, Any]) -> None:
        self._fill()  # by the usage as it was told before this event
        usage = payload.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
        if isinstance(payload.get("timings"), dict):
            self.timings = payload["timings"]
        for choice in payload.get("choices") or ():
            if not isinstance(choice, dict):
                self.fail("malformed_event", "choices")
            elif not choice.get("index"):  # we ask for one choice; others would count twice
                self._choice(at_ns, choice)

    def _choice(self, at_ns: int, choice: Mapping[str, Any]) -> None:
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta = choice.get("delta") or choice.get("message") or {}
        if not isinstance(delta, dict):
            self.fail("malformed_event", "delta")
            return
        text = _text(delta.get("content")) or _text(choice.get("text")) or _text(delta.get("refusal"))
        thought = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
        called = bool(delta.get("tool_calls") or delta.get("function_call")) and _calls(delta)
        if not (text or thought or called):
            return
        self._keep(at_ns, text, thought, is_answer=bool(text or called))

    def _fill(self) -> None:
        """Say of plain text events, which were only stamped so far, that they are answer and nothing else."""
        missing = len(self.at_ns) - len(self.running)
        if missing:
            self.is_answer += [True] * missing
            self.reasoning += [""] * missing
            self.running += [self._counted()] * missing

    def _counted(self) -> int | None:
        done = self.usage.get("completion_tokens") if self.usage else None
        return done if isinstance(done, int) else None

    def _keep(self, at_ns: int, text: str, thought: str, *, is_answer: bool) -> None:
        self._fill()
        self.at_ns.append(at_ns)
        self.pieces.append(text)
        self.reasoning.append(thought)
        self.is_answer.append(is_answer)
        self.running.append(self._counted())

    def close(self, exchange: Exchange) -> None:
        """Judge how the stream ended."""
        self._fill()
        framed = "content-length" in exchange.headers or "chunked" in exchange.headers.get("transfer-encoding", "")
        if self.error is not None or (self.over and exchange.status == OK):
            return
        complete = self.finish_reason is not None
        if exchange.failure is not None and (not complete or exchange.failure != "closed_early"):
            self.fail(exchange.failure)
        elif not complete and (self.torn or not framed):
            self.fail("closed_early")
        elif not self.seen and any(data.strip() for _, data in exchange.chunks):
            self.take(Event(exchange.ended_ns, _body(exchange)))

    def sample(
        self, exchange: Exchange, *, item_id: str, planned_s: float | None, count_tokens: TokenCounter | None
    ) -> Sample:
        """Put it together."""
        text = _mended("".join(self.pieces))
        reasoning = _mended("".join(self.reasoning))
        first_answer = next((at for at, is_answer in zip(self.at_ns, self.is_answer, strict=True) if is_answer), None)
        if not reasoning:
            reasoning, answer = split_thinking(text)
            if answer != text:
                text, first_answer = answer, self._first_after_thinking()
        tokens, counted_by = self._tokens(text, reasoning, count_tokens)
        sent_s = exchange.sent_ns * NS
        return Sample(
            item_id=item_id,
            planned_s=sent_s if planned_s is None else planned_s,
            sent_s=sent_s,
            ended_s=exchange.ended_ns * NS,
            token_s=tuple(at * NS for at in self.at_ns),
            token_counts=self._counts(tokens if counted_by != "chunks" else None),
            first_answer_s=None if first_answer is None else first_answer * NS,
            text=text,
            reasoning=reasoning,
            finish_reason=self.finish_reason,
            prompt_tokens=_whole(self.usage.get("prompt_tokens")),
            completion_tokens=tokens,
            cached_tokens=self._cached(),
            tokens_counted_by=counted_by,
            error=self.error,
        )

    def _first_after_thinking(self) -> int | None:
        """When the first visible character after the closing tag came."""
        said = "".join(self.pieces)
        answer = split_thinking(said)[1]
        if not answer:
            return None
        ends = itertools.accumulate(len(piece) for piece in self.pieces)
        start = len(said) - len(answer)
        return next(at_ns for at_ns, end in zip(self.at_ns, ends, strict=True) if end > start)

    def _tokens(
        self, text: str, reasoning: str, count_tokens: TokenCounter | None
    ) -> tuple[int | None, Literal["usage", "tokenizer", "chunks"]]:
        for said in (self.usage.get("completion_tokens"), self.timings.get("predicted_n")):
            if _whole(said) is not None:
                return _whole(said), "usage"
        if count_tokens is not None:
            return count_tokens(reasoning) + count_tokens(text), "tokenizer"
        return len(self.at_ns) or None, "chunks"

    def _cached(self) -> int | None:
        details = self.usage.get("prompt_tokens_details")
        found = details.get("cached_tokens") if isinstance(details, dict) else None
        return _whole(found if found is not None else self.timings.get("cache_n"))

    def _counts(self, tokens: int | None) -> tuple[int, ...]:
        """Tokens of each event: from running usage, else shared out by length where the total says so."""
        number = len(self.at_ns)
        running = [0, *(done for done in self.running if done is not None)]
        if len(running) == number + 1 and number > 1:
            counts = tuple(after - before for before, after in itertools.pairwise(running))
            if min(counts) > 0:
                return counts if max(counts) > 1 else ()
        if tokens is None or tokens <= number + 1:  # the end token makes no event
            return ()
        sizes = [len((a + b).encode("utf-8", "replace")) or 1 for a, b in zip(self.pieces, self.reasoning, strict=True)]
        return _apportion(tokens, sizes)


class _Pattern:
    """The reads of one answer mostly bring one event each that differs in its text alone: no need to parse JSON again.

    A read that begins and ends as the last parsed one did, with nothing between that could end or escape a JSON
    string, says the same with that text in place of the other. Many such reads are taken apart at once.
    """

    def __init__(self) -> None:
        self.before: bytes | None = None
        self.after = b""

    def learn(self, raw: bytes, text: str) -> None:
        """Take the bytes around the text of a parsed event, where it stands in it exactly once and unescaped."""
        if "\\" in text or '"' in text or not raw.endswith(b"\n\n") or USAGE.search(raw):
            return
        for opening in (b'"content":"', b'"content": "'):
            before, found, after = raw.partition(opening + text.encode("utf-8", "replace") + b'"')
            if found and opening not in after:
                self.before, self.after = before + opening, b'"' + after
                return

    def texts_of(self, raws: Sequence[bytes]) -> list[str]:
        """The texts of the first reads, as many as have the known form (which an empty text has not)."""
        before, after = self.before, self.after
        if before is None or not raws[0].startswith(before):
            return []
        middles = b"".join(raws)[len(before) :].split(after + before)
        middles[-1] = middles[-1].removesuffix(after)
        around = len(before) + len(after)
        number = 0
        for raw, middle in zip(raws, middles, strict=False):  # a middle of the right length is that of its own read
            if not middle or len(middle) + around != len(raw):
                break
            number += 1
        said = b"\n".join(middles[:number])
        if b'"' in said or b"\\" in said or said.count(b"\n") >= max(number, 1):
            number = next(k for k, middle in enumerate(middles) if UNSURE.search(middle))
            said = b"\n".join(middles[:number])
        return said.decode("utf-8", "replace").split("\n") if number else []


def _apportion(total: int, sizes: list[int]) -> tuple[int, ...]:
    """``total`` split in proportion to ``sizes``, at least one each (largest remainders)."""
    if not sizes:
        return ()
    spare = total - len(sizes)
    shares = [spare * size / sum(sizes) for size in sizes]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda k: counts[k] - shares[k])
    for k in by_remainder[: spare - sum(counts)]:
        counts[k] += 1
    return tuple(count + 1 for count in counts)


def _text(value: object) -> str:
    """Text of a content field, which may be a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(str(part.get("text") or "") for part in value if isinstance(part, dict))
    return ""


def _calls(delta: Mapping[str, Any]) -> bool:
    """Whether a tool-call delta says anything."""
    calls = delta.get("tool_calls") or [{"function": delta.get("function_call")}]
    functions = [call.get("function") or {} for call in calls if isinstance(call, dict)]
    return any(f.get("arguments") or f.get("name") for f in functions if isinstance(f, dict))


def _mended(text: str) -> str:
    """Join surrogate halves that came in two events."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _body(exchange: Exchange) -> bytes:
    return b"".join(data for _, data in exchange.chunks)


def _error_text(body: bytes) -> str:
    """The message of an error body, in any of the shapes servers use."""
    text = body.decode("utf-8", "replace").strip()
    try:
        payload: Any = json.loads(text)
    except ValueError:
        payload = text
    for key in ("error", "detail", "message"):
        if isinstance(payload, dict) and payload.get(key):
            payload = payload[key]
    if isinstance(payload, dict):
        payload = payload.get("type") or payload.get("code") or text
    return " ".join(str(payload).split())[:ERROR_CHARACTERS]
