"""``clean`` removes what the tool made, all of it and nothing else."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmopt.paths import MARKER
from llmopt.runtime.locks import measuring_lock
from llmopt.store.database import Store

ROOT = Path(__file__).resolve().parents[2]


def marked(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    return folder


def put(path, text="x" * 100):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def made(cli, tmp_path):
    """A workspace in use: ours, the user's beside it, and links out of it. Returns (ours, theirs)."""
    root, weights = cli.folder, cli.runtime / "weights"
    for folder in (root / "optimization_results", root / "logs", root / ".cache", root / "data", weights):
        marked(folder)
    with Store.open(root / "optimization_results" / "llmopt.db"):
        pass
    marked(root / "optimization_results" / "demo-1")
    ours = [
        root / "optimization_results" / "llmopt.db",
        put(root / "optimization_results" / "demo-1" / "result.json"),
        put(root / "optimization_results" / "demo-1" / "runs" / "a" / "engine.log"),
        put(root / "logs" / "llmopt.jsonl"),
        put(root / ".cache" / "answers" / "1.json"),
        put(root / "data" / "korean_math.ab12.seed0.n64.jsonl"),
        put(weights / "SmolLM2-135M-Instruct.Q4_1.gguf.partial"),
        put(weights / "verified" / "a.json"),
    ]
    outside = put(tmp_path / "precious" / "thesis.txt")
    (root / "logs" / "link").symlink_to(outside.parent)
    (root / ".cache" / "linked").symlink_to(outside)
    theirs = [
        outside,
        root / "logs" / "link" / "thesis.txt",
        put(root / "data" / "mine.jsonl"),
        put(root / "optimization_results" / "notes.txt"),
        put(root / "optimization_results" / "their-study" / "a.txt"),
        put(root / ".cache" / "engines" / "vllm" / "python"),
        put(weights / "mine.gguf"),
        put(root / "config" / "settings.json", "{}"),
        put(root / "model.gguf"),
    ]
    return ours, theirs


def environment(cli):
    return {"LLMOPT_WEIGHTS_CACHE": str(cli.runtime / "weights")}


def test_everything_of_ours_goes_and_nothing_else(cli, made):
    ours, theirs = made
    ran = cli.run("clean", "--all", "--yes", "--json", env=environment(cli))
    assert ran.code == 0, ran.err
    assert [path for path in ours if path.exists()] == []
    assert [path for path in theirs if not path.exists()] == []
    facts = json.loads(ran.out)
    assert all(row["removed"] for row in facts["items"])
    left = {row["path"] for row in facts["left"]}
    assert {str(cli.folder / "data" / "mine.jsonl"), str(cli.folder / "logs" / "link")} <= left
    assert (cli.folder / "logs" / "link").is_symlink()
    again = cli.run("clean", "--all", "--yes", "--json", env=environment(cli))
    assert again.code == 0
    assert json.loads(again.out)["items"] == []


@pytest.mark.parametrize("kind", ["cache", "results", "logs"])
def test_each_kind_alone(cli, made, kind):
    ours, theirs = made
    ran = cli.run("clean", f"--{kind}", "--yes", env=environment(cli))
    assert ran.code == 0, ran.err
    place = {"cache": (".cache", "data", "weights"), "results": ("optimization_results",), "logs": ("logs",)}[kind]
    gone = [path for path in ours if not path.exists()]
    assert gone == [path for path in ours if any(part in place for part in path.parts)]
    assert all(path.exists() for path in theirs)


def test_without_a_terminal_it_shows_and_asks_for_yes(cli, made):
    for lang in ("en", "ko"):
        ran = cli.run("--lang", lang, "clean", "--all", env=environment(cli))
        assert ran.code == 2
        assert "--yes" in ran.err
        assert "llmopt.db" in ran.out
        assert "Traceback" not in ran.err
    assert all(path.exists() for path in (*made[0], *made[1]))


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("answer", "code", "stays"), [("n\n", 0, True), ("y\n", 0, False), ("\x03", 130, True)])
def test_on_a_terminal_it_asks(cli, made, answer, code, stays):
    import pty

    ours, theirs = made
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), "clean", "--all"],
        cwd=cli.folder,
        env=cli.environment(environment(cli)),
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    cli.started.append(process)
    while process.stdout.read(1) != b"?":  # the question is on the screen
        assert process.poll() is None
    if answer == "\x03":
        process.send_signal(signal.SIGINT)  # what Ctrl-C on a terminal becomes
    else:
        os.write(leader, answer.encode())
    _, err = process.communicate(timeout=120)
    os.close(leader)
    os.close(follower)
    assert process.returncode == code, err
    assert b"Traceback" not in err
    assert {path.exists() for path in ours} == {stays}
    assert all(path.exists() for path in theirs)


def test_nothing_chosen_is_refused(cli):
    ran = cli.run("clean")
    assert ran.code == 2
    assert "--cache" in ran.err


def test_folders_without_a_mark_and_linked_folders_stay(cli, tmp_path):
    put(cli.folder / "logs" / "theirs.log")
    elsewhere = put(marked(tmp_path / "elsewhere") / "a.json")
    (cli.folder / ".cache").symlink_to(elsewhere.parent)
    ran = cli.run("clean", "--all", "--yes", env=environment(cli))
    assert ran.code == 0, ran.err
    assert (cli.folder / "logs" / "theirs.log").exists()
    assert elsewhere.exists()


def test_it_refuses_while_something_measures(cli, made, monkeypatch):
    monkeypatch.setenv("LLMOPT_LOCK_FILE", str(cli.runtime / "measuring.lock"))
    with measuring_lock("optimize"):
        ran = cli.run("clean", "--all", "--yes", env=environment(cli))
    assert ran.code == 2
    assert str(os.getpid()) in ran.err
    assert all(path.exists() for path in (*made[0], *made[1]))


def test_it_refuses_while_a_living_process_holds_a_study(cli, made):
    script = (
        "import sys; from pathlib import Path; from llmopt.store.database import Store\n"
        "with Store.open(Path(sys.argv[1])) as store:\n"
        "    store.create_study('held', fingerprint='f', model='m', engine='e', dataset='d', hardware='h', spec={})\n"
        "    print('ready', flush=True); sys.stdin.read()\n"
    )
    database = cli.folder / "optimization_results" / "llmopt.db"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline().strip() == "ready"
        ran = cli.run("clean", "--results", "--yes", env=environment(cli))
        assert ran.code == 2, ran.out
        assert "held" in ran.err
        assert database.exists()
    finally:
        holder.kill()
        holder.communicate()
    ran = cli.run("clean", "--results", "--yes", env=environment(cli))
    assert ran.code == 0, ran.err
    assert not database.exists()


def test_a_link_deep_inside_stays_and_so_does_what_it_points_to(cli, tmp_path):
    outside = put(tmp_path / "precious" / "thesis.txt")
    ours = put(marked(cli.folder / ".cache") / "answers" / "1.json")
    link = ours.parent / "link"
    link.symlink_to(outside.parent)
    ran = cli.run("clean", "--cache", "--yes", "--json", env=environment(cli))
    assert ran.code == 0, ran.err
    assert not ours.exists()
    assert link.is_symlink()
    assert outside.exists()
    assert str(link) in {row["path"] for row in json.loads(ran.out)["left"]}
