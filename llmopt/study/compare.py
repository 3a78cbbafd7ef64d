"""Which is better? Contenders on the same items in turns of fresh launches, or one against an earlier result.

Every pair is judged on quality (by item) and on answers per minute (by launch); tokens are no common measure of models
with different tokenizers. All verdicts of one comparison share its 5 % by Holm's step-down procedure.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from llmopt.config.settings import SettingsView
from llmopt.errors import DataError, UsageError
from llmopt.measure.slo import parse_slo
from llmopt.measure.stats.looks import Look
from llmopt.measure.stats.verdicts import quality_verdict, speed_verdict, unpaired_speed_verdict
from llmopt.paths import Workspace
from llmopt.records import Item, Load, Sample, Verdict, VerdictKind
from llmopt.search.confirm import MIN_BLOCKS, blocks_of
from llmopt.study.benchmark import MOST_REPEATS, telling_weights
from llmopt.study.contenders import Wanted, contenders, stored, wanted
from llmopt.study.events import Event, Listener, silent, tell_data
from llmopt.study.imported import table_of_imports
from llmopt.study.launches import Contender, Launched, envelope, recording, short, side
from llmopt.study.optimize import study_name
from llmopt.study.repeats import MOST, looks_for, pairs_for, tell_resolution
from llmopt.study.request import StudyRequest
from llmopt.study.token_match import Answered, greedy, paired_matches, stored_answers

__all__ = ["CompareRequest", "baseline_request", "compare", "gate", "overall", "step_down"]

KIND = "compare"
SPEED = "answers_per_minute"
FIGURES = ("quality", "speed")
LEAST_FOR_GATE = 2
"""Launches on either side; one has no spread."""


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """What to compare: ``models`` (names, results, ``MODEL@setting=value``), or these against a stored ``baseline``."""

    study: StudyRequest
    models: tuple[str, ...] = ()
    baseline: Mapping[str, Any] | None = None
    """The content of an earlier ``result.json``."""
    baseline_folder: Path | None = None
    """Where that file lies: the raw answers are beside it, or were left behind."""
    fail_if_worse: float | None = None
    """0.05 is 5 % of speed and 5 points of quality."""
    repeats: int | None = None
    """Launches of each (the first look, where it goes on until decided); None: as calibrated, at least 4."""
    until_decided: bool = False
    """Go on after a look that decides too little; every look pays its share of the error."""
    most_repeats: int | None = None
    slo: str | None = None
    imported: tuple[Mapping[str, Any], ...] = ()
    """Other tools' results, to stand beside what is measured (``named_sides``)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        least = MIN_BLOCKS if self.baseline is None else 1
        if self.baseline is None and len(self.models) + len(self.imported) < 2:  # noqa: PLR2004 - a comparison needs two
            raise UsageError("compare.one_model")
        if self.fail_if_worse is not None and self.baseline is None:
            raise UsageError("compare.gate_without_baseline")
        for asked in (self.repeats, self.most_repeats):
            if asked is not None and not least <= asked <= MOST_REPEATS:
                raise UsageError("compare.repeats", value=asked, least=least, most=MOST_REPEATS)
        if self.most_repeats is not None and not self.until_decided:
            raise UsageError("compare.most_without_until")


def baseline_request(result: Mapping[str, Any]) -> StudyRequest:
    """What an earlier result was asked for, so that the same can be asked again."""
    if "sides" not in result:
        raise DataError("compare.no_items", name=result.get("study", "-"))
    try:
        return replace(StudyRequest.from_spec(result["request"]), name=None)
    except (TypeError, KeyError, ValueError, AttributeError) as error:  # a file that only looks like a result
        raise DataError("benchmark.not_a_result", path=result.get("study", "-"), reason=repr(error)) from None


async def compare(
    request: CompareRequest,
    *,
    workspace: Workspace,
    settings: SettingsView,
    listener: Listener = silent,
    wait_for_lock: bool = False,
) -> dict[str, Any]:
    """Measure and judge; the result as written to ``result.json``. A regression is in ``gate``, not an exception."""
    began_s = time.monotonic()
    slo = parse_slo(request.slo) if request.slo else None
    if not request.models and request.baseline is None:
        return await _only_imported(request, workspace, listener)
    listener(Event(kind="phase", data={"name": "prepare"}))
    named = _named(request, workspace)
    study = _with_items_to_spare(request)
    fetching = telling_weights(listener)
    found = await asyncio.to_thread(
        contenders, named, study, workspace=workspace, settings=settings, slo=slo, on_weights=fetching
    )
    earlier = _earlier(request, found) if request.baseline is not None else None
    before = _earlier_answers(request, found, earlier, listener) if earlier is not None else None
    looks, blocks = _blocks(request, found, earlier)
    found = tuple(replace(c, prepared=c.prepared.resolving(len(blocks[0]))) for c in found)
    name = study_name(replace(request.study, model="-vs-".join(dict.fromkeys(c.prepared.model.name for c in found))))
    spec = {
        **replace(request.study, model=found[0].given).to_spec(),
        "kind": KIND, "models": [c.label for c in found], "repeats": len(blocks), "slo": request.slo,
        "max_tokens": found[0].prepared.work.max_tokens, "fail_if_worse": request.fail_if_worse,
    }  # fmt: skip

    def judged(launched: Sequence[Launched], look: Look) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        items = _asked(blocks[: look.after])
        sides = _sides(found, launched, items, request.study.price_per_hour, look)
        full = envelope(KIND, name, found, sides, items, spec=spec, elapsed_s=time.monotonic() - began_s)
        claims = _claims(request, full["sides"], items, earlier, look)
        return claims["comparisons"], full | claims | {"imported": list(request.imported)}

    with recording(KIND, name, spec, found, workspace=workspace, listener=listener, wait_for_lock=wait_for_lock) as run:
        items = _asked(blocks)
        values = {"name": name, "what": ", ".join(c.label for c in found), "items": len(items), "launches": len(blocks)}
        listener(Event(kind="note", data={"key": "compare.introduction", "values": values}))
        tell_data(listener, found[0].prepared.dataset)
        moments = [look.after for look in looks]
        tell_resolution(listener, found[0].prepared, requests=len(blocks[0]), launches=moments)
        launched = await run.measure(
            found, blocks, looks=looks, decided=lambda launched, look: _all_decided(judged(launched, look)[0])
        )
        look = next(look for look in looks if look.after * len(found) >= len(launched))
        _, result = judged(launched, look)
        result["token_match"] = _token_matches(found, launched, before)
        result["looks"] = {"planned": moments, "stopped_at": look.after, "confidence": look.confidence}
        failed = bool(result["gate"] and result["gate"]["failed"])
        await run.conclude(result, items, verdict="regression" if failed else result["verdict"]["kind"])
    listener(Event(kind="ended", data={"result": result}))
    return result


async def _only_imported(request: CompareRequest, workspace: Workspace, listener: Listener) -> dict[str, Any]:
    name = study_name(replace(request.study, model=KIND, dataset=str(request.imported[0]["tool"])))
    result = await asyncio.to_thread(table_of_imports, name, request.imported, workspace)
    listener(Event(kind="ended", data={"result": result}))
    return result


# ── what is compared ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The side of an earlier result that is the baseline; ``same_machine`` says whether its speed may be compared."""

    side: Mapping[str, Any]
    same_machine: bool


def _named(request: CompareRequest, workspace: Workspace) -> list[Wanted]:
    if request.models:
        return [wanted(text, workspace) for text in request.models]
    same = stored(request.baseline or {})
    return [replace(same, label=same.model)]


def _earlier(request: CompareRequest, found: Sequence[Contender]) -> Earlier:
    """The baseline's side; raises DataError where its figures do not answer the same question."""
    result, prepared = request.baseline or {}, found[0].prepared
    name = result["study"]
    if "sides" not in result:
        raise DataError("compare.no_items", name=name)
    try:
        if result["dataset"]["fingerprint"] != prepared.dataset.fingerprint:
            raise DataError("compare.other_items", name=name, dataset=prepared.dataset.name)
        theirs = _task(Load(**result["task"]["load"]), result["request"].get("shared_prefix"), result["task"])
        ours = _task(prepared.work.load, prepared.request.shared_prefix, {"max_tokens": prepared.work.max_tokens})
        if theirs != ours:
            raise DataError("compare.other_task", name=name, theirs=theirs, ours=ours)
        chosen = next(one for one in result["sides"] if one["label"] == result["best"]["label"])
        same_machine = result["hardware"]["fingerprint"] == prepared.hardware.fingerprint
        launches = [float(one["figures"][SPEED]) for one in chosen["launches"]]
        values = {str(k): float(v) for k, v in chosen["items"].items()}
        asked = [*chosen.get("asked", ()), *values]
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:  # a damaged result
        raise DataError("benchmark.not_a_result", path=name, reason=repr(error)) from None
    if request.fail_if_worse is not None and not same_machine:
        raise DataError("compare.other_machine", name=name)
    repeats = request.repeats or len(launches)
    if request.fail_if_worse is not None and min(len(launches), repeats) < LEAST_FOR_GATE:
        raise DataError("compare.too_few_launches", name=name, theirs=len(launches), ours=repeats)
    if not launches or not asked:
        raise DataError("compare.no_items", name=name)
    label = name if all(name != contender.label for contender in found) else f"{name} #0"
    return Earlier(side={**chosen, "label": label, "asked": asked}, same_machine=same_machine)


def _task(load: Load, prefix: str | None, task: Mapping[str, Any]) -> str:
    """What every answer of a comparison must share, as one writes it on the command line."""
    shared = f" --shared-prefix {prefix}" if prefix else ""
    return f"{load.flags}{shared} --max-tokens {task['max_tokens']}"


def _with_items_to_spare(request: CompareRequest) -> StudyRequest:
    """What is asked, with enough held-out items for as many launches as there may be (a block has its own items)."""
    study = request.study
    if request.baseline is not None or study.confirm_samples is None:
        return study
    most = max(request.most_repeats or MOST, request.repeats or MIN_BLOCKS)
    return replace(study, confirm_samples=math.ceil(study.confirm_samples / MIN_BLOCKS) * most)


def _blocks(
    request: CompareRequest, found: Sequence[Contender], earlier: Earlier | None
) -> tuple[tuple[Look, ...], list[tuple[Item, ...]]]:
    """The planned looks and each block's items: dealt out between contenders, all of them against a stored baseline."""
    prepared = found[0].prepared
    until, most = request.until_decided, request.most_repeats
    if earlier is not None:
        before = set(earlier.side["asked"])
        items = tuple(item for item in prepared.dataset.items if item.id in before)
        if not items:
            raise DataError("compare.other_items", name=earlier.side["label"], dataset=prepared.dataset.name)
        looks = looks_for(request.repeats or len(earlier.side["launches"]), until_decided=until, most=most)
        return looks, [items] * looks[-1].after
    asked = request.study.confirm_samples or len(prepared.confirm_items)
    first = request.repeats or pairs_for(prepared, requests=max(asked // MIN_BLOCKS, 1), least=MIN_BLOCKS)
    looks = looks_for(first, until_decided=until, most=most)
    count = looks[-1].after
    if min(asked, len(prepared.confirm_items)) < first:
        raise UsageError("compare.few_samples", items=min(asked, len(prepared.confirm_items)), blocks=first)
    # what was asked for is dealt over the launches asked for; launches beyond bring further items, where there are any
    wanted = asked if request.repeats and not until else max(asked // MIN_BLOCKS, 1) * count
    blocks = blocks_of(prepared.confirm_items[:wanted], count)
    if not blocks[0]:
        raise UsageError("compare.few_samples", items=len(prepared.confirm_items), blocks=count)
    return looks, blocks


def _asked(blocks: Sequence[Sequence[Item]]) -> tuple[Item, ...]:
    """The items of some blocks, each once."""
    return tuple({item.id: item for block in blocks for item in block}.values())


def _sides(
    found: Sequence[Contender], launched: Sequence[Launched], items: Sequence[Item], price: float | None, look: Look
) -> list[dict[str, Any]]:
    """What each contender's launches found so far."""
    ordered = sorted(launched, key=lambda one: one.block)
    return [
        side(
            contender,
            [one.result for one in ordered if one.place == place],
            items,
            price_per_hour=price,
            confidence=look.confidence,
        )
        for place, contender in enumerate(found)
    ]


def _earlier_answers(
    request: CompareRequest, found: Sequence[Contender], earlier: Earlier, listener: Listener
) -> Answered | None:
    """What the baseline answered; where it and a contender are greedy and its answers are gone, that is said."""
    label, folder = earlier.side["label"], request.baseline_folder
    configuration = stored(request.baseline or {}).configuration
    if configuration is None or not greedy(configuration) or not any(greedy(c.configuration) for c in found):
        return None
    samples = stored_answers(earlier.side, folder) if folder is not None else ()
    if not samples:
        listener(Event(kind="note", data={"key": "compare.no_stored_answers", "values": {"name": label}}))
        return None
    return Answered(label=label, configuration=configuration, samples=samples)


def _token_matches(
    found: Sequence[Contender], launched: Sequence[Launched], before: Answered | None
) -> list[dict[str, Any]]:
    """How alike the greedy answers are: the contenders' own and, first, those of a stored baseline."""
    answers: dict[str, list[Sample]] = {contender.label: [] for contender in found}
    for one in launched:
        answers[found[one.place].label] += one.result.samples
    measured = [Answered(c.label, c.configuration, answers[c.label]) for c in found]
    return paired_matches([before, *measured] if before else measured)


def _all_decided(judged: Sequence[Mapping[str, Any]]) -> bool:
    """Whether nothing is left that further launches or items could tell."""
    kinds = {entry[figure]["kind"] for entry in judged for figure in FIGURES if entry[figure] is not None}
    return not kinds & {VerdictKind.TIE.value, VerdictKind.UNDECIDED.value}


# ── what may be claimed ────────────────────────────────────────────────────────────────────────────────────────────


def _claims(
    request: CompareRequest,
    sides: Sequence[Mapping[str, Any]],
    items: Sequence[Item],
    earlier: Earlier | None,
    look: Look,
) -> dict[str, Any]:
    clusters = {item.id: item.cluster or item.id for item in items}
    quality = _Rule(request.study.quality_margin, look.confidence)
    speed = _Rule(request.study.speed_margin, look.confidence)
    pairs = list(itertools.combinations(sides, 2)) if earlier is None else [(earlier.side, one) for one in sides]
    judges: list[tuple[int, str, Callable[[int], Verdict]]] = []
    for place, (before, after) in enumerate(pairs):
        if before["items"] and after["items"]:  # open questions that nothing was compared with have no quality
            judges.append((place, "quality", partial(_quality, before, after, quality, clusters=clusters)))
        if earlier is None or earlier.same_machine:
            paired = earlier is None
            judges.append((place, "speed", partial(_speed, before, after, speed, paired=paired)))
    judged: list[dict[str, Any]] = [
        {"before": before["label"], "after": after["label"], "quality": None, "speed": None} for before, after in pairs
    ]
    for (place, figure, _), found in zip(judges, step_down([judge for *_, judge in judges]), strict=True):
        judged[place][figure] = {**asdict(found), "kind": found.kind.value}
    labels = [one["label"] for one in ([earlier.side, *sides] if earlier else sides)]
    verdict = overall(judged, labels)
    winner = next((one for one in sides if one["label"] == verdict["winner"]), sides[0])
    limit = request.fail_if_worse
    return {
        "comparisons": judged,
        "verdict": verdict,
        "baseline": short(earlier.side if earlier else sides[0]),
        "best": short(winner),
        "command": winner["command"],
        "same_machine": earlier.same_machine if earlier else True,
        "gate": gate(judged, limit) if limit is not None else None,
    }


class _Rule(NamedTuple):
    """By what a pair is judged: the margin, and the confidence of the look."""

    margin: float
    confidence: float


def _quality(
    before: Mapping[str, Any], after: Mapping[str, Any], rule: _Rule, comparisons: int, *, clusters: Mapping[str, str]
) -> Verdict:
    return quality_verdict(
        after["items"],
        before["items"],
        clusters=clusters,
        comparisons=comparisons,
        margin=rule.margin,
        confidence=rule.confidence,
    )


def _speed(
    before: Mapping[str, Any], after: Mapping[str, Any], rule: _Rule, comparisons: int, *, paired: bool
) -> Verdict:
    first, second = ([one["figures"][SPEED] for one in given["launches"]] for given in (after, before))
    judge = speed_verdict if paired else unpaired_speed_verdict
    return judge(first, second, comparisons=comparisons, margin=rule.margin, confidence=rule.confidence)


def step_down(judges: Sequence[Callable[[int], Verdict]]) -> list[Verdict]:
    """Holm's procedure (1979) by intervals: each round judges what is still open at its share of the 5 %.

    A judge takes the number of comparisons that share the error and returns its verdict at that level.
    """
    found: dict[int, Verdict] = {}
    open_ = set(range(len(judges)))
    while open_:
        now = {place: judges[place](len(open_)) for place in open_}
        found |= now
        told = {place for place, verdict in now.items() if verdict.kind in {VerdictKind.BETTER, VerdictKind.WORSE}}
        if not told:
            break
        open_ -= told
    return [found[place] for place in range(len(judges))]


def overall(judged: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    """One claim from all pairs: who is better than every other, by quality, else by speed; or how it is open."""
    by_figure = {figure: _by_figure(judged, labels, figure) for figure in FIGURES}
    main = next((f for f in FIGURES if by_figure[f]["winner"]), "quality")
    chosen = by_figure[main]
    return {
        **chosen,
        "objective": main,
        "others": {figure: found for figure, found in by_figure.items() if figure != main},
    }


def _by_figure(judged: Sequence[Mapping[str, Any]], labels: Sequence[str], figure: str) -> dict[str, Any]:
    pairs = [entry for entry in judged if entry[figure] is not None]
    wins = dict.fromkeys(labels, 0)
    for entry in pairs:
        kind = entry[figure]["kind"]
        if kind in {"better", "worse"}:
            wins[entry["after" if kind == "better" else "before"]] += 1
    opponents = {label: sum(label in (p["before"], p["after"]) for p in pairs) for label in labels}
    winner = next((name for name in labels if wins[name] and wins[name] == opponents[name] == len(labels) - 1), None)
    kinds = {entry[figure]["kind"] for entry in pairs}
    if winner is not None:
        kind = "better"
        pairs = [entry for entry in pairs if winner in (entry["before"], entry["after"])]
    else:
        kind = "undecided" if not kinds or "undecided" in kinds else "equivalent" if kinds == {"equivalent"} else "tie"
    closest = min(pairs, key=lambda entry: _distance(entry[figure]), default=None)
    effect = closest[figure]["effect"] if closest else None
    more = [entry[figure]["more_samples"] for entry in pairs if entry[figure]["more_samples"]]
    return {
        "kind": kind,
        "winner": winner,
        "pair": [closest["before"], closest["after"]] if closest else None,
        "effect": effect["value"] if effect else None,
        "interval": [effect["low"], effect["high"]] if effect else [None, None],
        "relative": figure == "speed",
        "n": effect["n"] if effect else 0,
        "more_samples": max(more, default=None) if kind in {"undecided", "tie"} else None,
    }


def _more_for_gate(verdict: Mapping[str, Any], loss: float, limit: float) -> int | None:
    """Further samples after which a loss beyond the limit would probably be shown, or excluded."""
    low, n = verdict["effect"]["low"], verdict["effect"]["n"]
    if low is None:
        return verdict["more_samples"]  # type: ignore[no-any-return]
    half = verdict["effect"]["value"] - low
    distance = loss if loss > limit else limit - loss
    return max(math.ceil(n * (half / distance) ** 2) - n, 1) if distance > 0 else None


def _distance(verdict: Mapping[str, Any]) -> float:
    value = float(verdict["effect"]["value"])
    return abs(value - 1.0) if verdict["relative"] else abs(value)


def gate(judged: Sequence[Mapping[str, Any]], limit: float) -> dict[str, Any]:
    """Which figures lost more than ``limit``: a loss counts where chance is excluded and its estimate is beyond it.

    ``open``: no such loss was shown, but the interval does not exclude one either.
    """
    checks = []
    for entry in judged:
        for figure in FIGURES:
            verdict = entry[figure]
            if verdict is None:
                continue
            zero = 1.0 if verdict["relative"] else 0.0
            loss = zero - verdict["effect"]["value"]
            low, more = verdict["effect"]["low"], None
            if verdict["kind"] == VerdictKind.WORSE.value and loss > limit:
                status = "failed"
            elif low is not None and zero - low <= limit:
                status = "passed"
            else:
                status, more = "open", _more_for_gate(verdict, loss, limit)
            checks.append({
                "what": entry["after"], "figure": figure, "status": status, "loss": loss,
                "relative": verdict["relative"], "more_samples": more,
            })  # fmt: skip
    return {"limit": limit, "failed": any(check["status"] == "failed" for check in checks), "checks": checks}
