"""Reports: one content in every format, a table beside every chart, nothing of a model's text taken for markup."""

import csv
import io
import itertools
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from llmopt.errors import UsageError
from llmopt.hardware.sampler import TracePoint
from llmopt.messages import LANGUAGES, set_language
from llmopt.records import AnswerStatus, Item, Sample, Score
from llmopt.report.answers import answers_blocks, levels_table
from llmopt.report.charts import load_curve, memory_over_time, times_of_answers
from llmopt.report.detail import Detail, Launch, SideDetail, read_detail
from llmopt.report.document import Chart, Marked, Table, plain
from llmopt.report.formats import FORMATS, export_target
from llmopt.report.html import POLICY
from llmopt.report.measured import benchmark_text, comparison_text
from llmopt.report.study_document import study_document
from llmopt.report.swept import sweep_text
from llmopt.report.text import summary
from llmopt.report.writing import rendered, write_export, write_report
from llmopt.store.beside import read_answers, read_course, read_questions, write_answers, write_course, write_questions

DEMO = Path(__file__).resolve().parents[2] / "docs" / "measurements" / "demo-run"
NASTY = "<script>alert(1)</script> | `x` *y* [z](http://e.x)"
LONG_KOREAN = "아주-긴-이름의-모델-큐원-이점오-십사비@prompt_form=examples,temperature=0.0"


@pytest.fixture(autouse=True)
def _language():
    set_language("en")
    yield
    set_language(None)


@pytest.fixture(scope="module")
def demo():
    return json.loads((DEMO / "result.json").read_text(encoding="utf-8"))


def estimate(value, n=8):
    return {"value": value, "low": 0.8 * value, "high": 1.2 * value, "n": n, "unit": "", "method": "t"}


def launches(answer, right):
    samples = tuple(
        Sample(item_id=f"i{n}", planned_s=0.0, sent_s=0.0, ended_s=1.0 + n / 10, token_s=(0.2, 0.4 + n / 50, 1.0 + n / 10),
               first_answer_s=0.2, text=f"{answer} {n}", completion_tokens=3)
        for n in range(8)
    )  # fmt: skip
    scores = tuple(
        Score(item_id=f"i{n}", value=float(n in right), status=AnswerStatus.OK, extracted=str(n)) for n in range(8)
    )
    course = tuple(
        TracePoint(at_s=float(k), phase=phase, anonymous_bytes=held * 10**6, file_bytes=0, shared_bytes=0, device_bytes=())
        for k, (phase, held) in enumerate(
            [("loading", 0), ("loading", 300), ("warm-up", 400), ("serving", 500), ("serving", 450), ("released", 0)]
        )
    )  # fmt: skip
    return Launch(samples=samples, scores=scores, course=course)


def detail():
    questions = {f"i{n}": Item(id=f"i{n}", question=f"{NASTY} {n}", answers=(str(n),), level=n // 4) for n in range(8)}
    sides = (
        SideDetail(label="old", launches=(launches("답은", {0, 1, 2, 3}),)),
        SideDetail(label="new", launches=(launches("정답은", {0, 1, 2, 3, 4}),)),
    )
    return Detail(sides=sides, questions=questions)


def side(label, *, model="m", speed=60.0, quality=0.5):
    figures = {
        "accuracy": estimate(quality), "answers_per_minute": estimate(speed), "output_tokens_per_s": estimate(9.0),
        "ttft_p50_ms": estimate(12.5), "e2e_p50_ms": estimate(1200.0), "memory_bytes": estimate(6e8), "error_rate": estimate(0.0),
    }  # fmt: skip
    certificate = {"client_limited": False, "lag_p99_s": 0.0003, "cpu_share": 0.04, "steady": None, "drift": None,
                   "n": 8, "errors": 0, "co_load": {"share": 0.25}, "noise_floor": None}  # fmt: skip
    launch = {"figures": {"answers_per_minute": speed}, "valid": True, "warnings": [], "certificate": certificate,
              "trial": 0, "launch_s": 1.0, "warmup_s": 0.5, "measure_s": 3.0}  # fmt: skip
    command = {"line": "llama-server --model m.gguf", "request": {"temperature": 0.0}}
    return {
        "label": label, "model": model, "engine": "fake", "figures": figures, "levels": [], "items": {"i0": 1.0},
        "statuses": {"ok": {**estimate(1.0), "count": 8}}, "warnings": {"measure.warn_co_load": 1}, "launches": [launch],
        "command": command, "facts": {"name": model, "sha256": None}, "configuration": {"launch": {}, "request": {}},
    }  # fmt: skip


def measured(*sides, kind="compare", imported=()):
    verdict = {
        "kind": "better",
        "objective": "speed",
        "relative": True,
        "effect": estimate(1.3),
        "method": "t",
        "more_samples": None,
    }
    pairs = [
        {"before": a["label"], "after": b["label"], "quality": None, "speed": verdict} for a, b in itertools.pairwise(sides)
    ]  # fmt: skip
    others = {"quality": {"kind": "tie", "winner": None}}
    claims = {"kind": "better", "winner": sides[-1]["label"], "objective": "speed", "others": others}
    return {
        "schema_version": 1, "kind": kind, "study": "s", "created": "2026-01-01", "sides": list(sides),
        "imported": list(imported), "comparisons": pairs, "verdict": claims, "same_machine": True, "gate": None,
        "dataset": {"name": "d", "items": 8}, "hardware": {"cpu": {"model": "c", "usable_cores": 2.0}},
        "versions": {"llmopt": "2"}, "baseline": sides[0], "best": sides[-1],
    }  # fmt: skip


class Outline(HTMLParser):
    """What a page consists of, to a reader without eyes."""

    def __init__(self, text):
        super().__init__()
        self.count = {}
        self.open = []
        self.sources = []
        self.unlabelled = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.count[tag] = self.count.get(tag, 0) + 1
        self.sources += [given[name] for name in ("src", "href") if name in given and not given[name].startswith("#")]
        if given.get("role") == "img" and not given.get("aria-label"):
            self.unlabelled += 1


# ── what stands in a report ────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_difference_holds_both_texts_whole(before, after):
    marked = Marked.between(before, after)
    assert plain(marked) == after
    assert "".join(text for text, kind in marked.spans if kind != "new") == before


def test_answers_that_differ_in_outcome_come_first_with_their_difference_marked():
    blocks = answers_blocks(detail())
    table = blocks[-1]
    assert table.rows[0][0] == "i4"
    assert table.alike == frozenset(range(1, 8))
    second = table.rows[0][4]
    assert [kind for _, kind in second.spans].count("new") == 1
    assert plain(second).startswith("[right] 정답은 4")
    assert "1 had differing outcomes" in blocks[0].text


def test_a_level_that_tells_nothing_apart_loses_its_weight():
    table = levels_table(detail())
    assert [row[0] for row in table.rows] == ["level 0", "level 1", "re-weighted mean (levels 1)"]
    assert "saturated" in table.rows[0][1]
    assert table.rows[2][1].startswith("0.0 %")
    assert table.rows[2][2].startswith("25.0 %")


def test_distributions_show_only_percentiles_that_the_sample_supports():
    chart = times_of_answers(detail())
    assert len(chart.panels) == 3
    assert all(0 <= y <= 100 for panel in chart.panels for trace in panel.traces for y in trace["y"])
    first = chart.table.rows[0]
    assert first[:2] == ["time to first token (TTFT)", "old"]
    assert first[2].startswith("200 (")
    assert first[5] == "–"  # p99 of eight answers
    assert first[6] == "8"


def test_memory_is_told_phase_by_phase():
    chart = memory_over_time(detail())
    rows = [row for row in chart.table.rows if row[0] == "old"]
    assert [(row[1], row[3]) for row in rows] == [
        ("loading", "300 MB"), ("warm-up", "400 MB"), ("measuring", "500 MB"), ("released", "0"),
    ]  # fmt: skip
    assert [band[2] for band in chart.panels[0].bands] == ["loading", "warm-up", "measuring", "released"]


def test_a_sweep_becomes_a_curve_of_latency_over_throughput():
    points = [
        {"load": {"streams": n, "rate": None}, "saturated": n == 4,
         "estimates": {"answers_per_minute": estimate(50.0 * n), "ttft_p50_ms": estimate(10.0 * n)}}
        for n in (1, 2, 4)
    ]  # fmt: skip
    chart = load_curve(points)
    assert chart.panels[0].traces[0]["x"] == [50.0, 100.0, 200.0]
    assert load_curve([*points, points[0]]).panels[0].traces[0]["x"] == [50.0, 100.0, 200.0, 50.0], "in rising load"
    assert chart.table.rows[2][0] == "4 streams (saturated)"
    assert load_curve([]) is None


@pytest.mark.parametrize(
    ("objectives", "axes"),
    [
        ("quality,memory", ("peak memory (MB)", "right answers (%)")),
        ("memory", None),
        ("quality,speed", None),
        (None, None),
    ],
)
def test_the_pareto_set_stands_over_the_objectives_that_were_asked_for(demo, objectives, axes):
    result = {**demo, "request": {**demo["request"], "objectives": objectives}}
    (section,) = [one for one in study_document(result, Detail()).sections if one.title == "All trials"]
    (chart,) = [block for block in section.blocks if isinstance(block, Chart)]
    ringed = [p for p in chart.panels if any(trace["name"] == "Pareto set" for trace in p.traces)]
    assert len(ringed) == 1
    found = (ringed[0].x["title"], ringed[0].y["title"])
    assert found == (axes or ("answers/min", "right answers (%)"))
    if axes:
        assert all(value < 1e5 for trace in ringed[0].traces for value in trace["x"]), "in MB"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sweep_fits_the_terminal_in_both_languages(language):
    set_language(language)
    points = [
        {"load": {"streams": None, "rate": rate}, "flags": f"--rate {rate} --arrival poisson", "saturated": rate > 2,
         "estimates": {"answers_per_minute": estimate(50.0 * rate), "ttft_p50_ms": estimate(10.0 * rate),
                       "e2e_p50_ms": estimate(2000.0), **({"attainment": estimate(0.5)} if rate > 1 else {})}}
        for rate in (1, 2, 4)
    ]  # fmt: skip
    for boundary in (
        None,
        {"attained": 0.99, "met": 2.0, "failed": 4.0},
        {"attained": 0.99, "met": None, "failed": 1.0},
    ):
        text = sweep_text({"sweep": {"points": points, "capacity_per_s": 3.2, "slo_boundary": boundary}})
        assert all(cell_len(line) <= 80 for line in text.splitlines())
        assert "--rate 4" in text
        assert "50%" in text


def test_what_lies_beside_a_result_comes_back(tmp_path):
    one = launches("답", {1})
    write_answers(tmp_path, 7, one.samples, one.scores)
    write_course(tmp_path, 7, one.course)
    write_questions(tmp_path, detail().questions.values())
    assert read_answers(tmp_path, 7) == (one.samples, one.scores)
    assert read_course(tmp_path, 7) == one.course
    assert read_course(tmp_path, 8) == ()
    assert read_questions(tmp_path)["i3"].answers == ("3",)
    assert read_questions(tmp_path / "nowhere") == {}


def test_a_result_without_its_raw_answers_still_has_its_report(demo, tmp_path):
    found = read_detail(tmp_path, demo, ["a", "b"])
    assert [one.launches for one in found.sides] == [(), ()]
    assert "What each step gained" in rendered(demo, "md", folder=None)


# ── formats ────────────────────────────────────────────────────────────────────────────────────────────────────────


def pages(demo):
    yield "study", demo, DEMO
    yield "benchmark", measured(side("one"), kind="benchmark"), None
    yield "compare", measured(side("one"), side(LONG_KOREAN, speed=80.0)), None


def test_a_page_is_whole_offline_and_readable_without_eyes_or_scripts(demo):
    for name, result, folder in pages(demo):
        text = rendered(result, "html", folder=folder)
        outline = Outline(text)
        assert outline.sources == [], name
        assert POLICY in text
        assert outline.count["table"] == outline.count["caption"] == outline.count["thead"], name
        assert outline.count.get("figure", 0) == outline.count.get("figcaption", 0)
        assert outline.unlabelled == 0
        assert outline.count["article"] == outline.count["h1"] == len(LANGUAGES)
        assert text.count("<article") == len(LANGUAGES)
        assert len(text) < 2_600_000, name


def test_every_chart_of_a_page_has_data_in_both_languages(demo):
    text = rendered(demo, "html", folder=DEMO)
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', text, re.DOTALL)[1])
    by_language = {lang: sum(key.startswith(lang) for key in charts) for lang in LANGUAGES}
    assert len(set(by_language.values())) == 1
    assert by_language["ko"] >= 5
    assert all(panel["traces"] for panel in charts.values())


def test_no_text_of_a_model_is_markup():
    result = measured(side(NASTY), side("two"))
    assert "<script>alert" not in rendered(result, "html", folder=None)
    text = rendered(result, "md", folder=None)
    assert "<script>" not in text
    assert not re.search(r"(?<!\\)\]\(http", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) >= 3 for line in rows)


def test_csv_is_one_row_a_figure_with_unit_interval_and_n(demo):
    for _, result, folder in pages(demo):
        text = rendered(result, "csv", folder=folder)
        assert text.startswith("\ufeff")
        rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
        assert {"side", "figure", "value", "low", "high", "n", "unit", "method"} == set(rows[0])
        found = {row["side"]: float(row["value"]) for row in rows if row["figure"] == "answers_per_minute"}
        assert all(value > 0 for value in found.values())
        assert len(found) >= len(result.get("sides", ())) or "baseline (search)" in found
    assert not any(row["side"].startswith(("=", "+")) for row in csv.DictReader(io.StringIO(rendered(
        measured(side("=cmd()"), side("b")), "csv", folder=None).removeprefix("\ufeff"))))  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_terminal_texts_fit_80_cells_but_for_what_is_to_be_copied(demo, language):
    set_language(language)
    imported = {"label": "GuideLLM 0.5 (synchronous)", "figures": {"ttft_p50_ms": estimate(3.0)},
                "differences": ["measure.import_guidellm"], "model": "x"}  # fmt: skip
    texts = [
        summary(demo),
        benchmark_text(measured(side(LONG_KOREAN), kind="benchmark")),
        comparison_text(measured(side(LONG_KOREAN), side("짧은-이름", model="other", speed=80.0), imported=[imported])),
        comparison_text(measured(*(side(f"{LONG_KOREAN}{n}", speed=50.0 + n) for n in range(6)))),
    ]
    for text in texts:
        wide = [line for line in text.splitlines() if cell_len(line) > 80]
        assert [line for line in wide if "llama-server" not in line] == []


def test_imported_figures_are_labelled_as_theirs_and_nothing_is_judged_alone():
    imported = {"label": "AIPerf 1 (concurrency 4)", "figures": {"inter_chunk_p50_ms": estimate(3.0)},
                "differences": ["measure.import_aiperf"], "model": "x"}  # fmt: skip
    result = measured(side("ours"), imported=[imported])
    for text in (comparison_text(result), rendered(result, "md", folder=None)):
        assert "no verdict" in text
        assert "as that tool defines it" in text
        assert "inter-chunk median" in text
    assert "AIPerf 1 (concurrency 4)" in rendered(result, "csv", folder=None)


def test_every_file_of_a_report_is_written_whole(tmp_path):
    write_report(tmp_path / "s", measured(side("a"), side("b")))
    names = {path.name for path in (tmp_path / "s").iterdir()} - {".llmopt"}
    assert names == {"result.json", "report.ko.md", "report.en.md", "report.html", "figures.csv"}
    assert "정답률" in (tmp_path / "s" / "report.ko.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", FORMATS)
def test_export_writes_by_the_ending_or_by_a_format_alone(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    result = measured(side("a"), side("b"))
    assert write_export(result, f"x.{kind}", folder=None) == Path(f"x.{kind}")
    assert write_export(result, kind, folder=None).read_bytes() == Path(f"x.{kind}").read_bytes()
    assert Path(f"s.{kind}").exists()


def test_a_format_there_is_not_is_refused_by_name():
    with pytest.raises(UsageError) as caught:
        export_target("report.pdf", "s")
    assert "html, md, csv, json" in str(caught.value)


def test_a_chart_cannot_be_made_without_its_table():
    with pytest.raises(TypeError):
        Chart(panels=())
    assert isinstance(asdict(Table(caption="", headings=(), rows=())), dict)
