"""Several seeds an item where sampling is random: how many, and which, the same for every configuration compared."""

from __future__ import annotations

from llmopt.records import InferenceParams, digest

__all__ = ["repeats_for", "seed_for"]


def repeats_for(params: InferenceParams, wanted: int) -> int:
    """``wanted`` where the temperature leaves something to chance, else 1: greedy repeats would only cost time.

    A temperature left to the engine (None) is taken to be above 0, as engines' own defaults are.
    """
    return 1 if params.temperature == 0 else max(1, wanted)


def seed_for(study_seed: int, item_id: str, repeat: int = 0) -> int:
    """A 31-bit request seed of its own for each item and repeat; configurations are compared on equal seeds."""
    parts: list[int | str] = [study_seed, item_id, repeat] if repeat else [study_seed, item_id]
    return int(digest(parts, size=4), 16) >> 1
