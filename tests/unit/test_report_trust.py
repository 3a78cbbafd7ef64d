"""What a reader at a terminal must see to trust a figure: certificate, engine counters, samples still needed."""

import pytest

from llmopt.cli.benchmark import _precision_line
from llmopt.cli.report import summary_of
from llmopt.messages import LANGUAGES, set_language, t
from llmopt.objective import parse_constraint
from llmopt.records import Estimate, Measurement
from llmopt.report import words
from llmopt.report.certificates import certificate_lines
from llmopt.report.measured import benchmark_text, gate_sentences, verdict_sentences
from llmopt.report.swept import sweep_text
from llmopt.study.compare import gate


@pytest.fixture(autouse=True, params=LANGUAGES)
def language(request):
    set_language(request.param)
    yield request.param
    set_language(None)


def estimate(value, n=8, low=None, high=None):
    return {"value": value, "low": low, "high": high, "n": n, "unit": "", "method": "t"}


CERTIFICATE = {
    "client_limited": False, "lag_p99_s": 0.00031, "cpu_share": 0.04, "steady": True, "drift": 0.0, "n": 37, "errors": 2,
    "co_load": {"share": 0.25}, "noise_floor": 0.034, "client_error_ms": 1.27, "warm": True,
}  # fmt: skip


def one(**figures):
    launch = {"certificate": CERTIFICATE, "figures": {}, "warnings": []}
    return {
        "label": "m", "model": "m", "engine": "fake", "levels": [], "statuses": {}, "warnings": {},
        "figures": {"answers_per_minute": estimate(60.0, low=55.0, high=65.0), **figures},
        "launches": [launch, launch], "command": {"line": "serve m", "request": {}},
    }  # fmt: skip


def result(side, rate=None):
    return {"sides": [side], "dataset": {"name": "d", "items": 8}, "task": {"load": {"rate": rate}}}


def test_the_certificate_stands_below_the_figures(language):
    text = benchmark_text(result(one()))
    for shown in ("0.31 ms", "4 %", "1.27 ms", "3.4 %", "74", "2/2", "25 %"):
        assert shown in text, shown
    assert ("limited by our own client" if language == "en" else "측정 프로그램의 한계") in text
    limited = {"m": [{**CERTIFICATE, "client_limited": True}, CERTIFICATE]}
    assert ("yes: 1 of 2" if language == "en" else "예: 실행 2번 가운데 1번") in "\n".join(certificate_lines(limited))
    many = {f"side{n}": [CERTIFICATE] for n in range(5)}
    assert all(name in "\n".join(certificate_lines(many)) for name in many)
    assert certificate_lines({"m": []}) == []


def test_what_the_engine_says_of_itself_is_shown_and_what_it_does_not_say_is_named(language):
    text = benchmark_text(result(one(engine_waiting_max=estimate(7.0, n=4), engine_prefix_hit_share=estimate(0.625))))
    assert "7.0" in text
    assert "62.5 %" in text
    assert ("Not told by this engine: KV use." if language == "en" else "엔진이 알리지 않는 값: KV 사용량.") in text
    silent = benchmark_text(result(one()))
    assert (
        "prefix-cache hits, queue, KV use" if language == "en" else "프리픽스 캐시 적중, 대기열, KV 사용량"
    ) in silent


def test_times_from_the_planned_start_are_shown_where_there_was_a_plan():
    figures = {"ttft_plan_p50_ms": estimate(12.5), "ttft_p50_ms": estimate(12.0), "ttfot_p50_ms": estimate(12.0)}
    assert words.figure_name("ttft_plan_p50_ms") in benchmark_text(result(one(**figures), rate=5.0))
    closed = benchmark_text(result(one(**figures)))
    assert words.figure_name("ttft_plan_p50_ms") not in closed
    assert words.figure_name("ttfot_p50_ms") not in closed
    thinking = benchmark_text(result(one(**{**figures, "ttfot_p50_ms": estimate(99.0)})))
    assert words.figure_name("ttfot_p50_ms") in thinking


def test_a_sweep_shows_every_load_with_its_slo_and_where_it_saturates():
    def point(rate, *, saturated):
        figures = {
            "answers_per_minute": estimate(600.0, n=41, low=540.0, high=660.0),
            "ttft_p50_ms": estimate(7.25, low=7.125, high=7.5),
            "attainment": estimate(0.9, low=0.8, high=0.95),
        }
        warnings = ["measure.warn_co_load", *(["measure.warn_saturated"] if saturated else [])]
        load = {"rate": rate}
        flags = f"--rate {rate} --arrival poisson"
        return {"flags": flags, "load": load, "estimates": figures, "saturated": saturated, "warnings": warnings}

    swept = {"points": [point(2.0, saturated=False), point(9.0, saturated=True)], "capacity_per_s": 10.0}
    swept["capacity"] = estimate(600.0, n=41, low=540.0, high=660.0)
    swept["slo_boundary"] = {"attained": 0.95, "met": 2.0, "failed": 9.0}
    for text in (sweep_text({"sweep": swept}), summary_of({"kind": "benchmark", "sweep": swept})):
        for shown in ("--rate 9.0", "7.25 ms", "90%", "95%", "9–11", "7.12–7.5", "80–95", "41", "n=41"):
            assert shown in text, shown
        assert " ".join(text.split()).count(t("measure.warn_co_load")[:20]) == 1
        assert t("measure.warn_saturated")[:12] not in text, "a column says it"
    assert "–" in sweep_text({"sweep": {**swept, "slo_boundary": None}})


def verdict(kind, more, *, relative, low=0.9):
    effect = {"value": 1.01, "low": low, "high": 1.12, "n": 4}
    return {"kind": kind, "effect": effect, "relative": relative, "more_samples": more, "objective": "x"}


@pytest.mark.parametrize(
    ("relative", "word"), [(True, {"en": "launches of each", "ko": "실행"}), (False, {"en": "items", "ko": "문항"})]
)
def test_every_undecided_verdict_says_how_many_more(language, relative, word):
    found = verdict("undecided", 23, relative=relative)
    assert "23" in words.judged(found)
    sentence = words.further(found)
    assert "23" in sentence
    assert word[language] in sentence
    assert words.further({**found, "kind": "tie"}) == ""
    assert words.further({**found, "more_samples": None})
    claims = {"comparisons": [{}], "same_machine": True,
              "verdict": {**found, "winner": None, "objective": "speed", "others": {}}}  # fmt: skip
    assert "23" in verdict_sentences(claims)[0]
    total = {"step": "total", "quality": None, "speed": found}
    told = {"verdict": {**found, "judged_by": "speed", "sentence": "study.verdict_undecided"}, "gains": [total]}
    assert "23" in words.verdict_sentence(told)


def test_an_open_gate_an_open_limit_and_a_missed_precision_say_how_many_more():
    entry = {"after": "b", "quality": None, "speed": verdict("undecided", 5, relative=True)}
    open_ = gate([entry], 0.05)
    assert open_["checks"][0]["status"] == "open"
    more = open_["checks"][0]["more_samples"]
    assert more >= 1
    assert str(more) in gate_sentences(open_)[0]
    limit = parse_constraint("ttft_p95<800ms")
    measurement = Measurement(estimates={"ttft_p95_ms": Estimate(value=780, unit="ms", n=80, low=700, high=900)})
    checked = limit.check(measurement)
    assert checked.status.value == "undecided"
    assert checked.more_samples >= 1
    assert str(checked.more_samples) in words.limit_status(
        {"status": "undecided", "more_samples": checked.more_samples}
    )
    missed = {"sides": [one()], "precision": {"asked": 0.05, "reached": 0.1}}
    assert "6" in _precision_line(missed)
    assert "8" in _precision_line(missed)
    assert "5%" in _precision_line({**missed, "precision": {"asked": 0.05, "reached": None}})


def test_a_limit_that_was_met_or_never_measured_asks_for_nothing():
    limit = parse_constraint("ttft_p95<800ms")
    assert limit.check(Measurement(estimates={})).more_samples is None
    met = Measurement(estimates={"ttft_p95_ms": Estimate(value=100, unit="ms", n=80, low=90, high=110)})
    assert limit.check(met).more_samples is None
