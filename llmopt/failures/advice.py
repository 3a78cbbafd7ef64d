"""What to try after a failure, as changed settings for a *new* trial: a running trial is never edited.

Words of a row's ``recovery``: ``adjust:…``, ``retry:n``, ``restart:n``, ``wait:seconds``, ``new_port:n``,
``redownload:n``, ``free_gpu``, ``clean_shm``, ``discard``, ``quarantine``, ``switch_engine``, ``infeasible``, ``stop``,
``ask``, ``ignore``, ``defer``. An adjustment is ``concept/2``, ``concept*2``, ``concept±x``, ``concept=value``,
``concept=name of a figure read from the log`` or ``concept>`` (the next smaller type); several are joined by commas.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from llmopt.messages import t

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmopt.failures.classify import Failure

__all__ = ["CONCEPTS", "WORDS", "Advice", "advise", "parse_adjustment"]

Value: TypeAlias = str | int | float | bool | None

_STEPS = frozenset({"adjust", "retry", "restart", "wait", "new_port", "redownload", "free_gpu", "clean_shm", "defer"})
_ENDS = frozenset({"infeasible", "stop", "ask", "ignore", "discard", "quarantine", "switch_engine"})
"""Advice after which this configuration is not tried again."""
WORDS = _STEPS | _ENDS

CONCEPTS: Mapping[str, tuple[str, ...]] = {
    "slots": ("slots", "max_num_seqs", "max_running_requests", "batch_size"),
    "batch": ("max_num_batched_tokens", "batch", "chunked_prefill_size"),
    "ubatch": ("ubatch",),
    "context": ("context", "max_model_len", "context_length"),
    "utilization": ("gpu_memory_utilization", "mem_fraction_static"),
    "gpu_layers": ("gpu_layers",),
    "kv_type": ("cache_type_v", "cache_type_k", "kv_cache_dtype"),
    "kv_value_type": ("cache_type_v",),
    "quantization": ("quantization",),
    "dtype": ("dtype",),
    "attention": ("attn_implementation", "attention"),
    "flash_attention": ("flash_attention",),
    "enforce_eager": ("enforce_eager",),
    "chat_template": ("chat_template",),
    "fold_system": ("fold_system",),
    "ready_timeout": ("ready_timeout",),
    "flashinfer_sampler": ("flashinfer_sampler",),
    "max_jobs": ("max_jobs",),
}
"""Our word for a setting → the engines' names for it. An adjustment applies to the names the settings really hold."""

_SMALLER: Mapping[Value, Value] = {
    "f32": "f16", "f16": "q8_0", "bf16": "q8_0", "q8_0": "q4_0",
    "auto": "fp8",
    None: "int8", "none": "int8", "float16": "int8", "bfloat16": "int8", "int8": "int4",
}  # fmt: skip
_SMALLEST_CONTEXT = 256
_LIMITS: Mapping[str, tuple[float, float]] = {"utilization": (0.3, 0.97)}
_ADJUSTMENT = re.compile(r"(?P<concept>[a-z_]+)(?P<sign>[/*+\-=>])(?P<value>[A-Za-z0-9_.]*)")


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do next. ``settings`` are complete, for a derived trial; ``label`` goes into the next call's ``done``."""

    action: str
    label: str
    settings: Mapping[str, Value]
    changes: Mapping[str, Value] = field(default_factory=dict)
    wait_s: float = 0.0
    attempt: int = 1
    most: int = 1

    @property
    def final(self) -> bool:
        """Whether this configuration is given up."""
        return self.action in _ENDS

    @property
    def text(self) -> str:
        """The advice in the reader's language."""
        changes = ", ".join(f"{name} = {value}" for name, value in self.changes.items())
        return t(
            f"failures.advice.{self.action}",
            changes=changes,
            attempt=self.attempt,
            most=self.most,
            seconds=f"{self.wait_s:g}",
        )


def advise(
    failure: Failure,
    settings: Mapping[str, Value],
    *,
    done: Sequence[str] = (),
    most_attempts: int = 3,
    context_per_slot: int = 0,
) -> Advice:
    """The next thing to try for ``failure``; after ``most_attempts`` the configuration counts as infeasible.

    ``done`` holds the labels of advice already followed in this chain of derived trials. ``context_per_slot`` is what
    one request of the task needs: no adjustment goes below it.
    """
    counts = Counter(done)
    for step in failure.recovery:
        word, _, argument = step.partition(":")
        passing = word == "defer" or (word == "discard" and step != failure.recovery[-1])  # and then do the next one
        if passing or (len(done) >= most_attempts and word not in _ENDS):
            continue
        label = f"{failure.id}:{step}"
        if word == "adjust":
            changes = _adjusted(argument, settings, failure.values, context_per_slot)
            if changes and counts[label] == 0:
                return Advice(action=word, label=label, settings={**settings, **changes}, changes=changes)
        elif word == "wait":
            if counts[label] == 0:
                return Advice(action=word, label=label, settings=dict(settings), wait_s=float(argument))
        elif word in _ENDS:
            return Advice(action=word, label=label, settings=dict(settings))
        else:
            most = int(argument or 1)
            if counts[label] < most:
                attempt = counts[label] + 1
                return Advice(action=word, label=label, settings=dict(settings), attempt=attempt, most=most)
    return Advice(action="infeasible", label=f"{failure.id}:infeasible", settings=dict(settings))


def parse_adjustment(text: str) -> tuple[tuple[str, str, str], ...]:
    """(concept, sign, value) of each part; raises ValueError for what is none."""
    parts = []
    for each in text.split(","):
        match = _ADJUSTMENT.fullmatch(each)
        if match is None or match["concept"] not in CONCEPTS:
            raise ValueError(f"no adjustment: {each!r}")
        parts.append((match["concept"], match["sign"], match["value"]))
    return tuple(parts)


def _adjusted(
    text: str, settings: Mapping[str, Value], figures: Mapping[str, str], context_per_slot: int
) -> dict[str, Value]:
    """The settings this adjustment changes; empty where it does not apply or would cost what the task needs."""
    changes: dict[str, Value] = {}
    for concept, sign, value in parse_adjustment(text):
        names = [name for name in CONCEPTS[concept] if name in settings]
        for name in names if concept == "kv_type" else names[:1]:
            new = _moved(concept, settings[name], sign, value, figures)
            if new != settings[name]:
                changes[name] = new
    merged = {**settings, **changes}
    context = next((merged[name] for name in CONCEPTS["context"] if name in merged), None)
    if any(name in changes for name in CONCEPTS["context"]) and isinstance(context, int):
        # llama.cpp divides its context by its slots; the other engines' limit is for one request
        slots = merged.get("slots", 1) if "context" in merged and not merged.get("kv_unified") else 1
        share = context // slots if isinstance(slots, int) and slots > 0 else context
        if share < max(context_per_slot, _SMALLEST_CONTEXT):
            return {}
    return changes


def _moved(concept: str, old: Value, sign: str, value: str, figures: Mapping[str, str]) -> Value:
    """The setting after one adjustment; the old one where it does not apply."""
    if sign == ">":
        return _SMALLER.get(old, old)
    if sign == "=":
        return _named(old, figures.get(value, value))
    if isinstance(old, bool) or not isinstance(old, int | float):
        return old
    amount = float(value)
    new = {"/": old / amount, "*": old * amount, "+": old + amount, "-": old - amount}[sign]
    if isinstance(old, int):
        return max(1, int(new)) if old >= 1 else old
    low, high = _LIMITS.get(concept, (0.0, float("inf")))
    return round(min(high, max(low, new)), 4)


def _named(old: Value, text: str) -> Value:
    """A value written in a row, in the type of the setting it replaces; a figure the log did not hold changes none."""
    if isinstance(old, bool):
        return text in ("true", "on")
    if isinstance(old, int):
        return int(text) if text.isdigit() else old
    return None if text == "none" else text
