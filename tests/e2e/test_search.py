"""What the search promises, seen from outside: the plan, races, shared engines, earlier studies, budgets, limits."""

import json
import shutil

import pytest

DRY = ("optimize", "--dry-run", "--dataset", "korean_math_easy", "--json")
FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.02"}


@pytest.fixture
def study(cli):
    """``study(name, …)``: run a dry study and return its events, newest result last."""

    def run(name, *arguments):
        ran = cli.run(*DRY, "--name", name, *arguments, env=FAST)
        assert ran.code == 0, ran.err
        return ran.events

    return run


@pytest.fixture(scope="module")
def before(workshop):
    """A workspace with a finished study ``before``, and its events."""
    ran = workshop.run(*DRY, "--name", "before", "--samples", "4", "--trials", "12", env=FAST)
    assert ran.code == 0, ran.err
    return workshop.folder, ran.events


def of(events, kind):
    return [event for event in events if event["event"] == kind]


def trials(events):
    return [trial for trial in events[-1]["result"]["trials"] if trial["phase"] != "confirm"]


def samples_of(cli, name, trial):
    from llmopt.store.samples import read_samples

    folder = cli.folder / "optimization_results" / name / "samples"
    return [entry["sample"]["item_id"] for entry in read_samples(folder / trial["samples"])]


def test_losers_are_raced_out_on_the_same_items_and_the_winner_never(cli, study):
    events = study("race", "--objective", "answers_per_minute", "--samples", "40", "--trials", "8", "--method", "grid")
    found = trials(events)
    dropped = [trial for trial in found if trial["outcome"] == "raced_out"]
    assert dropped
    for trial in dropped:
        assert trial["failure"]["id"] == "search.raced_out"
        asked = samples_of(cli, "race", trial)
        assert 8 <= len(asked) < 40
        assert set(asked) <= set(samples_of(cli, "race", found[0]))
    ended = {event["number"]: event for event in of(events, "trial_ended")}
    assert all(ended[t["number"]]["why"] and ended[t["number"]]["share"] < 1 for t in dropped)
    result = events[-1]["result"]
    assert result["best"]["trial"] not in {trial["number"] for trial in dropped}
    assert not {t["number"] for t in dropped} & set(result["pareto"])
    searched = {item for trial in found for item in samples_of(cli, "race", trial)}
    confirmed = {item for p in cli_passes(cli, "race") for item in p}
    assert confirmed
    assert not searched & confirmed


def cli_passes(cli, name):
    """Item ids of every confirmation pass."""
    import sqlite3

    from llmopt.store.samples import read_samples

    results = cli.folder / "optimization_results"
    with sqlite3.connect(f"file:{results / 'llmopt.db'}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT samples FROM trials WHERE phase = 'confirm' AND samples IS NOT NULL").fetchall()
    db.close()
    return [[entry["sample"]["item_id"] for entry in read_samples(results / name / "samples" / row[0])] for row in rows]


def test_request_settings_share_an_engine_for_quality_alone(study):
    events = study("together", "--objective", "quality", "--samples", "8", "--trials", "6")
    kinds = [event["event"] for event in events if event["event"] in {"trial_started", "trial_ended"}]
    assert kinds[2:4] == ["trial_started"] * 2
    found = trials(events)
    assert all(trial["outcome"] in {"done", "raced_out"} for trial in found)
    launches = [trial for trial in found if trial["launch_s"]]
    assert len(launches) < len(found) / 2
    shared = [t for t in found[1:] if "answers_per_minute" not in t["measurement"]["estimates"]]
    assert shared


def test_a_plan_first_few_restarts_and_nothing_twice(before):
    _, events = before
    first, *later = of(events, "plan")
    kinds = [event["event"] for event in events]
    assert kinds.index("plan") < kinds.index("trial_started", kinds.index("trial_ended"))
    assert {"trials", "restarts", "finish_s", "quality", "speed", "limit_s"} <= first.keys()
    assert first["trials"] == 11
    assert 0 < first["quality"] < 1
    assert [event["trials"] for event in later] == [6, 1]

    found = trials(events)
    keys = [trial["configuration"]["key"] for trial in found]
    assert len(set(keys)) == len(keys) == 12
    assert sum(bool(trial["launch_s"]) for trial in found) <= 6
    assert all("answers_per_minute" in trial["measurement"]["estimates"] for trial in found)
    assert "study.learnt_from" not in {event["key"] for event in of(events, "note")}


def test_the_next_study_learns_and_no_name_is_taken_twice(cli, inside, study, before):
    shutil.copytree(before[0], cli.folder, dirs_exist_ok=True)
    again = study("after", "--samples", "4", "--trials", "8", "--seed", "1")
    (note,) = [event for event in of(again, "note") if event["key"] == "study.learnt_from"]
    assert note["values"]["names"] == "before"
    assert "history" in {trial["origin"] for trial in trials(again)}

    for more in ((), ("--streams", "2"), ("--dataset", "korean_qa")):  # a name is taken, whatever the space
        ran = inside.run(*DRY, "--name", "before", "--samples", "4", "--trials", "2", *more, env=FAST)
        assert ran.code == 2, ran.err
        assert "before" in ran.err
    folder = inside.folder / "optimization_results" / "before"
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["study"] == "before"


def test_a_search_that_gains_nothing_stops_early_and_says_so(study):
    events = study("still", "--objective", "memory", "--samples", "4", "--trials", "200", "--method", "random")
    assert events[-1]["result"]["stopped_by"] == "no_progress"
    assert "study.stopped_no_progress" in {event["key"] for event in of(events, "note")}
    assert len(trials(events)) < 60


@pytest.mark.parametrize(("language", "words"), [("en", "smallest useful budget"), ("ko", "의미 있는 최소 시간")])
def test_a_budget_that_pays_for_the_baseline_alone_names_the_smallest_useful_one(cli, language, words):
    slow = {"LLMOPT_FAKE_TIME_SCALE": "1", "LLMOPT_LANG": language}
    ran = cli.run(*DRY[:-1], "--samples", "16", "--name", "short", "--budget", "9s", env=slow)
    assert ran.code == 2, ran.err
    assert words in ran.err
    assert "--timeout" in ran.err
    assert "Traceback" not in ran.err
    cli.wait_until_clean()


def test_a_limit_out_of_reach_is_named_with_the_nearest_value(cli, study):
    events = study("far", "--constraint", "answers_per_minute>9999999", "--samples", "4", "--trials", "3")
    result = events[-1]["result"]
    (limit,) = result["unreached"]
    assert limit["text"] == "answers_per_minute>9999999"
    assert 0 < limit["nearest"] < 9999999
    assert result["verdict"]["sentence"] == "study.verdict_nothing_allowed"
    for language, word in (("en", "nearest value"), ("ko", "가장 가까운 값")):
        report = cli.folder / "optimization_results" / "far" / f"report.{language}.md"
        shown = report.read_text(encoding="utf-8").replace("\\", "")  # without Markdown's escapes
        assert "answers_per_minute>9999999" in shown
        assert word in shown


def test_a_percentile_of_few_requests_steers_the_search_and_is_no_result(study):
    limits = ("--constraint", "ttft_p95<9999ms", "--constraint", "e2e_p95<1ms")
    result = study("few", *limits, "--samples", "4", "--trials", "3")[-1]["result"]
    (limit,) = result["unreached"]  # the other one is met by all, as far as four requests tell
    assert limit["text"] == "e2e_p95<1ms"
    assert limit["nearest"] > 1
    assert "e2e_p95_ms" not in result["best"]["search"]["estimates"]
    assert {one["status"] for one in result["constraints"]} == {"undecided"}


def test_a_result_is_explained_and_why_not_is_answered(inline, before):
    folder, events = before
    shutil.copytree(folder, inline.folder, dirs_exist_ok=True)
    result = events[-1]["result"]
    other = next(t for t in result["trials"] if t["number"] != result["best"]["trial"] and t["origin"] == "start")
    form = other["configuration"]["request"]["prompt_form"]
    asked = ("--why-not", f"prompt_form={form},temperature=0.0", "--why-not", "threads=8", "--why-not", "context=256")
    ran = inline.run("explain", "before", *asked, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    first = found["objectives"][0]
    assert {one["parameter"] for one in first["importance"]} >= {"prompt_form", "threads"}
    assert all(one["low"] <= one["share"] <= one["high"] for one in first["importance"])
    assert {one["kind"] for one in found["binds"]} == {"memory", "bandwidth", "compute", "batch", "client"}
    kinds = {tuple(answer["changes"]): answer["kind"] for answer in found["why_not"]}
    assert kinds[("threads",)] in {"estimated", "measured"}
    assert kinds[("context",)] == "illegal"
    for language, word in (("en", "What holds the winner back"), ("ko", "무엇이 승자를 막고 있는가")):
        told = inline.run("explain", "before", *asked, lang=language)
        assert told.code == 0, told.err
        assert word in told.out
        assert "threads=8" in told.out
    for wrong, code in (
        (("nowhere",), 3),
        (("before", "--why-not", "wings=2"), 2),
        (("before", "--why-not", "threads"), 2),
    ):
        refused = inline.run("explain", *wrong)
        assert refused.code == code, refused.err
        assert "Traceback" not in refused.err
