"""From what was measured to what may be claimed: the content of ``result.json``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from llmopt import __version__
from llmopt.engines.accelerators import placement
from llmopt.engines.base import RunFolder
from llmopt.measure.diversity import diversity
from llmopt.measure.findings import findings
from llmopt.objective import Constraint, pareto_front
from llmopt.records import Configuration, Endpoint, Estimate, Outcome, Score, Verdict, VerdictKind
from llmopt.runtime.http import base_url
from llmopt.search.confirm import MIN_BLOCKS, Arm, ArmPass, steps
from llmopt.search.recorded_space import space_to_plain
from llmopt.store.database import Store
from llmopt.store.rows import TrialRow
from llmopt.study.costs import costs
from llmopt.study.final import SPEED, Finals, compare_arms, compare_diversity, speed_of
from llmopt.study.limits import unreached
from llmopt.study.prepare import Prepared
from llmopt.study.run import Finished, study_folder
from llmopt.study.token_match import TokenMatches

__all__ = ["SCHEMA_VERSION", "build_result", "command_of", "configuration_of", "model_facts", "versions_of"]

SCHEMA_VERSION = 1
MOST_TRIALS = 1000
"""Trials written into a result; those of longer studies are in the database."""


def build_result(prepared: Prepared, finished: Finished, store: Store, study_id: int, name: str) -> dict[str, Any]:
    """Everything a reader, a program or a later comparison needs; plain data."""
    rows, left_out = _told(store, study_id, name)
    judged = _judge(prepared, finished)
    searched = [row.measurement for row in rows if row.phase != "confirm" and row.outcome is Outcome.DONE]
    impossible = unreached(finished.constraints, [one.steering() for one in searched if one is not None])
    matches = TokenMatches(prepared, rows, study_folder(prepared.workspace, name))
    best = finished.best.configuration
    return {
        "schema_version": SCHEMA_VERSION,
        "study": name,
        "created": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "elapsed_s": round(finished.elapsed_s, 1),
        "stopped_by": finished.stopped_by,
        "accounting": _accounting(store.spent(study_id, since_s=finished.began_s), finished),
        "request": prepared.request.to_spec(),
        "verdict": _nothing_allowed(prepared) if impossible else _verdict(prepared, judged),
        "gains": judged,
        "quality_measure": prepared.work.judge.measure,
        "baseline": _side(prepared, finished, finished.baseline, matches),
        "best": _side(prepared, finished, finished.best, matches),
        "points": dict(finished.points),
        "pareto": _pareto(prepared, store, study_id),
        "constraints": [_limit(constraint, finished) for constraint in finished.constraints],
        "unreached": [asdict(one) for one in impossible],
        "command": command_of(prepared, best),
        "model": model_facts(prepared),
        "dataset": {
            "name": prepared.dataset.name,
            "fingerprint": prepared.dataset.fingerprint,
            "source": prepared.dataset.source,
            "search_items": len(prepared.search_items),
            "confirm_items": len({s.item_id for p in finished.finals.passes for s in p.result.scores}),
        },
        "task": asdict(prepared.task),
        "hardware": asdict(prepared.hardware) | {"fingerprint": prepared.hardware.fingerprint},
        "versions": versions_of(prepared),
        "space": space_to_plain(finished.space),
        "trials": [{**_trial(row), "token_match": matches.of(row)} for row in rows if row.phase != "confirm"],
        "trials_left_out": left_out,
        "looks": _looks(finished.finals),
        "confirmation": [_pass(p, finished.finals.arms) for p in finished.finals.passes],
    }


# ── what may be claimed ────────────────────────────────────────────────────────────────────────────────────────────


def _judge(prepared: Prepared, finished: Finished) -> list[dict[str, Any]]:
    """Each step of the ladder with its quality and speed verdicts."""
    found = []
    arms, passes, confidence = finished.finals.arms, finished.finals.passes, finished.finals.confidence
    for step in steps(arms):
        quality, speed = compare_arms(prepared, passes, step, confidence=confidence)
        found.append({"step": step.name, "quality": _plain(quality), "speed": _plain(speed)})
        if prepared.work.repeats > 1:
            various = compare_diversity(prepared, arms, passes, step, confidence=confidence)
            found[-1]["diversity"] = _plain(various)
    return found


def _verdict(prepared: Prepared, judged: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The claim about the whole: judged on the first objective, the others beside it with their margins."""
    total = next((entry for entry in judged if entry["step"] == "total"), None)
    first = prepared.goal.objectives[0]
    judged_by = {SPEED: "speed", "diversity": "diversity"}.get(first.estimate, "quality")
    if total is None:
        return {
            "kind": VerdictKind.TIE.value,
            "objective": first.name,
            "effect": None,
            "interval": None,
            "others": {},
            "sentence": "study.verdict_baseline_best",
        }
    main = total.get(judged_by)
    other_name = "speed" if judged_by == "quality" else "quality"
    if main is None:
        return {
            "kind": VerdictKind.UNDECIDED.value,
            "objective": first.name,
            "effect": None,
            "interval": None,
            "relative": True,
            "more_samples": MIN_BLOCKS,
            "others": {other_name: total[other_name]},
            "sentence": "study.verdict_unconfirmed",
        }
    return {
        "kind": main["kind"],
        "objective": first.name,
        "judged_by": judged_by,
        "effect": main["effect"]["value"],
        "interval": [main["effect"]["low"], main["effect"]["high"]],
        "relative": main["relative"],
        "n": main["effect"]["n"],
        "method": main["method"],
        "more_samples": main["more_samples"],
        "others": {other_name: total[other_name]},
        "sentence": f"study.verdict_{main['kind']}",
    }


def _nothing_allowed(prepared: Prepared) -> dict[str, Any]:
    """No configuration meets the limits: there is no winner, whatever was gained."""
    return {
        "kind": VerdictKind.UNDECIDED.value,
        "objective": prepared.goal.objectives[0].name,
        "effect": None,
        "interval": None,
        "others": {},
        "sentence": "study.verdict_nothing_allowed",
    }


def _limit(constraint: Constraint, finished: Finished) -> dict[str, Any]:
    measurement = finished.best.measurement
    checked = constraint.check(measurement) if measurement else None
    return {
        "text": constraint.text,
        "status": checked.status.value if checked else "undecided",
        "value": checked.value if checked else None,
        "bound": checked.bound if checked else None,
        "more_samples": checked.more_samples if checked else None,
    }


# ── plain data ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _told(store: Store, study_id: int, name: str) -> tuple[list[TrialRow], int]:
    """The trials a result carries, and how many it leaves to the database: of a long study the best and the newest."""
    count = store.study(name).trials
    rows = list(store.trials(study_id)) if count <= MOST_TRIALS else store.best_and_newest(study_id, limit=MOST_TRIALS)
    return rows, max(count - MOST_TRIALS, 0)


def _accounting(spent: Mapping[str, float], finished: Finished) -> dict[str, Any]:
    """Where the time of this run went, in seconds, and the most memory this process itself held.

    ``own_s`` is what is left of the wall time after engine starts and stops, warm-up, measurement and the trial that
    the time limit cut off; trials of an earlier, interrupted run are not in it.
    """
    own_s = finished.elapsed_s - sum(spent.values())
    return {**spent, "own_s": own_s, "wall_s": finished.elapsed_s, "own_peak_rss_bytes": _own_peak_bytes()}


def _own_peak_bytes() -> int | None:
    """The peak since this program began; None where /proc does not tell (ru_maxrss may show a parent's)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else None


def _plain(verdict: Verdict | None) -> dict[str, Any] | None:
    return None if verdict is None else {**asdict(verdict), "kind": verdict.kind.value}


def _side(prepared: Prepared, finished: Finished, row: TrialRow, matches: TokenMatches) -> dict[str, Any]:
    """One configuration: what it is, what the search measured, what the confirmation measured, what answers show."""
    passes = [p for p in finished.finals.passes if p.key == row.configuration.key and p.result.outcome is Outcome.DONE]
    confirmed = [score for p in passes for score in p.result.scores]
    items = prepared.confirm_items if confirmed else prepared.search_items
    held_out = _confirmed(prepared, finished, row.configuration.key)
    return {
        "trial": row.number,
        "configuration": configuration_of(row.configuration),
        "command": command_of(prepared, row.configuration),
        "search": row.measurement.to_json() if row.measurement else None,
        "confirmed": held_out,
        "cost": _cost(prepared, row, held_out),
        "answers": findings(items, confirmed or matches.scores(row)),
        "token_match": matches.of(row),
    }


def _confirmed(prepared: Prepared, finished: Finished, key: str) -> dict[str, Any] | None:
    from llmopt.measure.quality import quality  # noqa: PLC0415 - a name that would shadow
    from llmopt.measure.stats.intervals import mean_interval  # noqa: PLC0415

    passes = [p for p in finished.finals.passes if p.key == key and p.result.outcome is Outcome.DONE]
    if not passes:
        return None
    scores: list[Score] = [score for p in passes for score in p.result.scores]
    speed = mean_interval([speed_of(p) for p in passes], confidence=finished.finals.confidence)
    samples = [sample for p in passes for sample in p.result.samples]
    arms = finished.finals.arms
    greedy = any(arm.configuration.key == key and arm.configuration.request.temperature == 0 for arm in arms)
    various = diversity(prepared.confirm_items, samples, greedy=greedy) if prepared.work.repeats > 1 else {}
    estimates = {**quality(prepared.confirm_items, scores), **various}
    found = {name: asdict(estimate) for name, estimate in estimates.items()}
    found[SPEED] = {
        "value": speed.value,
        "low": speed.low,
        "high": speed.high,
        "n": len(passes),
        "unit": "1/min",
        "method": "t over launches",
    }
    return found


def _cost(prepared: Prepared, row: TrialRow, confirmed: Mapping[str, Any] | None) -> dict[str, Any]:
    """At the confirmed speed where there is one; empty where the machine has no price."""
    figures = dict(row.measurement.estimates) if row.measurement else {}
    if confirmed:
        figures[SPEED] = Estimate(**confirmed[SPEED])
    return {name: asdict(found) for name, found in costs(figures, prepared.request.price_per_hour).items()}


def configuration_of(configuration: Configuration) -> dict[str, Any]:
    """A configuration as plain data, with its key."""
    return {
        "key": configuration.key,
        "engine": configuration.engine,
        "launch": dict(configuration.launch),
        "request": configuration.request.given(),
    }


def command_of(prepared: Prepared, configuration: Configuration) -> dict[str, Any]:
    """The launch command as it works when copied here (and ``elsewhere``), and the request fields that go with it."""
    run = RunFolder(folder=Path(), endpoint=Endpoint(model=prepared.model.name, port=8080))
    plan = prepared.engine.plan(prepared.model, configuration.launch, run)
    env = {**prepared.settings.engine_env, **placement(configuration.launch, prepared.hardware)}
    here, elsewhere = (_with(env, command) for command in (plan.command_here or plan.command, plan.command))
    if not plan.command:  # nothing is launched: what is used is the address
        here = elsewhere = (base_url(plan.endpoint),)
    return {
        "line": shlex.join(here),
        "argv": list(here),
        "elsewhere": shlex.join(elsewhere),
        "env": env,
        "engine": prepared.engine.name,
        "engine_version": prepared.engine.installation().version,
        "request": configuration.request.given(),
    }


def _with(env: Mapping[str, str], command: Sequence[str]) -> tuple[str, ...]:
    """``command`` under ``env``, as one line that can be copied; what the command sets itself wins."""
    if not env:
        return tuple(command)
    rest = command[1:] if command[:1] == ("env",) else command
    return ("env", *(f"{name}={value}" for name, value in env.items()), *rest)


def model_facts(prepared: Prepared) -> dict[str, Any]:
    """Which model it was, to the checksum."""
    return asdict(prepared.model)


def versions_of(prepared: Prepared) -> dict[str, str | None]:
    """Versions of everything that has a say in the figures."""
    import platform  # noqa: PLC0415 - one use

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "llmopt": __version__,
        "python": platform.python_version(),
        "optuna": version("optuna"),
        prepared.engine.name: prepared.engine.installation().version,
    }


def _trial(row: TrialRow) -> dict[str, Any]:
    return {
        "number": row.number,
        "origin": row.origin,
        "phase": row.phase,
        "outcome": row.outcome.value,
        "configuration": configuration_of(row.configuration),
        "objectives": row.objectives,
        "violations": row.violations,
        "fidelity": row.fidelity,
        "measurement": row.measurement.to_json() if row.measurement else None,
        "failure": row.failure,
        "samples": row.samples,
        "launch_s": row.launch_s,
        "warmup_s": row.warmup_s,
        "measure_s": row.measure_s,
    }


def _pass(one: ArmPass, arms: Sequence[Arm]) -> dict[str, Any]:
    names = next((arm.names for arm in arms if arm.configuration.key == one.key), ())
    return {
        "block": one.block,
        "arms": names,
        "key": one.key,
        "outcome": one.result.outcome.value,
        "trial": one.result.number,
        "measurement": one.result.measurement.to_json() if one.result.measurement else None,
        "right": sum(score.value for score in one.result.scores),
        "items": len(one.result.scores),
    }


def _looks(finals: Finals) -> dict[str, Any] | None:
    """When the final was to be looked at, and after which look (or at whose price) it ended."""
    if finals.plan is None:
        return None
    planned = [look.after for look in finals.plan.looks]
    return {"planned": planned, "stopped_at": finals.blocks, "confidence": finals.confidence}


def _pareto(prepared: Prepared, store: Store, study_id: int) -> list[int]:
    """Numbers of the trials nobody dominates, of all that were measured in full and within the limits."""
    full = [
        (point.number, point.objectives)
        for point in store.points(study_id)
        if point.phase != "confirm"
        and point.outcome == Outcome.DONE.value
        and point.objectives
        and all(v <= 0 for v in point.violations or ())
    ]
    front = pareto_front([objectives for _, objectives in full], prepared.goal.objectives)
    return [full[i][0] for i in front]
