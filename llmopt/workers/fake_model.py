"""What the fake engine computes with: how fast it is, how much memory it takes, how often it is right; all of it known.

The formulas are simple on purpose: a test that searches for the best settings must know the best settings.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WEIGHTS_MS = {"f16": 40.0, "q8": 24.0, "q4": 16.0}
"""One decode step reads all weights: milliseconds with one thread."""
SEQUENCE_MS = 6.0
PROMPT_TOKEN_MS = 0.8
CACHE_SPEED = {"f16": 1.0, "q8": 0.92, "q4": 0.88}
NO_FLASH = 1.15
BATCH_COST = 64.0
"""A prompt is read in chunks of ``batch``; each costs as much as this many tokens."""
PARALLEL_SHARE = 0.9
WEIGHTS_MIB = {"f16": 400.0, "q8": 210.0, "q4": 120.0}
KV_MIB_PER_TOKEN = {"f16": 0.012, "q8": 0.0064, "q4": 0.0034}
FORM_ACCURACY = {"answer_only": 0.15, "zero_shot": 0.35, "step_by_step": 0.55, "examples": 0.75, "examples_steps": 0.85}
PRECISION_ACCURACY = {"f16": 1.0, "q8": 0.99, "q4": 0.85}
CACHE_ACCURACY = {"f16": 1.0, "q8": 0.99, "q4": 0.93}
HEAT_COST = 0.25
"""Accuracy lost for each degree of temperature."""
STEPS = re.compile(r"차근차근|한 단계씩|단계별|step by step", re.IGNORECASE)
BARE = re.compile(r"답만|기호 하나만|only the", re.IGNORECASE)
VAGUE = {
    "ko": ("모름", "글에 없는 이야기", "하늘이 높고 푸르다", "비가 그치고 바람이 분다"),
    "en": ("unsure", "the text does not say", "a high blue sky", "rain and then wind"),
}
"""What it says where it knows no answer: always the first at temperature 0."""
HANGUL = re.compile(r"[가-힣]")
PIECE = re.compile(r"\s*[가-힣]{1,2}|\s*\w{1,4}|\s*[^\w\s]|\s+")


@dataclass(frozen=True, kw_only=True)
class FakeSettings:
    """The launch settings of the fake engine."""

    threads: int = 2
    slots: int = 4
    batch: int = 512
    context: int = 4096
    precision: str = "f16"
    cache_type: str = "f16"
    flash_attention: str = "on"
    cores: int = 4
    """How many cores the machine pretends to have: threads beyond them get in each other's way."""

    @property
    def speedup(self) -> float:
        """How much faster than one thread: Amdahl's law up to the cores, a collapse beyond."""
        used = min(self.threads, self.cores)
        gain = 1.0 / (1.0 - PARALLEL_SHARE + PARALLEL_SHARE / used)
        return float(gain * (used / self.threads) ** 2)

    @property
    def _attention(self) -> float:
        return CACHE_SPEED[self.cache_type] * (1.0 if self.flash_attention == "on" else NO_FLASH)

    def step_s(self, sequences: int) -> float:
        """Seconds of one decode step that gives each of ``sequences`` one token."""
        work_ms = WEIGHTS_MS[self.precision] + sequences * SEQUENCE_MS
        return work_ms * self._attention / self.speedup / 1000.0

    def prompt_s(self, tokens: int) -> float:
        """Seconds to read a prompt."""
        chunks = -(-tokens // self.batch)
        return (tokens + BATCH_COST * chunks) * PROMPT_TOKEN_MS * self._attention / self.speedup / 1000.0

    @property
    def memory_mib(self) -> float:
        """What the engine would take: weights and the whole KV cache."""
        return WEIGHTS_MIB[self.precision] + self.context * KV_MIB_PER_TOKEN[self.cache_type]


def uniform(*parts: Any) -> float:
    """A number in [0, 1) that depends on nothing but ``parts``."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big") / 2**56


def pieces(text: str) -> list[str]:
    """The text cut into what the fake calls tokens; joined they give the text."""
    return PIECE.findall(text)


def prompt_form(messages: list[dict[str, Any]]) -> str:
    """Which prompt form the messages have: worked examples show as assistant turns, steps and bareness as words."""
    last = content_of(messages[-1]) if messages else ""
    everything = " ".join(content_of(message) for message in messages)
    steps = bool(STEPS.search(everything))
    if any(message.get("role") == "assistant" for message in messages):
        return "examples_steps" if steps else "examples"
    if steps:
        return "step_by_step"
    return "answer_only" if BARE.search(last) else "zero_shot"


def content_of(message: dict[str, Any]) -> str:
    """The text of one chat message, whether given as text or as parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))


@dataclass(kw_only=True)
class Answerer:
    """Writes answers: right ones as often as prompt form, temperature and precision allow, deterministic by seed."""

    seed: int = 0
    known: dict[str, str] = field(default_factory=dict)
    """Question → right answer; the longest question found in the last message counts."""
    settings: FakeSettings = field(default_factory=FakeSettings)
    accuracy: dict[str, float] = field(default_factory=lambda: dict(FORM_ACCURACY))

    @staticmethod
    def read_known(path: Path) -> dict[str, str]:
        """Questions and right answers of a JSON-lines file (``question``, ``answers`` or ``answer``)."""
        known = {}
        with path.open(encoding="utf-8") as lines:  # a user's file may be of any size
            for line in lines:
                item = json.loads(line) if line.strip() else {}
                answers = item.get("answers") or [item.get("answer")]
                if item.get("question") and answers[0] is not None:
                    known[item["question"].strip()] = str(answers[0])
        return known

    def chance(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> float:
        """The probability of a right answer."""
        heat = min(2.0, float(body.get("temperature") or 0.0)) * float(body.get("top_p") or 1.0)
        quality = PRECISION_ACCURACY[self.settings.precision] * CACHE_ACCURACY[self.settings.cache_type]
        return self.accuracy[prompt_form(messages)] * quality * max(0.0, 1.0 - HEAT_COST * heat)

    def text(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        """The answer to a chat: working and a last line as the prompt asks; the bare value where it asks for that."""
        last = content_of(messages[-1]) if messages else ""
        found = max((question for question in self.known if question in last), key=len, default="")
        draw = uniform(self.seed, found or last)
        heat = float(body.get("temperature") or 0.0)
        if heat and uniform(self.seed, last, "kept", body.get("seed")) < min(0.5, heat / 2):
            draw = uniform(self.seed, last, body.get("seed"), round(heat, 3))
        right = self.known.get(found, "")
        answer = right if right and draw < self.chance(messages, body) else self._wrong(right, last, body)
        if prompt_form(messages) == "answer_only":
            return answer
        korean = bool(HANGUL.search(last))
        count = 1 + int(uniform(self.seed, last, "length") * 4)
        working = ("조건을 차례로 살펴봅니다. " if korean else "Going through the conditions one by one. ") * count
        return f"{working.strip()}\n{'정답' if korean else 'Answer'}: {answer}"

    def _wrong(self, right: str, prompt: str, body: dict[str, Any]) -> str:
        offset = 1 + int(uniform(self.seed, prompt, "wrong", body.get("seed")) * 9)
        digits = re.sub(r"\D", "", right)
        if digits:
            return str(int(digits) + offset)
        words = VAGUE["ko" if HANGUL.search(prompt) else "en"]
        heat = float(body.get("temperature") or 0.0)
        return words[offset % len(words)] if heat else words[0]
