"""Confirmation: is the winner really better, on items no trial has seen, launch against launch?

The arms form a ladder from the baseline to the winner — prompt, then sampling, then launch settings — so that each
step's gain stands alone. A *block* launches every engine once (order reversed from block to block: A B, B A …) and asks
each arm the block's own held-out items. The launch is the replicate for speed, the item for quality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from llmopt.records import Configuration, Item, Outcome, Sample
from llmopt.search.trial import TrialBench, TrialResult

__all__ = [
    "MIN_BLOCKS",
    "POINTS",
    "Arm",
    "ArmPass",
    "PassRecorder",
    "Step",
    "blocks_of",
    "comparable_passes",
    "confirm",
    "ladder",
    "pair_of",
    "steps",
]

POINTS = ("best_quality", "fastest", "smallest")
"""Named points beside the recommended one."""
MIN_BLOCKS = 4
"""Fewer pairs of launches support no interval worth printing."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One configuration under comparison; ``names`` are all its roles (an unchanged step shares its neighbour's)."""

    names: tuple[str, ...]
    configuration: Configuration


@dataclass(frozen=True, kw_only=True)
class Step:
    """One rung of the ladder: the gain of ``name`` is ``after`` against ``before`` (both are keys of arms)."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class ArmPass:
    """One arm on one block's items."""

    block: int
    key: str
    result: TrialResult
    attempt: str = ""
    """The run it belongs to: arms are compared only within one run of a block."""


class PassRecorder(Protocol):
    """Commits a pass before the next begins."""

    def recorded(self, block: int, arm: Arm, result: TrialResult) -> None:
        """Write ``result``; it is on disk when this returns."""
        ...


def ladder(
    baseline: Configuration, best: Configuration, others: Mapping[str, Configuration] | None = None
) -> tuple[Arm, ...]:
    """The arms: baseline, + the winner's prompt, + its sampling, + its launch settings; ``others`` by their role.

    Others are the hardware ``preset`` and further named points of the Pareto set. Where the winner is the baseline
    there is nothing to confirm, and the others are not asked for.
    """
    prompt = replace(baseline, request=replace(baseline.request, prompt_form=best.request.prompt_form))
    sampling = replace(baseline, request=best.request)
    roles = [("baseline", baseline), ("prompt", prompt), ("sampling", sampling), ("best", best)]
    if best.key != baseline.key:
        roles += list((others or {}).items())
    by_key: dict[str, Arm] = {}
    for name, configuration in roles:
        known = by_key.get(configuration.key)
        names = (*known.names, name) if known else (name,)
        by_key[configuration.key] = Arm(names=names, configuration=configuration)
    return tuple(by_key.values())


def steps(arms: Sequence[Arm]) -> tuple[Step, ...]:
    """The comparisons the report shows: each rung of the ladder, the whole, and the winner against the preset."""
    key = {name: arm.configuration.key for arm in arms for name in arm.names}
    wanted = [
        ("prompt", "baseline", "prompt"),
        ("sampling", "prompt", "sampling"),
        ("launch", "sampling", "best"),
        ("total", "baseline", "best"),
        ("preset", "preset", "best"),
        *((name, "baseline", name) for name in POINTS),
    ]
    return tuple(
        Step(name=name, before=key[before], after=key[after])
        for name, before, after in wanted
        if before in key and after in key and key[before] != key[after]
    )


def blocks_of(items: Sequence[Item], blocks: int) -> list[tuple[Item, ...]]:
    """``items`` dealt over ``blocks`` in turn, so that levels and templates spread evenly; equal sizes."""
    size = len(items) // blocks
    return [tuple(items[i + j * blocks] for j in range(size)) for i in range(blocks)]


async def confirm(
    bench: TrialBench,
    arms: Sequence[Arm],
    blocks: Sequence[Sequence[Item]],
    *,
    done: Sequence[ArmPass],
    recorder: PassRecorder,
    on_sample: Callable[[Sample], None] | None = None,
    on_pass: Callable[[int, Arm], None] | None = None,
    enough: Callable[[int, Sequence[ArmPass]], bool] | None = None,
    asked: Callable[[int], Sequence[Arm]] | None = None,
) -> list[ArmPass]:
    """Run the blocks that are not in ``done`` yet, until ``enough(blocks, passes)`` after one of them.

    ``asked`` says which arms a block has time for, all where it is not given. Passes of a block that a kill cut short
    are run again as a whole block: pairs must share their minute.
    """
    passes = comparable_passes(done, arms)
    for number, items in enumerate(blocks):
        if enough is not None and number and enough(number, [p for p in passes if p.block < number]):
            break
        wanted = arms if asked is None else asked(number)
        earlier = {p.key for p in passes if p.block == number}
        if earlier.issuperset(arm.configuration.key for arm in wanted):
            continue
        passes = [p for p in passes if p.block != number]
        for group in _order(wanted, number):
            for position, arm in enumerate(group):
                if on_pass is not None:
                    on_pass(number, arm)
                result = await bench.run(arm.configuration, items, fresh=position == 0, on_sample=on_sample)
                recorder.recorded(number, arm, result)
                passes.append(ArmPass(block=number, key=arm.configuration.key, result=result))
                if result.outcome is not Outcome.DONE:
                    break
    return passes


def pair_of(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The baseline and the winner: what a final is about."""
    return tuple(arm for arm in arms if {"baseline", "best"} & set(arm.names))


def comparable_passes(passes: Sequence[ArmPass], arms: Sequence[Arm]) -> list[ArmPass]:
    """The finished passes of one run of each block: the first that measured every arm, else the first with the pair.

    A run that ended before baseline and winner were both measured has nothing to tell.
    """
    known, pair = ({arm.configuration.key for arm in some} for some in (arms, pair_of(arms)))
    runs: dict[tuple[int, str], dict[str, ArmPass]] = {}
    for one in passes:
        if one.key in known and one.result.outcome is Outcome.DONE:
            runs.setdefault((one.block, one.attempt), {})[one.key] = one
    chosen: dict[int, dict[str, ArmPass]] = {}
    for least in (known, pair):
        for (block, _), found in runs.items():
            if found.keys() >= least:
                chosen.setdefault(block, found)
    return [one for _, found in sorted(chosen.items()) for one in found.values()]


def _order(arms: Sequence[Arm], block: int) -> list[list[Arm]]:
    """Arms grouped by launch settings; odd blocks run the groups, and the arms within, backwards (A B B A)."""
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.configuration.launch_key, []).append(arm)
    ordered = list(groups.values())
    return [group[::-1] for group in ordered[::-1]] if block % 2 else ordered
