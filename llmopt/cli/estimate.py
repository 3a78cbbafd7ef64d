"""``llmopt estimate``: will it fit and how fast will it be, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from llmopt.cli.lines import fitted
from llmopt.cli.options import Output, debug_option, engine_option, json_option, lang_option, option
from llmopt.cli.tables import table
from llmopt.errors import UsageError
from llmopt.messages import t
from llmopt.report.words import size

if TYPE_CHECKING:
    from llmopt.predict.study import Figure
    from llmopt.study.estimating import EstimateRow

__all__ = ["command"]

PROMPT_TOKENS, ANSWER_TOKENS = 1024, 256
COLUMNS = ("precision", "fits", "needed", "available", "speed", "first", "bound")


@click.command("estimate", help=t("cli.estimate.long"), short_help=t("cli.estimate.short"))
@click.argument("model", required=False)
@option("--gpu", "gpus", key="estimate.gpu", multiple=True)
@engine_option
@option("--streams", key="opt.streams", type=int, default=None)
@option("--prompt-tokens", key="estimate.prompt_tokens", type=int, default=PROMPT_TOKENS, show_default=True)
@option("--answer-tokens", key="estimate.answer_tokens", type=int, default=ANSWER_TOKENS, show_default=True)
@option("--context", key="estimate.context", type=int, default=None)
@option("--parts", key="estimate.parts", is_flag=True)
@option("--list-gpus", key="estimate.list_gpus", is_flag=True)
@json_option
@debug_option
@lang_option
def command(
    *,
    model: str | None,
    gpus: tuple[str, ...],
    context: int | None,
    parts: bool,
    list_gpus: bool,
    as_json: bool,
    debug: bool,
    **given: Any,
) -> int:
    """Show fit and speed for every sensible way to run the model."""
    del debug
    output = Output(as_json=as_json)
    if list_gpus:
        return _list_gpus(output)
    from llmopt.models.catalogue import DEFAULT_MODEL
    from llmopt.paths import Workspace
    from llmopt.study.estimating import DEFAULT_STREAMS, EstimateRequest, estimate, estimate_json, nothing_fits

    answer = given["answer_tokens"]
    if context is not None and context <= answer:
        raise UsageError("estimate.context", context=context, answer=answer)
    request = EstimateRequest(
        model=model or DEFAULT_MODEL,
        gpus=gpus,
        engine=given["engine"],
        prompt_tokens=given["prompt_tokens"] if context is None else context - answer,
        answer_tokens=answer,
        streams=DEFAULT_STREAMS if given["streams"] is None else given["streams"],
    )
    known, rows = estimate(request, Workspace.here())
    output.data(estimate_json(request, known, rows))
    if not as_json:
        output.say(f"{known.name} · {_size_of(known.parameters)}")
        output.say(
            t("estimate.load", streams=request.streams, prompt=request.prompt_tokens, answer=request.answer_tokens)
        )
        for place, engine in dict.fromkeys((row.place, row.engine) for row in rows):
            shown = [_shown(row) for row in rows if (row.place, row.engine) == (place, engine)]
            output.say(f"\n{place} · {engine}")
            output.say(table([t(f"estimate.column_{name}") for name in COLUMNS], shown))
        _say_reasons(output, rows, parts=parts)
    refusal = nothing_fits(rows)
    return 0 if refusal is None else refusal.exit_code


def _size_of(parameters: int | None) -> str:
    return "–" if parameters is None else f"{parameters / 1e9:.3g} B"


def _shown(row: EstimateRow) -> list[str]:
    from llmopt.predict.forecast import Unknown

    fit = row.fit
    fits = t("estimate.not_known" if fit.fits is None else "estimate.yes" if fit.fits else "estimate.no")
    speed = first = bound = "–"
    if fit.fits is not False:
        speed = first = t("estimate.not_known")
        if not isinstance(row.expected, Unknown):
            figures = row.expected.figures
            speed, first = _interval(figures["answers_per_minute"]), _interval(figures["ttft_p50_ms"])
        bound = "–" if row.at_most_tokens_per_s is None else _short(row.at_most_tokens_per_s)
    needed = size(fit.needed_bytes) if fit.needed_bytes else "–"
    return [row.precision, fits, needed, size(fit.available_bytes), speed, first, bound]


def _interval(figure: Figure) -> str:
    return f"{_short(figure.value)} ({_short(figure.low)}–{_short(figure.high)})"


def _short(value: float) -> str:
    """Three digits, without exponents."""
    digits = 3 - len(str(int(abs(value)))) if abs(value) >= 1 else 2
    return f"{round(value, digits):,.{max(0, digits)}f}"


def _say_reasons(output: Output, rows: Sequence[EstimateRow], *, parts: bool) -> None:
    """Why something does not fit or is not known, each reason once; then what takes the memory, if asked."""
    from llmopt.predict.forecast import Unknown

    output.say("")
    said: set[str] = set()
    for row in rows:
        where = {"place": row.place, "engine": row.engine, "precision": row.precision}
        reasons = [] if row.fit.fits else [t(row.fit.verdict, **row.fit.values)]
        if row.fit.fits is not False and isinstance(row.expected, Unknown):
            unknown = row.expected
            reasons.append(f"{t(unknown.reason, **unknown.values)} {t(unknown.reason + '.next')}")
        for reason in reasons:
            if reason not in said:
                said.add(reason)
                output.say(fitted(t("estimate.why", reason=reason, **where)))
        if parts and row.fit.parts:
            listed = ", ".join(f"{t('fit.part.' + part.name)} {size(part.size_bytes)}" for part in row.fit.parts)
            output.say(fitted(t("estimate.parts", parts=listed, **where)))
    output.say(fitted(t("estimate.interval")))


def _list_gpus(output: Output) -> int:
    from llmopt.predict.devices import known_devices

    known = known_devices()
    facts = [
        {
            "gpu": spec.name,
            "memory": size(spec.memory_bytes),
            "bandwidth": f"{spec.bandwidth / 1e9:,.0f} GB/s",
            "flops": f"{spec.flops_at(16) / 1e12:,.0f} TFLOPS",
            "source": spec.source,
        }
        for spec in known.values()
    ]
    output.data(facts)
    if not output.as_json:
        columns = tuple(facts[0])
        output.say(table([t(f"estimate.column_{name}") for name in columns], [list(fact.values()) for fact in facts]))
    return 0
