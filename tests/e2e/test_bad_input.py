"""Every bad input gets one clear sentence with what to do, the exit code of the specification, and no traceback."""

import json
import os
import stat

import pytest

OPTIMIZE = ("optimize", "--dry-run", "--dataset", "korean_math_easy")

# (what is typed, exit code, a word of the English sentence, a word of the Korean one)
BAD = {
    "unknown command": (("optimise",), 2, "optimize", "optimize"),
    "unknown option": ((*OPTIMIZE, "--trails", "3"), 2, "--trials", "--trials"),
    "unknown model": (("optimize", "--model", "qwen2.5-7"), 2, "qwen2.5-7b", "qwen2.5-7b"),
    "unknown dataset": (("optimize", "--dataset", "korean_maths"), 3, "korean_math", "korean_math"),
    "unknown engine": ((*OPTIMIZE[:1], "--engine", "vlm"), 2, "vllm", "vllm"),
    "no trials": ((*OPTIMIZE, "--trials", "0"), 2, "trials", "trials"),
    "trials no number": ((*OPTIMIZE, "--trials", "many"), 2, "--trials", "--trials"),
    "negative time-out": ((*OPTIMIZE, "--timeout", "-5"), 2, "above 0", "0보다"),
    "bad budget": ((*OPTIMIZE, "--budget", "soon"), 2, "soon", "soon"),
    "time-out and budget": ((*OPTIMIZE, "--timeout", "5", "--budget", "5m"), 2, "exclude", "함께"),
    "unknown method": ((*OPTIMIZE, "--method", "annealing"), 2, "annealing", "annealing"),
    "bad constraint": ((*OPTIMIZE, "--constraint", "ttft_p95 fast"), 2, "ttft_p95 fast", "ttft_p95 fast"),
    "unknown figure": ((*OPTIMIZE, "--constraint", "ttfb<3ms"), 2, "ttft", "ttft"),
    "bad unit": ((*OPTIMIZE, "--constraint", "memory<2ms"), 2, "gb", "gb"),
    "limits that exclude": (
        (*OPTIMIZE, "--constraint", "memory<1GB", "--constraint", "memory>2GB"), 2, "memory<1GB", "memory<1GB",
    ),
    "unknown objective": ((*OPTIMIZE, "--objective", "beauty"), 2, "beauty", "beauty"),
    "strategy and objective": ((*OPTIMIZE, "--strategy", "speed", "--objective", "memory"), 2, "exclude", "함께"),
    "streams and rate": ((*OPTIMIZE, "--streams", "2", "--rate", "1"), 2, "exclude", "함께"),
    "no streams": ((*OPTIMIZE, "--streams", "0"), 2, "streams", "streams"),
    "one sample": ((*OPTIMIZE, "--samples", "1"), 2, "samples", "samples"),
    "bad name": ((*OPTIMIZE, "--name", "../up"), 2, "../up", "../up"),
    "nothing to resume": (("optimize", "--resume"), 2, "no study", "연구가 없습니다"),
    "unknown study": (("optimize", "--resume", "nowhere"), 3, "nowhere", "nowhere"),
    "resume with others": (("optimize", "--resume", "x", "--trials", "4"), 2, "--trial", "--trial"),
    "bad column": ((*OPTIMIZE, "--column", "question"), 2, "question=", "question="),
    "bad type": (("list", "--type", "planets"), 2, "planets", "planets"),
    "missing argument": (("export", "study"), 2, "required", "필요"),
}  # fmt: skip


@pytest.mark.parametrize("language", ["en", "ko"])
def test_bad_words_on_the_command_line(cli, language):
    wrong = {}
    for name, (arguments, code, english, korean) in BAD.items():
        ran = cli.run(*arguments, env={"LLMOPT_LANG": language})
        word = english if language == "en" else korean
        lines = [line for line in ran.err.splitlines() if line.strip()]
        fine = ran.code == code and word in ran.err and "Traceback" not in ran.err and 1 <= len(lines) <= 3
        if not fine:
            wrong[name] = (ran.code, ran.err)
    assert wrong == {}


def refused(cli, *arguments, code, word, env=None):
    ran = cli.run(*arguments, env=env)
    assert ran.code == code, ran.err
    assert word in ran.err, ran.err
    assert "Traceback" not in ran.err


def test_files_that_cannot_be_used(cli):
    data = cli.folder / "items.csv"
    data.write_text("prompt,gold\n2+2?,4\n3+3?,6\n", encoding="utf-8")
    refused(cli, "optimize", "--dry-run", "--dataset", "nowhere.jsonl", code=3, word="nowhere.jsonl")
    empty = cli.folder / "empty.jsonl"
    empty.touch()
    refused(cli, "optimize", "--dry-run", "--dataset", str(empty), code=3, word="empty.jsonl")
    odd = cli.folder / "odd.csv"
    odd.write_text("a,b\n1,2\n", encoding="utf-8")
    refused(cli, "optimize", "--dry-run", "--dataset", str(odd), code=3, word="question")
    torn = cli.folder / "model.gguf"
    torn.write_bytes(b"GGUF" + b"\xff" * 64)
    refused(cli, "optimize", "--model", str(torn), "--dataset", "korean_math_easy", code=6, word="model.gguf")


def test_settings_that_cannot_be_used(cli):
    folder = cli.folder / "config"
    folder.mkdir()
    (folder / "settings.json").write_text('{\n  "stream": 3\n}', encoding="utf-8")
    refused(cli, *OPTIMIZE, code=3, word="streams")
    (folder / "settings.json").write_text("{", encoding="utf-8")
    refused(cli, *OPTIMIZE, code=3, word="line 1")
    (folder / "settings.json").unlink()
    refused(cli, *OPTIMIZE, code=3, word="LLMOPT_TRIALS", env={"LLMOPT_TRIALS": "lots"})


def test_a_database_that_is_damaged_newer_or_not_ours(cli):
    results = cli.folder / "optimization_results"
    results.mkdir()
    database = results / "llmopt.db"
    database.write_bytes(b"this is no database" * 100)
    refused(cli, *OPTIMIZE, code=7, word="llmopt.db")
    refused(cli, "list", code=7, word="llmopt.db")
    assert database.read_bytes() == b"this is no database" * 100
    database.unlink()
    import sqlite3

    with sqlite3.connect(database) as db:
        db.execute("CREATE TABLE somebody_elses (x)")
    db.close()
    refused(cli, *OPTIMIZE, code=7, word="llmopt.db")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(cli):
    cli.folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    refused(cli, *OPTIMIZE, code=7, word=str(cli.folder))


def test_no_network_says_what_was_tried_and_where_to_put_the_file(cli):
    closed = {
        "LLMOPT_WEIGHTS_CACHE": str(cli.folder / "weights"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
        "HF_HOME": str(cli.folder / "hub"),
    }
    ran = cli.run("optimize", "--model", "smollm2-135m", "--dataset", "korean_math_easy", env=closed)
    assert ran.code == 6, ran.err
    assert str(cli.folder / "weights") in ran.err
    assert "Traceback" not in ran.err
    assert not list((cli.folder / "weights").glob("*.gguf"))


def test_json_errors_leave_standard_output_empty_of_prose(cli):
    ran = cli.run(*OPTIMIZE, "--trials", "0", "--json")
    assert ran.code == 2
    assert [json.loads(line) for line in ran.out.splitlines()] == []
