"""``benchmark`` and ``compare`` from end to end on the scripted engine: figures, verdicts, gate, bad words, Ctrl-C."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from rich.cells import cell_len

MATH = ("--dry-run", "--dataset", "korean_math_easy")
BENCH = ("benchmark", *MATH, "--samples", "8", "--repeats", "3")
FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.1"}
SLOW = {"LLMOPT_FAKE_TIME_SCALE": "0.5"}


def result(cli, name):
    return json.loads((cli.folder / "optimization_results" / name / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def base(workshop):
    """A workspace with a finished benchmark ``base``."""
    ran = workshop.run(*BENCH, "--name", "base", "--price-per-hour", "2", "--slo", "ttft<5s", env=FAST)
    assert ran.code == 0, ran.err
    workshop.wait_until_clean()
    return workshop.folder


@pytest.fixture
def beside(base, inline):
    """A command line inside this process over a copy of that workspace."""
    shutil.copytree(base, inline.folder, dirs_exist_ok=True)
    return inline


def test_a_benchmark_gives_every_figure_its_interval_and_is_listed(beside):
    found = result(beside, "base")
    assert {"schema_version", "baseline", "best", "verdict", "command", "hardware", "versions"} <= found.keys()
    figures = found["sides"][0]["figures"]
    wanted = {"accuracy", "answers_per_minute", "characters_per_s", "memory_bytes", "attainment", "error_rate"}
    assert wanted | {"cost_per_million_tokens", "cost_per_thousand_answers"} <= figures.keys()
    for name in wanted:
        assert figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"], name
        assert figures[name]["n"] > 0
    hours = 1000 / (figures["answers_per_minute"]["value"] * 60)
    assert figures["cost_per_thousand_answers"]["value"] == pytest.approx(2 * hours)
    assert len(found["sides"][0]["launches"]) == 3
    assert len(found["sides"][0]["items"]) == 8
    rows = json.loads(beside.run("list", "--type", "results", "--json").out)
    assert [(row["study"], row["trials"]) for row in rows] == [("base", 3)]
    assert beside.run("optimize", "--resume", "base").code == 2


def test_a_comparison_finds_the_better_prompt_in_one_table(cli, inside):
    ran = cli.run(
        "compare", *MATH, "--samples", "32", "--name", "c", "--models", "smollm2-135m@temperature=0",
        "smollm2-135m@temperature=0,prompt_form=examples,threads=4", env={**FAST, "LLMOPT_LANG": "ko"},
    )  # fmt: skip
    assert ran.code == 0, ran.err
    cli.wait_until_clean()
    found = result(cli, "c")
    assert found["verdict"]["kind"] == "better"
    assert found["best"]["configuration"]["request"]["prompt_form"] == "examples"
    assert found["best"]["configuration"]["launch"]["threads"] == 4
    (match,) = found["token_match"]  # both are greedy: how alike they answer is said beside the verdict
    assert match["before"] == "smollm2-135m@temperature=0"
    assert 0 < match["rate"]["value"] < 1
    assert match["rate"]["n"] == found["dataset"]["items"]
    for language, words in (("ko", "서로 같은 토큰"), ("en", "the same tokens")):
        told = inside.run("report", "c", lang=language).out
        assert words in " ".join(told.split())
        assert [line for line in told.splitlines() if cell_len(line) > 80] == []
        assert (told.rstrip() in ran.out) == (language == "ko"), "what a comparison says is what its report says"


def test_the_same_against_itself_is_no_winner_and_models_are_not_judged_by_tokens(cli, inside):
    ran = cli.run(
        "compare", *MATH, "--samples", "16", "--name", "c", "--models", "smollm2-135m@temperature=0",
        "--models", "qwen2.5-coder-0.5b@temperature=0", "--json", env=FAST,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = ran.events[-1]["result"]
    quality = found["comparisons"][0]["quality"]
    assert quality["effect"]["value"] == 0
    assert quality["kind"] in {"tie", "equivalent", "undecided"}
    assert "output tokens/s" not in inside.run("compare", "--help").out
    assert found["verdict"]["objective"] != "tokens"
    assert found["token_match"][0]["identical"]["value"] == 1.0


OTHERS = Path(__file__).parents[1] / "fixtures" / "importers"


@pytest.mark.parametrize("language", ["ko", "en"])
def test_results_of_other_tools_stand_in_one_table(inline, language):
    files = [str(OTHERS / f"{name}.json") for name in ("vllm_summary", "guidellm", "aiperf")]
    ran = inline.run("compare", *files, "--name", "others", lang=language)
    assert ran.code == 0, ran.err
    assert [line for line in ran.out.splitlines()[:-1] if cell_len(line) > 80] == []
    for tool in ("vllm bench serve", "GuideLLM 0.8.1 (concurrent 4)", "GuideLLM 0.8.1 (poisson 2.0/s)", "AIPerf"):
        assert tool in ran.out
    found = result(inline, "others")
    assert [one["figures"]["ttft_p50_ms"]["value"] for one in found["imported"]] == [100, 100, 100, 100]
    assert found["comparisons"] == found["sides"] == []
    folder = inline.folder / "optimization_results" / "others"
    assert "AIPerf" in (folder / "report.html").read_text(encoding="utf-8")
    assert inline.run("report", "others", lang=language).out in ran.out + "\n"
    assert inline.run("compare", *files, "--name", "others").code == 2
    assert inline.run("compare", files[0]).code == 2
    assert inline.run("compare", "--baseline", "others", "smollm2-135m", "--dry-run").code == 3


def test_another_tools_result_stands_beside_what_is_measured_and_is_not_judged(cli, inside):
    ran = cli.run(
        "compare", *MATH, "--samples", "8", "--name", "c", "smollm2-135m", str(OTHERS / "guidellm.json"),
        str(OTHERS / "guidellm.json"), env=FAST,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = result(cli, "c")
    assert len(found["imported"]) == 4
    assert len({one["label"] for one in found["imported"]}) == 4
    assert found["comparisons"] == []
    assert found["best"]["label"] == "smollm2-135m"
    assert "token-weighted" in ran.out
    cli.wait_until_clean()
    ran = inside.run("compare", *MATH, "smollm2-135m", str(cli.folder / "bad.json"), env=FAST)
    assert ran.code != 0
    (cli.folder / "bad.json").write_text("{}", encoding="utf-8")
    ran = inside.run("compare", *MATH, "smollm2-135m", "bad.json", env=FAST)
    assert ran.code == 3
    assert "bad.json" in ran.err


def test_three_models_in_turns_come_to_an_end_with_every_pair_judged(cli):
    models = ("smollm2-135m", "qwen2.5-coder-0.5b", "smollm2-135m@threads=2")
    ran = cli.run("compare", *MATH, "--samples", "8", "--repeats", "4", "--name", "c", *models, env=FAST)
    assert ran.code == 0, ran.err
    found = result(cli, "c")
    assert [len(one["launches"]) for one in found["sides"]] == [4, 4, 4]
    pairs = {(one["before"], one["after"]) for one in found["comparisons"]}
    assert pairs == {(models[0], models[1]), (models[0], models[2]), (models[1], models[2])}
    cli.wait_until_clean()


def test_the_gate_fails_with_8_only_where_it_became_worse(cli, base):
    shutil.copytree(base, cli.folder, dirs_exist_ok=True)
    same = ("compare", "--dry-run", "--baseline", "base", "--fail-if-worse")
    ran = cli.run(*same, "60%", "--name", "again", env=FAST)
    assert ran.code == 0, ran.err
    assert result(cli, "again")["gate"]["failed"] is False
    file = str(cli.folder / "optimization_results" / "base" / "result.json")
    ran = cli.run("compare", "--dry-run", "--baseline", file, "--fail-if-worse", "5%", "--name", "slow", env=SLOW)
    assert ran.code == 8, ran.out + ran.err
    assert "5%" in ran.err
    assert "Traceback" not in ran.err
    checks = {check["figure"]: check["status"] for check in result(cli, "slow")["gate"]["checks"]}
    assert checks["speed"] == "failed"
    assert checks["quality"] != "failed"
    assert set(result(cli, "slow")["sides"][0]["items"]) == set(result(cli, "base")["sides"][0]["items"])
    cli.wait_until_clean()


def test_greedy_answers_are_matched_with_those_of_a_stored_baseline(cli):
    korean, english = ({**FAST, "LLMOPT_LANG": language} for language in ("ko", "en"))
    asked = ("benchmark", *MATH, "--samples", "8", "--repeats", "1", "--set", "temperature=0")
    assert cli.run(*asked, "--name", "greedy", env=korean).code == 0
    against = ("compare", "--dry-run", "--repeats", "1", "--baseline")
    ran = cli.run(*against, "greedy", "--name", "again", env=korean)
    assert ran.code == 0, ran.err
    (match,) = result(cli, "again")["token_match"]
    assert (match["before"], match["rate"]["value"], match["rate"]["n"]) == ("greedy", 1.0, 8)
    assert "서로 같은 토큰" in " ".join(ran.out.split())
    stored = cli.folder / "optimization_results" / "greedy" / "result.json"
    (cli.folder / "alone.json").write_bytes(stored.read_bytes())
    ran = cli.run(*against, "alone.json", "--name", "more", env=english)
    assert ran.code == 0, ran.err
    assert result(cli, "more")["token_match"] == []
    assert "no token match is given" in " ".join(ran.out.split())
    cli.wait_until_clean()


def test_a_baseline_of_another_task_is_refused(beside):
    gate = ("compare", "--dry-run", "--baseline", "base")
    refusals = {
        "items": ((*gate, "--dataset", "korean_math"), 3, "fingerprint"),
        "seed": ((*gate, "--seed", "5"), 3, "fingerprint"),
        "load": ((*gate, "--streams", "2"), 3, "--streams 4"),
        "launches": ((*gate, "--repeats", "1", "--fail-if-worse", "5%"), 3, "two launches"),
    }
    stored = result(beside, "base")
    for name, change in {
        "machine": {"hardware": {"fingerprint": "other"}},
        "torn": {"sides": [{"label": "x"}]},
        "future": {"schema_version": 99},
    }.items():
        path = beside.folder / f"{name}.json"
        path.write_text(json.dumps({**stored, **change}), encoding="utf-8")
        words = {"machine": "another machine", "torn": "no usable", "future": "99"}
        refusals[name] = (("compare", "--dry-run", "--baseline", str(path), "--fail-if-worse", "5%"), 3, words[name])
    wrong = {}
    for name, (arguments, code, word) in refusals.items():
        ran = beside.run(*arguments, env=FAST)
        if ran.code != code or word not in ran.err or "Traceback" in ran.err:
            wrong[name] = (ran.code, ran.err)
    assert wrong == {}


BAD = {
    "no repeats": ((*BENCH, "--repeats", "0"), 2, "--repeats"),
    "bad slo": ((*BENCH, "--slo", "ttfb<3"), 2, "ttft"),
    "unknown setting": ((*BENCH, "--set", "thread=4"), 2, "threads"),
    "no value": ((*BENCH, "--set", "threads"), 2, "threads"),
    "bad value": ((*BENCH, "--set", "threads=many"), 2, "many"),
    "bad word": ((*BENCH, "--set", "precision=q3"), 2, "q8"),
    "bad form": ((*BENCH, "--set", "prompt_form=song"), 2, "zero_shot"),
    "task setting": ((*BENCH, "--set", "max_tokens=5"), 2, "--max-tokens"),
    "conflict": ((*BENCH, "--set", "context=16"), 3, "smollm2-135m"),
    "no result": ((*BENCH[:-4], "--config", "nowhere"), 3, "nowhere"),
    "both loads": ((*BENCH, "--streams", "2", "--rate", "2"), 2, "--rate"),
    "price": ((*BENCH, "--price-per-hour", "-1"), 2, "--price-per-hour"),
    "one model": (("compare", *MATH, "--models", "smollm2-135m"), 2, "--baseline"),
    "gate alone": (("compare", *MATH, "--models", "a", "b", "--fail-if-worse", "5%"), 2, "--baseline"),
    "bad share": (("compare", *MATH, "--baseline", "x.json", "--fail-if-worse", "5%"), 3, "x.json"),
    "unknown model": (("compare", *MATH, "--models", "smollm2-135m", "smollm"), 2, "smollm2-135m"),
    "few launches": (("compare", *MATH, "--models", "a", "b", "--repeats", "2"), 2, "--repeats"),
    "few items": (("compare", *MATH, "--models", "smollm2-135m", "smollm2-135m", "--samples", "2"), 2, "--samples"),
}


def test_bad_words_get_one_sentence_in_both_languages(inline):
    wrong = {}
    for name, (arguments, code, word) in BAD.items():
        model = ("--model", "smollm2-135m") if name == "conflict" else ()
        for language in ("ko", "en"):
            ran = inline.run(*arguments, *model, lang=language, env=FAST)
            if ran.code != code or word not in ran.err or "Traceback" in ran.err:
                wrong[name, language] = (ran.code, ran.err)
    assert wrong == {}


def test_ctrl_c_ends_with_130_and_leaves_nothing(cli, inside, wait_for):
    process = cli.start("benchmark", *MATH, "--repeats", "200", "--name", "b", env=FAST)
    samples = cli.folder / "optimization_results" / "b" / "samples"
    wait_for(lambda: samples.is_dir() and any(samples.iterdir()))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    cli.wait_until_clean()
    assert inside.run("optimize", "--resume").code == 2
