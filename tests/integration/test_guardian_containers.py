"""An engine in a container: the container is taken away once, however the engine ended and whoever was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmopt.records import ContainerRun
from llmopt.runtime.guardian import Guardian, sweep_orphans
from llmopt.workers import process_table as proc
from tests.waiting import until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containment of this depth needs Linux")

SCRIPTS = {
    "ends by itself": "exit 3",
    "stops when it is told to": "exec sleep 1000",
    "does not stop when it is told to": "trap '' TERM; while :; do sleep 0.1; done",
}
CLIENT = """
import sys
from pathlib import Path
from llmopt.records import ContainerRun
from llmopt.runtime.guardian import Guardian
folder = Path(sys.argv[1])
guardian = Guardian(folder / "guard", cgroups=False)
run = ContainerRun(id_file=str(folder / "id"), remove=("sh", "-c", f"echo gone >> {folder}/removed"))
guardian.spawn(["sleep", "1000"], env={}, log_path=folder / "log", cwd=folder, container=run)
print(*guardian.pids, flush=True)
sys.stdin.read()
"""


def run_in(folder: Path, *, slowly: str = "") -> ContainerRun:
    """A container whose removal leaves a line."""
    return ContainerRun(
        id_file=str(folder / "container.id"), remove=("sh", "-c", f"{slowly}echo gone >> {folder}/removed")
    )


def removals(folder: Path) -> int:
    """How often it was taken away."""
    told = folder / "removed"
    return len(told.read_text().splitlines()) if told.exists() else 0


@pytest.mark.parametrize("end", SCRIPTS)
def test_it_is_taken_away_once_before_the_engine_counts_as_stopped(
    end: str, guardian: Guardian, tmp_path: Path
) -> None:
    run = run_in(tmp_path, slowly="sleep 0.3; ")
    argv = ["sh", "-c", SCRIPTS[end]]
    child = guardian.spawn(argv, env={}, log_path=tmp_path / "log", cwd=tmp_path, container=run)
    if end == "ends by itself":
        assert until(lambda: child.poll() is not None, 10)
        assert until(lambda: child.pids() == (), 10)
    else:
        assert child.stop(0.2).survivors == ()
    assert removals(tmp_path) == 1
    assert (tmp_path / "log").read_text() == ""


def test_a_tool_that_is_not_there_any_more_holds_nothing_up(guardian: Guardian, tmp_path: Path) -> None:
    run = ContainerRun(id_file=str(tmp_path / "id"), remove=("no-such-tool", "rm", "x"))
    child = guardian.spawn(["sleep", "1000"], env={}, log_path=tmp_path / "log", cwd=tmp_path, container=run)
    report = child.stop(5.0)
    assert (report.how, report.survivors) == ("terminated", ())


def test_an_engine_without_container_is_told_of_none(guardian: Guardian, tmp_path: Path) -> None:
    child = guardian.spawn(["sleep", "1000"], env={}, log_path=tmp_path / "log", cwd=tmp_path)
    (record,) = (tmp_path / "guard").glob("*.json")
    assert json.loads(record.read_text())["remove"] == []
    assert child.stop(5.0).how == "terminated"


@pytest.mark.parametrize("victims", ["client", "serving half", "waiting half", "everybody"])
def test_it_is_taken_away_whoever_is_killed(victims: str, tmp_path: Path) -> None:
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    waiting, serving = (int(word) for word in client.stdout.readline().split())
    kills = {
        "client": [client.pid], "serving half": [serving], "waiting half": [waiting],
        "everybody": [client.pid, waiting, serving],
    }[victims]  # fmt: skip
    for pid in kills:
        os.kill(pid, signal.SIGSTOP)  # none may act on the end of another
    for pid in kills:
        os.kill(pid, signal.SIGKILL)
    try:
        if victims == "everybody":
            assert until(lambda: proc.identity(serving) is None and proc.identity(waiting) is None, 10)
            assert removals(tmp_path) == 0
            sweep_orphans(tmp_path / "guard")
        assert until(lambda: removals(tmp_path) == 1, 10)
    finally:
        client.kill()
        client.communicate()


def test_who_lies_in_a_container_is_told_by_the_name_of_its_cgroup() -> None:
    me = os.getpid()
    names = Path(f"/proc/{me}/cgroup").read_text()
    assert proc.in_container(names.splitlines()[0], [me, 2**22 + 1]) == {me}
    assert proc.in_container("0" * 64, [me]) == set()
