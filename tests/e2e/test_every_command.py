"""Every command × {good, bad, interrupted}: a command without its three rows fails here.

What runs an engine for long has its test elsewhere and is named; everything else is run here. Bad input is the table of
``bad_inputs``. An interruption is a real SIGINT: sent to a process once it measures, or raised where the command is at
its slowest stage. Afterwards the code is 130, there is no traceback, nothing of ours runs, and the files are as before.
"""

import json
import re
import signal
from importlib import import_module

import click
import pytest

from llmopt.cli.app import COMMANDS, cli
from tests.e2e.bad_inputs import ROWS
from tests.e2e.conftest import ROOT

FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.02"}
TASK = ("--dry-run", "--dataset", "korean_math_easy", "--samples", "6")

GOOD = {
    "init": ("init", "--no-measure", "--force"),
    "status": ("status", "--detailed"),
    "estimate": ("estimate", "qwen2.5-7b", "--gpu", "h100"),
    "report": ("report", "done", "--export", "md"),
    "list": ("list", "--type", "results"),
    "engines": ("engines",),
    "engines doctor": ("engines", "doctor", "fake", "--quick"),
    "models add": ("models", "add", "ours", "team/ours", "--replace"),
    "models show": ("models", "show", "qwen2.5-7b"),
    "models remove": ("models", "remove", "mine"),
    "clean": ("clean", "--logs", "--yes"),
    "explain": ("explain", "done"),
    "rescore": ("rescore", "done"),
    "export": ("export", "done", "journal.log"),
    "completion": ("completion", "bash"),
}
"""What is run here, over a workspace with one finished study ``done`` and one model ``mine``."""
GOOD_ELSEWHERE = {
    "optimize": "e2e/test_optimize.py::test_a_dry_run_ends_with_a_verdict_files_and_nothing_running",
    "benchmark": "e2e/test_benchmark_compare.py::test_a_benchmark_gives_every_figure_its_interval_and_is_listed",
    "compare": "e2e/test_benchmark_compare.py::test_a_comparison_finds_the_better_prompt_in_one_table",
    "calibrate": "e2e/test_every_command.py::test_calibrate_keeps_what_it_found",
    "serve": "integration/test_serving.py::test_it_answers_with_its_key_is_started_again_when_it_dies_and_leaves_nothing",
    "engines install": "unit/test_engine_environments.py"
    "::test_an_environment_is_made_once_goes_on_where_it_stopped_and_is_checked",
}
INTERRUPTED = {
    "init": (GOOD["init"], "llmopt.cli.init:save_settings"),
    "status": (GOOD["status"], "llmopt.store.health:health"),
    "estimate": (GOOD["estimate"], "llmopt.study.estimating:estimate"),
    "report": (GOOD["report"], "llmopt.study.contenders:load_result"),
    "list": (("list", "--type", "models"), "llmopt.hardware.probe:probe"),
    "engines": (GOOD["engines"], "llmopt.engines.registry:get_engine"),
    "engines install": (("engines", "install", "vllm"), "llmopt.engines.environments:install"),
    "engines doctor": (GOOD["engines doctor"], "llmopt.engines.doctor:examine"),
    "models add": (GOOD["models add"], "llmopt.config.models:ModelConfigManager.save_to_file"),
    "models show": (GOOD["models show"], "llmopt.hardware.probe:probe"),
    "models remove": (GOOD["models remove"], "llmopt.config.models:ModelConfigManager.save_to_file"),
    "explain": (GOOD["explain"], "llmopt.study.explain:explain"),
    "rescore": (GOOD["rescore"], "llmopt.study.rescore:rescore"),
    "export": (GOOD["export"], "llmopt.report.export:export_study"),
    "completion": (GOOD["completion"], "click.shell_completion:get_completion_class"),
}
"""What ends at once: the words, and the stage at which Ctrl-C comes."""
INTERRUPTED_ELSEWHERE = {
    "optimize": "e2e/test_optimize.py::test_ctrl_c_prints_how_to_continue_and_the_continuation_repeats_nothing",
    "benchmark": "e2e/test_benchmark_compare.py::test_ctrl_c_ends_with_130_and_leaves_nothing",
    "compare": "e2e/test_every_command.py::test_ctrl_c_while_it_measures",
    "calibrate": "e2e/test_every_command.py::test_ctrl_c_while_it_measures",
    "serve": "e2e/test_remote_and_serve.py::test_serving_a_result_answers_until_ctrl_c_and_leaves_nothing",
    "clean": "e2e/test_clean.py::test_on_a_terminal_it_asks",
}


def every_command():
    """The path of each command of the parser; a group stands where it does something by itself."""
    ctx = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(ctx, name)
        group = isinstance(command, click.Group)
        if not group or command.invoke_without_command:
            yield name
        if group:
            yield from (f"{name} {below}" for below in command.list_commands(ctx))


def test_every_command_has_its_three_rows():
    commands = set(every_command())
    assert GOOD.keys() | GOOD_ELSEWHERE.keys() == commands
    assert INTERRUPTED.keys() | INTERRUPTED_ELSEWHERE.keys() == commands
    assert {path for path in commands if not any(f"{row.words} ".startswith(f"{path} ") for row in ROWS)} == set()


def test_the_tests_named_elsewhere_exist():
    for place in {*GOOD_ELSEWHERE.values(), *INTERRUPTED_ELSEWHERE.values()}:
        file, _, name = place.partition("::")
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), place


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace with one finished study, made once by the command itself."""
    from tests.e2e.conftest import CommandLine

    line = CommandLine(tmp_path_factory.mktemp("done"), tmp_path_factory.mktemp("r"))
    ran = line.run("optimize", *TASK, "--trials", "8", "--name", "done", env=FAST)
    assert ran.code == 0, ran.err
    assert line.run("models", "add", "mine", "team/mine").code == 0
    line.close()
    return line.folder


@pytest.fixture
def there(inline, finished, monkeypatch):
    """``inline`` over a copy of that workspace."""
    import shutil

    shutil.copytree(finished, inline.folder, dirs_exist_ok=True)
    return inline


def kept(folder):
    """Content of every file of a workspace but its logs."""
    files = (path for path in folder.rglob("*") if path.is_file() and "logs" not in path.relative_to(folder).parts)
    return {path: path.read_bytes() for path in files if not path.name.endswith(("-wal", "-shm"))}


def test_good_words_end_with_0_in_both_languages(there):
    wrong = {}
    for lang in ("ko", "en"):
        for path, words in GOOD.items():
            if path in ("models remove", "export") and lang == "en":
                continue  # what it takes away, or writes, is gone or there now
            ran = there.run(*words, lang=lang)
            if ran.code != 0 or not ran.out.strip() or "Traceback" in ran.err:
                wrong[path, lang] = (ran.code, ran.out, ran.err)
    assert wrong == {}


@pytest.mark.parametrize("path", sorted(INTERRUPTED))
def test_ctrl_c_at_the_slowest_stage(there, path, monkeypatch):
    words, stage = INTERRUPTED[path]
    module, _, attribute = stage.partition(":")
    reached = []

    def struck(*args, **kwargs):
        reached.append(stage)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("SIGINT came and nothing happened")

    target = import_module(module)
    *owners, name = attribute.split(".")
    for owner in owners:
        target = getattr(target, owner)
    before = kept(there.folder)
    with monkeypatch.context() as patch:
        patch.setattr(target, name, struck)
        ran = there.run(*words)
    assert reached == [stage]
    assert (ran.code, ran.err.strip().splitlines()[-1]) == (130, "Interrupted.")
    assert "Traceback" not in ran.err
    after = kept(there.folder)
    assert {path: content for path, content in after.items() if path in before} == before
    assert all("bak-" in path.name for path in after.keys() - before.keys())


@pytest.mark.parametrize(
    "words",
    [
        ("compare", *TASK[:-1], "16", "--models", "smollm2-135m", "smollm2-135m@slots=1", "--repeats", "8"),
        ("calibrate", *TASK, "--pairs", "200"),
    ],
    ids=["compare", "calibrate"],
)
def test_ctrl_c_while_it_measures(cli, wait_for, words):
    process = cli.start(*words, "--name", "c", env={"LLMOPT_FAKE_TIME_SCALE": "0.5"})
    samples = cli.folder / "optimization_results" / "c" / "samples"
    wait_for(lambda: process.poll() is not None or (samples.is_dir() and any(samples.iterdir())))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    cli.wait_until_clean()


def test_calibrate_keeps_what_it_found(cli):
    ran = cli.run("calibrate", *TASK, "--pairs", "2", "--json", env=FAST)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out.splitlines()[-1])["event"] == "calibrated"
    assert any((cli.folder / ".cache").rglob("*.json"))
    cli.wait_until_clean()


def test_debug_shows_and_logs_the_traceback_and_nothing_else_does(inline):
    """For every command: a user's mistake with --debug, the same without, and ``--version`` beside it."""
    for row in ROWS:
        words = row.words.split()
        if row.files or row.env or row.code == 2 or not row.command:
            continue
        log = inline.folder / "logs" / "llmopt.jsonl"
        log.unlink(missing_ok=True)
        plain = inline.run(*words)
        assert "Traceback" not in plain.err
        assert not log.exists() or "Traceback" not in log.read_text(encoding="utf-8")
        shown = inline.run(*words, "--debug")
        assert shown.code == plain.code
        assert "Traceback (most recent call last)" in shown.err, words
        assert any("Traceback" in json.loads(line).get("exception", "") for line in log.read_text("utf-8").splitlines())


@pytest.mark.parametrize("path", sorted(every_command()))
def test_every_command_takes_debug_and_lang(inline, path):
    ran = inline.run(*path.split(), "--help")
    assert ran.code == 0
    assert {"--debug", "--lang"} <= set(re.findall(r"--[a-z]+", ran.out))


def test_the_version_is_told(inline):
    from llmopt import __version__

    assert inline.run("--version").out == f"llmopt, version {__version__}\n"
