"""Shell completion: the scripts are what the shells accept, and Tab offers commands, options and names."""

import os
import shutil
import subprocess

import pytest

from llmopt.cli.app import COMMANDS
from llmopt.cli.completion import VARIABLE
from tests.e2e.conftest import ROOT


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed_and_the_shell_accepts_it(inline, shell):
    ran = inline.run("completion", shell)
    assert ran.code == 0, ran.err
    assert f"{VARIABLE}={shell}_complete" in ran.out
    if shutil.which(shell):
        parsed = subprocess.run([shell, "-n"], input=ran.out, text=True, capture_output=True, check=False)
        assert parsed.returncode == 0, parsed.stderr


def offered(cli, words, lang="en"):
    """What bash would offer for the last of ``words``."""
    environment = {VARIABLE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    ran = cli.run(env={**environment, "LLMOPT_LANG": lang})
    assert ran.err == ""
    return [line.partition(",")[2] for line in ran.out.splitlines()]


def test_commands_options_and_names(cli):
    assert set(COMMANDS) == set(offered(cli, "llmopt "))
    assert offered(cli, "llmopt opt", "ko") == ["optimize"]
    assert offered(cli, "llmopt models ") == ["add", "remove", "show"]
    assert "--trials" in offered(cli, "llmopt optimize --tr")
    assert offered(cli, "llmopt optimize --model qwen2.5-7") == ["qwen2.5-7b", "qwen2.5-72b"]
    assert "korean_math" in offered(cli, "llmopt benchmark --dataset korean_m")
    assert "llamacpp" in offered(cli, "llmopt compare --engine l")
    assert "errors" in offered(cli, "llmopt list --type e")
    (cli.folder / "config").mkdir()
    (cli.folder / "config" / "models.json").write_text("{ broken", encoding="utf-8")
    assert offered(cli, "llmopt models show q") in ([], ["q"])  # the Tab key reports no errors


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_in_a_real_bash(cli, tmp_path):
    program = tmp_path / "llmopt"
    program.write_text(f'#!/bin/sh\nexec "$PYTHON" "{ROOT / "main.py"}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = (
        'eval "$(llmopt completion bash)"; COMP_WORDS=(llmopt cl); COMP_CWORD=1; _llmopt_completion llmopt cl llmopt;'
        ' echo "${COMPREPLY[@]}"'
    )
    import sys

    environment = cli.environment({"PYTHON": sys.executable, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    ran = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["clean"], ran.stderr


def test_no_arguments_at_all_show_the_help(cli):
    ran = cli.run()
    assert (ran.code, ran.err) == (0, "")
    assert all(name in ran.out for name in COMMANDS)
