"""How figures and verdicts are worded, the same in terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmopt.messages import t

__all__ = [
    "brief",
    "changed_settings",
    "effect",
    "figure",
    "figure_name",
    "further",
    "gain_rows",
    "interval",
    "judged",
    "limit_status",
    "load",
    "setting",
    "settings_line",
    "size",
    "verdict_sentence",
]

SHARES = frozenset({
    "accuracy", "attainment", "diversity", "error_rate", "truncated", "truncated_rate", "cached_prompt_share",
    "engine_prefix_hit_share", "engine_kv_usage_mean", "engine_kv_usage_max",
})  # fmt: skip


def size(number_of_bytes: float | None) -> str:
    """``639 MB`` in decimal units; a dash where it is not known."""
    if number_of_bytes is None:
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number_of_bytes >= factor:
            return f"{number_of_bytes / factor:.3g} {unit}"
    return f"{number_of_bytes:.0f} B"


def figure_name(name: str) -> str:
    """What a figure is called in a heading; figures that are shown nowhere else keep the name of their estimate."""
    try:
        return t(f"report.name_{name}")
    except KeyError:
        return name


def figure(name: str, value: float | None) -> str:
    """One figure by the name of its estimate; costs and short times need their digits, not their decimals."""
    if value is None:
        return "–"
    if name in SHARES:
        return f"{100 * value:.1f} %"
    if name == "memory_bytes":
        return size(value)
    if name.endswith("_ms"):
        return f"{brief(value)} ms"
    if name.startswith("cost_"):
        return f"{value:,.3g}"
    return f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004 - four digits say enough


def brief(milliseconds: float) -> str:
    """A time in milliseconds without its unit: whole from 100 on, else three digits."""
    return f"{milliseconds:,.3g}" if milliseconds < 100 else f"{milliseconds:,.0f}"  # noqa: PLR2004 - three digits


def load(given: Mapping[str, Any]) -> str:
    """How requests arrive, in words."""
    if given.get("rate"):
        return t("report.load_rate", rate=f"{given['rate']:g}")
    return t("report.load_streams", streams=given.get("streams"))


def interval(name: str, estimate: Mapping[str, Any] | None) -> str:
    """``87.5 % (73.2–95.1, n=32)``."""
    if not estimate:
        return "–"
    text = figure(name, estimate["value"])
    if estimate.get("low") is None or estimate.get("high") is None:
        return f"{text} (n={estimate['n']})"
    low, high = figure(name, estimate["low"]), figure(name, estimate["high"])
    unit = text.split()[-1] if " " in text else ""
    low = low.removesuffix(f" {unit}") if unit else low
    return f"{text} ({low}–{high.removesuffix(f' {unit}') if unit else high}, n={estimate['n']})"


def effect(verdict: Mapping[str, Any] | None) -> str:
    """The size of a difference: ``+71.9 points (56.2 … 84.4)`` or ``× 1.42 (1.31 … 1.55)``."""
    if verdict is None:
        return t("report.not_measured")
    found = verdict["effect"]
    if verdict["relative"]:
        value, low, high = (None if v is None else f"{v:.2f}" for v in (found["value"], found["low"], found["high"]))
        text = f"× {value}"
    else:
        value, low, high = (
            None if v is None else f"{100 * v:+.1f}" for v in (found["value"], found["low"], found["high"])
        )
        text = t("report.points", value=value)
    return text if low is None or high is None else f"{text} ({low} … {high})"


def verdict_sentence(result: Mapping[str, Any]) -> str:
    """The claim in one or two sentences."""
    verdict = result["verdict"]
    if verdict["effect"] is None:
        more = [further(verdict)] if verdict.get("more_samples") else []
        return " ".join((t(verdict["sentence"]), *more, *map(_out_of_reach, result.get("unreached", ()))))
    main = next(entry for entry in result["gains"] if entry["step"] == "total")
    judged_by = verdict.get("judged_by") or ("speed" if verdict["relative"] else "quality")
    beside = "speed" if judged_by == "quality" else "quality"
    parts = [t(verdict["sentence"], what=t(f"report.{judged_by}"), effect=effect(main[judged_by]))]
    parts.append(further(verdict))
    if (other := main[beside]) is not None:
        parts.append(t(f"report.also_{other['kind']}", what=t(f"report.{beside}"), effect=effect(other)))
        parts.append(further(other))
    return " ".join(filter(None, parts))


def further(verdict: Mapping[str, Any]) -> str:
    """How many more samples would probably decide an undecided verdict; empty for any other."""
    if verdict["kind"] != "undecided":
        return ""
    count = verdict.get("more_samples")
    if not count:
        return t("report.further_unknown")
    return t("report.further_launches" if verdict["relative"] else "report.further_items", count=count)


def _out_of_reach(limit: Mapping[str, Any]) -> str:
    value, unit = limit["nearest"], limit["unit"]
    nearest = "–" if value is None else size(value) if unit == "B" else f"{value:.4g} {unit}".rstrip()
    return t("study.unreached_together" if limit["alone"] else "study.unreached", limit=limit["text"], nearest=nearest)


def limit_status(limit: Mapping[str, Any]) -> str:
    """Whether a limit is met; where that is open, how many more samples would probably tell."""
    if limit["status"] == "undecided" and limit.get("more_samples"):
        return t("report.kind_undecided_more", count=limit["more_samples"])
    return t(f"report.limit_{limit['status']}")


def gain_rows(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Step, quality gain and speed gain, each with its verdict word."""
    return [
        (t(f"report.step_{entry['step']}"), judged(entry["quality"]), judged(entry["speed"]))
        for entry in result["gains"]
    ]


def changed_settings(result: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings in which the winner differs from the baseline: name → (baseline, winner)."""
    flat = [
        {**side["configuration"]["launch"], **side["configuration"]["request"]}
        for side in (result["baseline"], result["best"])
    ]
    names = list(dict.fromkeys([*flat[0], *flat[1]]))
    return {n: (flat[0].get(n), flat[1].get(n)) for n in names if flat[0].get(n) != flat[1].get(n)}


def setting(value: Any) -> str:
    """A setting's value; one that is left to the engine in words."""
    return t("report.engine_default") if value is None else str(value)


def settings_line(own: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """The settings of one configuration that differ from the baseline's: ``threads=1 batch=512``."""
    flat = [{**given["launch"], **given["request"]} for given in (own, base)]
    changed = " ".join(f"{name}={value}" for name, value in flat[0].items() if flat[1].get(name) != value)
    return changed or t("progress.as_baseline")


def judged(verdict: Mapping[str, Any] | None) -> str:
    """An effect with its verdict word."""
    if verdict is None:
        return t("report.not_measured")
    if verdict["kind"] == "undecided" and verdict.get("more_samples"):
        return f"{effect(verdict)} — {t('report.kind_undecided_more', count=verdict['more_samples'])}"
    return f"{effect(verdict)} — {t('report.kind_' + verdict['kind'])}"
