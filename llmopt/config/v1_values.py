"""Single values of an old configuration: spellings, quantisations, ranges of numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from llmopt.config.models import QuantizationConfig
from llmopt.records import DataType

__all__ = ["Start", "listed", "plain", "quantization", "starting_value", "word", "words"]

_COUNTS = {"top_k", "max_tokens"}
_WHOLE = {"trials", "seed", "samples", "streams"}
_GGUF = re.compile(r"(?:i?q\d(?:_[a-z0-9]+)*|bf16|f16|f32|mxfp4)")
_BETWEEN = re.compile(r"\s*([\d.]+)\s*(?:-|~|\.\.|to|–)\s*([\d.]+)\s*")
_LOW, _HIGH = ("min", "low", "lower", "from", "start"), ("max", "high", "upper", "to", "end", "stop")
_CHOICES = ("values", "choices", "options", "range")
_SINGLE = ("default", "value")
_PAIR = 2


@cache
def words() -> Mapping[str, Any]:
    """The vocabulary of old files and of other optimisers, by what each word means today."""
    found: Mapping[str, Any] = json.loads(Path(__file__).with_name("v1_words.json").read_text(encoding="utf-8"))
    return found


def plain(value: Any) -> str:
    """A word without case, spaces, hyphens or the ``torch.`` before it."""
    return re.sub(r"[\s-]+", "_", str(value).strip().lower().removeprefix("torch."))


def word(value: Any, table: str) -> str | None:
    """What ``value`` is called today, by the vocabulary's ``table``; None where it is nothing we have."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    name = re.sub(r":\d+$", "", plain(value))  # "cuda:0"
    return next((today for today, aliases in words()[table].items() if name in aliases), None)


def quantization(key: str, value: Any) -> QuantizationConfig | None:
    """The quantisation that ``key: value`` stands for; None where that cannot be said."""
    if isinstance(value, Mapping):
        return _described(value)
    if key in {"load_in_4bit", "load_in_8bit"}:
        return _width(key) if value is True else None
    name = plain(value)
    if isinstance(value, bool):
        return None
    if name in words()["quantized_files"]:
        return QuantizationConfig(method=name.replace("_", "-"))
    if _GGUF.fullmatch(name):
        return QuantizationConfig(method=name.upper())
    return _width(name, "fp4" if "fp4" in name else "nf4")


def _width(name: str, quant_type: str = "nf4") -> QuantizationConfig | None:
    bits = word(name, "widths")
    if bits is None:
        return None
    return QuantizationConfig(load_in_4bit=bits == "4", load_in_8bit=bits == "8", quant_type=quant_type)


def _described(value: Mapping[str, Any]) -> QuantizationConfig | None:
    given = {plain(key): each for key, each in value.items()}
    if given.get("enabled") is False:
        return None
    method = next((given[key] for key in ("method", "quant_method", "type", "name") if given.get(key)), None)
    for key in ("load_in_4bit", "load_in_8bit", "bits"):
        if given.get(key) and (method is None or plain(method) in {"bitsandbytes", "bnb"}):
            found = quantization(key, given[key])
            if found is None:
                return None
            computed = word(given.get("bnb_4bit_compute_dtype", given.get("compute_dtype", "auto")), "dtypes")
            kind = plain(given.get("bnb_4bit_quant_type", given.get("quant_type", "nf4")))
            double = given.get("bnb_4bit_use_double_quant", given.get("double_quant", True))
            return QuantizationConfig(
                load_in_4bit=found.load_in_4bit,
                load_in_8bit=found.load_in_8bit,
                compute_dtype=DataType(computed or "auto"),
                quant_type=kind if kind in {"nf4", "fp4"} else "nf4",
                double_quant=double is not False,
            )
    return None if method is None else quantization("quantization", method)


@dataclass(frozen=True, kw_only=True)
class Start:
    """One number out of what was written; ``how`` it was chosen, and the ends of the range it came from."""

    value: float
    how: Literal["same", "spelling", "range", "choices", "limit"]
    low: float | None = None
    high: float | None = None


def starting_value(name: str, value: Any) -> Start | None:
    """The value to start from: a number as it is, the middle of a range, the first of several choices.

    Of a range of ``max_tokens`` the upper end, because it is the limit of an answer. None where there is no number.
    """
    single = _number(value)
    if single is not None:
        return Start(value=_whole(name, single), how="spelling" if isinstance(value, str) else "same")
    numbers, is_range = _numbers(value)
    if not numbers:
        return None
    low, high = _whole(name, min(numbers)), _whole(name, max(numbers))
    if name == "max_tokens":
        return Start(value=high, how="limit", low=low, high=high)
    if isinstance(value, Mapping):
        chosen = next((n for key in _SINGLE if (n := _number(value.get(key))) is not None), None)
        if chosen is not None:
            return Start(value=_whole(name, chosen), how="choices", low=low, high=high)
    if is_range:
        return Start(value=_whole(name, round((low + high) / 2, 4)), how="range", low=low, high=high)
    return Start(value=_whole(name, numbers[0]), how="choices", low=low, high=high)


def listed(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Each name in a name, a list of names or of objects with a name or path, or an object by name."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from listed(f"{where}[{number}]", each)
    elif isinstance(value, Mapping):
        named = _called(value)
        if named is not None:
            yield f"{where}.{named}", value[named]
        else:
            for key, each in value.items():
                inner = _called(each) if isinstance(each, Mapping) else None
                yield f"{where}.{key}", each[inner] if inner else str(key)
    else:
        yield where, str(value)


def _called(value: Mapping[str, Any]) -> str | None:
    return next((key for key in ("path", "name", "id") if isinstance(value.get(key), str)), None)


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value) if re.search(r"[.eE]", value) else int(value[:40])
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _numbers(value: Any) -> tuple[list[float], bool]:
    """All numbers in a range or list of choices, and whether it is a range."""
    if isinstance(value, str) and (found := _BETWEEN.fullmatch(value)):
        value = [*found.groups()]
    if isinstance(value, Mapping):
        ends = [next((value[key] for key in keys if key in value), None) for keys in (_LOW, _HIGH)]
        if None not in ends:
            return _all_numbers(ends), True
        inner = next((value[key] for key in (*_CHOICES, *_SINGLE) if key in value), None)
        return _numbers(inner if isinstance(inner, list) else [inner])
    if isinstance(value, list):
        numbers = _all_numbers(value)
        return numbers, len(numbers) == _PAIR and numbers[0] < numbers[1]
    return [], False


def _all_numbers(values: list[Any]) -> list[float]:
    """The numbers of ``values``; none at all where one of them is not a number."""
    numbers = [number for each in values if (number := _number(each)) is not None]
    return numbers if len(numbers) == len(values) else []


def _whole(name: str, value: float) -> float:
    if name in _COUNTS or (name in _WHOLE and float(value).is_integer()):
        return round(value)
    return value
