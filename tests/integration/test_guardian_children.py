"""How one engine is started, kept and stopped under guard: ladder, environment, log, several at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from llmopt.errors import EngineError, EngineStartError
from llmopt.runtime.guardian import Child, Guardian
from tests.waiting import until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containment of this depth needs Linux")

SERVER = Path(__file__).parents[1] / "fixtures" / "processes" / "nasty_server.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def gone(pids: tuple[int, ...]) -> bool:
    return until(lambda: not any(psutil.pid_exists(pid) for pid in pids), 5)


def spawn(guardian: Guardian, folder: Path, *habits: str, cap: int = 1 << 20) -> Child:
    """A nasty server with everything up, daemon child included."""
    words = [word for habit in habits for word in ("--habit", habit)]
    where = folder / "s.sock"
    argv = [sys.executable, "-S", str(SERVER), *words, "--socket", str(where)]
    child = guardian.spawn(argv, env={}, log_path=folder / "log", cwd=folder, sockets=[where], log_cap_bytes=cap)
    expected = 2 if "daemon_child" in habits else 1
    assert until(lambda: where.exists() and len(child.pids()) == expected, 20)
    return child


# ── the stop ladder ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("habits", "how"),
    [
        ((), "terminated"),
        (("daemon_child",), "killed"),
        (("ignore_term",), "killed"),
        (("ignore_term", "daemon_child", "clean_env"), "killed"),
    ],
)
def test_the_ladder_goes_as_far_as_it_must(
    habits: tuple[str, ...], how: str, each_guardian: Guardian, folder: Path
) -> None:
    child = spawn(each_guardian, folder, *habits)
    pids = child.pids()
    report = child.stop(0.3)
    assert (report.how, report.survivors) == (how, ())
    assert report.seconds < 15
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert report.status == child.poll()
    assert child.pids() == ()
    assert child.stop().how == "exited"


def test_a_tree_that_heeds_term_is_not_killed(guardian: Guardian, folder: Path) -> None:
    script = "(sleep 1000 & wait) & trap '' TERM; while :; do wait; done"
    child = guardian.spawn(["sh", "-c", script], env={}, log_path=folder / "log", cwd=folder)
    assert until(lambda: len(child.pids()) >= 3, 20)
    assert child.stop(0.3).how == "killed"
    child = guardian.spawn(["sh", "-c", "sleep 1000 & exec sleep 1001"], env={}, log_path=folder / "log", cwd=folder)
    assert until(lambda: len(child.pids()) == 2, 20)
    assert child.stop(5).how == "terminated_tree"


def test_what_an_ended_main_process_left_behind_is_removed_unasked(each_guardian: Guardian, folder: Path) -> None:
    child = spawn(each_guardian, folder, "daemon_child")
    pids = child.pids()
    os.kill(child.pid, signal.SIGKILL)
    status = child.wait(5)
    assert status is not None
    assert status.signal == signal.SIGKILL
    assert gone(pids)


def test_several_engines_are_stopped_apart(each_guardian: Guardian, folder: Path) -> None:
    folders = [folder / name for name in "abc"]
    for each in folders:
        each.mkdir()
    children = [spawn(each_guardian, each, "daemon_child") for each in folders]
    trees = [child.pids() for child in children]
    assert len({pid for tree in trees for pid in tree}) == 6
    children[1].stop(0.2)
    assert [child.pids() for child in children] == [trees[0], (), trees[2]]


def test_an_impatient_second_stop_hurries_the_first(guardian: Guardian, folder: Path) -> None:
    child = spawn(guardian, folder, "ignore_term")
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        began = time.monotonic()
        patient = pool.submit(child.stop, 60.0)
        assert until(lambda: psutil.Process(child.pid).is_running(), 1)
        hurried = pool.submit(child.stop, 0.2)
        assert {patient.result().how, hurried.result().how} == {"killed"}
        assert time.monotonic() - began < 30


# ── spawning ───────────────────────────────────────────────────────────────────────────────────────────────────────


def run(guardian: Guardian, folder: Path, argv: list[str], **options: object) -> str:
    child = guardian.spawn(argv, log_path=folder / "log", cwd=folder, **{"env": {}, **options})
    assert child.wait(20) is not None
    return (folder / "log").read_text()


def test_the_child_gets_what_was_planned_and_nothing_else(
    guardian: Guardian, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-1")
    monkeypatch.setenv("MY_SERVICE", "secret-2")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    probe = "import json,os,sys,resource as r;print(json.dumps([dict(os.environ),sys.stdin.read(),os.getcwd(),r.getrlimit(r.RLIMIT_NOFILE)[0],open('/proc/self/oom_score_adj').read(),sorted(os.listdir('/proc/self/fd'))]))"
    text = run(guardian, folder, [sys.executable, "-S", "-c", probe], env={"A": "1"}, stdin="안녕\n")
    environment, stdin, cwd, files, adjustment, handles = json.loads(text)
    assert "secret" not in text
    assert (environment["A"], environment["OMP_NUM_THREADS"]) == ("1", "3")
    assert [environment[name] for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY")] == [
        "1"
    ] * 3
    assert environment["PYTHONSAFEPATH"] == "1"
    assert (stdin, cwd, int(adjustment)) == ("안녕\n", str(folder), 500)
    assert files >= 4096 or files == psutil.Process().rlimit(psutil.RLIMIT_NOFILE)[1]
    assert len(handles) == 4  # 0, 1, 2 and the one that lists them


def test_signals_are_as_a_fresh_program_expects_them(guardian: Guardian, folder: Path) -> None:
    text = run(guardian, folder, ["sh", "-c", "grep -E '^Sig(Blk|Ign)' /proc/self/status"])
    assert {int(line.split()[1], 16) for line in text.splitlines()} == {0}


def test_no_standard_input_is_empty_input(guardian: Guardian, folder: Path) -> None:
    assert run(guardian, folder, ["cat"]) == ""


def test_a_program_that_cannot_run_is_an_error_and_leaves_no_trace(each_guardian: Guardian, folder: Path) -> None:
    (folder / "plain").write_text("not a program")
    for argv in (["no-such-program"], [str(folder / "plain")]):
        with pytest.raises(EngineStartError, match=Path(argv[0]).name):
            each_guardian.spawn(argv, env={}, log_path=folder / "log", cwd=folder)
    with pytest.raises(EngineStartError):
        each_guardian.spawn(["true"], env={}, log_path=folder / "log", cwd=folder / "missing")
    with pytest.raises(EngineStartError):
        each_guardian.spawn(["true"], env={}, log_path=folder / "missing" / "log", cwd=folder)
    assert list(each_guardian.folder.glob("*.json")) == []
    assert run(each_guardian, folder, ["echo", "still here"]) == "still here\n"


def test_an_endless_log_stays_short_and_current(guardian: Guardian, folder: Path) -> None:
    cap = 200_000
    child = spawn(guardian, folder, "chatter", cap=cap)
    older = folder / "log.1"
    assert until(older.exists, 20)
    stamp = older.stat().st_mtime_ns
    assert until(lambda: older.stat().st_mtime_ns != stamp, 20)
    child.stop(1)
    written = older.read_bytes() + (folder / "log").read_bytes()
    assert len(written) > cap / 2
    assert set(written[-3000:]) == {ord("x"), ord("\n")}


def test_an_idle_guardian_costs_nothing_to_speak_of(guardian: Guardian, folder: Path) -> None:
    spawn(guardian, folder)
    halves = [psutil.Process(pid) for pid in guardian.pids]

    def spent() -> float:
        return sum(sum(half.cpu_times()[:2]) for half in halves)

    before, began = spent(), time.monotonic()
    until(lambda: False, 3.0)
    assert (spent() - before) / (time.monotonic() - began) < 0.05


def test_losing_the_folder_of_records_does_not_end_the_guard(guardian: Guardian, folder: Path) -> None:
    child = spawn(guardian, folder, "daemon_child")
    shutil.rmtree(guardian.folder)  # as a system does with a user's runtime folder at log-out
    assert len(child.pids()) == 2
    report = child.stop(0.2)
    assert (report.how, report.survivors) == ("killed", ())
    with pytest.raises(EngineStartError):  # nothing is started that could not be recorded
        guardian.spawn(["true"], env={}, log_path=folder / "log", cwd=folder)
    guardian.folder.mkdir(mode=0o700)
    assert run(guardian, folder, ["echo", "again"]).endswith("again\n")


def test_a_guardian_that_does_not_answer_is_reported(
    guardian: Guardian, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = spawn(guardian, folder)
    monkeypatch.setattr("llmopt.runtime.guardian.ANSWER_CAP_S", 0.3)
    os.kill(guardian.pids[1], signal.SIGSTOP)
    try:
        with pytest.raises(EngineError) as caught:
            child.pids()
    finally:
        os.kill(guardian.pids[1], signal.SIGCONT)
    assert caught.value.key == "guardian.silent"
    assert "stopped" in caught.value.detail
    assert until(lambda: child.pids() == (child.pid,), 20)
