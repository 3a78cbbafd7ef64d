"""Data and judging through the commands, on the scripted engine: open questions, creativity, evaluators, re-scoring."""

import csv
import json

import pytest

FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.02"}
QUICK = ("--dry-run", "--samples", "6", "--trials", "6", "--name", "study")


def result(cli):
    return json.loads((cli.folder / "optimization_results" / "study" / "result.json").read_text(encoding="utf-8"))


def open_questions(cli, count=40):
    path = cli.folder / "묻기.csv"
    with path.open("w", encoding="cp949", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["물음", "메모"])
        writer.writerows([f"{n}번째 계절의 하늘을 한 문장으로 그려 주세요.", "-"] for n in range(count))
    return path


def test_without_gold_answers_quality_is_agreement_and_speed_is_what_is_improved(cli, inside):
    path = open_questions(cli)
    ran = cli.run("optimize", "--dataset", str(path), "--column", "question=물음", *QUICK, env=FAST)
    assert ran.code == 0, ran.err
    found = result(cli)
    assert found["quality_measure"] == "agreement"
    assert found["verdict"]["objective"] == "answers_per_minute"
    assert [limit["text"].split(">=")[0] for limit in found["constraints"]] == ["quality"]
    measured = [t for t in found["trials"] if t["measurement"]]
    figures = {t["number"]: t["measurement"]["estimates"]["accuracy"]["value"] for t in measured}
    launch = found["baseline"]["configuration"]["launch"]
    same = [
        t for t in measured
        if t["configuration"]["request"] == {"temperature": 0.0, "prompt_form": "zero_shot"}
        and t["configuration"]["launch"] == launch
    ]  # fmt: skip
    assert same, "the greedy baseline is among the starting points"
    assert all(figures[t["number"]] == 1.0 for t in same)
    assert figures[0] < 1.0, "the baseline samples: it does not always agree with itself"
    assert "temperature 0" in ran.out
    # greedy trials say how alike they answer to the same prompt under the baseline's launch
    greedy = {t["number"]: t for t in measured if t["configuration"]["request"]["temperature"] == 0.0}
    matched = [t for t in greedy.values() if t["token_match"]]
    assert any(t["configuration"]["launch"] != launch for t in matched)
    for trial in matched:
        reference = greedy[trial["token_match"]["reference"]]["configuration"]
        assert reference["launch"] == launch
        assert reference["request"]["prompt_form"] == trial["configuration"]["request"]["prompt_form"]
        assert 0 <= trial["token_match"]["rate"]["value"] <= 1
    assert all(t["token_match"] is None for t in measured if t["number"] not in greedy)
    assert (cli.folder / "optimization_results" / "study" / "samples" / "reference.jsonl.gz").is_file()
    # what is stored is enough to judge it again
    again = inside.run("rescore", "study", "--json")
    scored = json.loads(again.out)
    assert scored["generated"] == 0
    assert all(t["before"] == t["after"] and t["changed"] == [] for t in scored["trials"])


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_real_model_is_judged_by_agreement_where_there_are_no_gold_answers(cli, demo_model):
    """Nine launches of a real engine; nothing here needs a settled speed, so each warms up for a second only."""
    path = cli.folder / "open.jsonl"
    rows = [{"question": f"Say something about the number {n}."} for n in range(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ran = cli.run(
        "compare", "--dataset", str(path), "--samples", "8", "--repeats", "4", "--max-tokens", "12", "--streams", "1",
        "--models", f"{demo_model}@temperature=0", f"{demo_model}@temperature=1.5", "--json",
        env={"LLMOPT_WARMUP_CAP_S": "1"}, patience_s=540,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    greedy, warm = ran.events[-1]["result"]["sides"]
    assert greedy["quality_measure"] == warm["quality_measure"] == "agreement"
    assert greedy["figures"]["accuracy"]["value"] == 1.0, "it is the reference"
    assert warm["figures"]["accuracy"]["value"] < 0.9
    assert warm["figures"]["accuracy"]["n"] == greedy["figures"]["accuracy"]["n"] == 8


def test_quality_cannot_be_improved_where_nobody_can_tell(cli, inside):
    path = open_questions(cli)
    wanted = ("--dataset", str(path), "--column", "question=물음")
    ran = inside.run("optimize", *wanted, "--strategy", "accuracy", *QUICK, env=FAST)
    assert ran.code == 3
    assert "--evaluator" in ran.err
    assert "Traceback" not in ran.err
    measured = cli.run("benchmark", *wanted, "--dry-run", "--samples", "6", "--repeats", "1", "--json", env=FAST)
    assert measured.code == 0, measured.err
    side = measured.events[-1]["result"]["sides"][0]
    assert "accuracy" not in side["figures"], "one configuration alone has nothing to agree with"
    assert side["items"] == {}


def test_creativity_wants_several_different_answers(cli):
    path = open_questions(cli)
    wanted = ("--dataset", str(path), "--column", "question=물음", "--strategy", "creativity")
    ran = cli.run("optimize", *wanted, *QUICK, env=FAST)
    assert ran.code == 0, ran.err
    found = result(cli)
    assert found["verdict"]["objective"] == "diversity"
    assert found["quality_measure"] == "ended_well"
    by_heat = {
        t["configuration"]["request"]["temperature"]: t["measurement"]["estimates"]["diversity"]["value"]
        for t in found["trials"]
        if t["measurement"]
    }
    assert by_heat[0.0] == 0.0
    assert by_heat[0.8] > 0.0
    assert found["best"]["configuration"]["request"]["temperature"] > 0
    asked = [t for t in found["trials"] if t["configuration"]["request"]["temperature"] == 0.8]
    assert asked[0]["measurement"]["estimates"]["truncated"]["n"] == 4 * 6


def test_an_evaluator_examples_and_seeds_by_option(cli, inside):
    examples = cli.folder / "shown.jsonl"
    rows = [{"question": f"{n} 더하기 1은?", "answer": str(n + 1)} for n in range(3)]
    examples.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    wanted = ("--dataset", "korean_math_easy", "--examples", str(examples), "--evaluator", "char_f1", "--seeds", "2")
    ran = cli.run("benchmark", *wanted, "--dry-run", "--samples", "8", "--repeats", "1", "--json", env=FAST)
    assert ran.code == 0, ran.err
    side = ran.events[-1]["result"]["sides"][0]
    assert side["quality_measure"] == "evaluator"
    assert side["statuses"]["ok"]["count"] == 16
    again = json.loads(inside.run("rescore", "--evaluator", "numeric", "--json").out)
    assert again["evaluator"] == "numeric"
    assert again["trials"][0]["answers"] == 16
    assert again["trials"][0]["changed"], "another rule, another score"
    unknown = inside.run("rescore", "--evaluator", "nummeric")
    assert unknown.code == 2
    assert "numeric" in unknown.err


def test_levels_that_say_nothing_and_doubts_reach_result_and_report(cli):
    ran = cli.run(
        "benchmark", "--dataset", "korean_math", "--dry-run", "--samples", "20", "--repeats", "1",
        "--set", "prompt_form=answer_only", "--name", "levels", "--json", env=FAST,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    side = ran.events[-1]["result"]["sides"][0]
    levels = side["levels"]
    assert [row["level"] for row in levels] == [1, 2, 3, 4, 5]
    saturated = [row for row in levels if row["value"] < 0.05 or row["value"] > 0.95]
    assert saturated, "one right answer in seven leaves levels with none right"
    assert all(row["weight"] == 0 for row in saturated)
    assert side["telling"]["n"] == 20 - sum(row["n"] for row in saturated)
    report = (cli.folder / "optimization_results" / "levels" / "report.html").read_text(encoding="utf-8")
    assert "re-weighted mean" in report


def test_an_optimisation_says_which_levels_lost_their_weight(cli):
    ran = cli.run("optimize", "--dataset", "korean_math", *QUICK, env=FAST)
    assert ran.code == 0, ran.err
    found = result(cli)
    said = " ".join(ran.out.split())
    sides = [found[side]["answers"] for side in ("baseline", "best")]
    assert any(row["saturated"] for answers in sides for row in answers["levels"])
    assert "loses its weight" in said
