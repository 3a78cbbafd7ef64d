"""Whoever is killed, and however: no engine outlives its client, and no stranger is touched. All kills are real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from llmopt.errors import EngineDied, EngineError, StorageError
from llmopt.runtime.guardian import Child, Guardian, sweep_orphans
from tests.waiting import until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containment of this depth needs Linux")

SERVER = Path(__file__).parents[1] / "fixtures" / "processes" / "nasty_server.py"
TREE_GONE_S = 5.0

CLIENT = """
import json, sys, os
from pathlib import Path
from llmopt.runtime.guardian import Guardian
folder, server, cgroups, forks = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True", sys.argv[4] == "True"
guardian = Guardian(folder / "guard", cgroups=cgroups)
where = folder / "engine.sock"
argv = [sys.executable, "-S", server, "--habit", "ignore_term", "--habit", "daemon_child", "--segment", sys.argv[5]]
child = guardian.spawn([*argv, "--socket", str(where)], env={}, log_path=folder / "log", cwd=folder, sockets=[where])
while "ready" not in locals():
    ready = where.exists() and len(child.pids()) == 2 or None
    if ready is None:
        del ready
if forks and os.fork() == 0:
    os.close(1)
    sys.stdin.read()
    os._exit(0)
print(json.dumps({"guardian": guardian.pids, "engine": child.pids(), "containment": guardian.containment}), flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pids: list[int] | tuple[int, ...], seconds: float = TREE_GONE_S) -> bool:
    return until(lambda: not any(alive(pid) for pid in pids), seconds)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def client(folder: Path) -> Iterator[Callable[..., SimpleNamespace]]:
    """Starts a process that starts a guardian that starts a nasty engine, and waits."""
    processes: list[subprocess.Popen[str]] = []

    def start(*, cgroups: bool = False, forks: bool = False, segment: str = "") -> SimpleNamespace:
        argv = [sys.executable, "-c", CLIENT, str(folder), str(SERVER), str(cgroups), str(forks), segment]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        return SimpleNamespace(process=process, **told)

    yield start
    for process in processes:
        process.kill()
        process.communicate()
    sweep_orphans(folder / "guard")  # what a failed test left


def spawn(guardian: Guardian, folder: Path, *habits: str, cap: int = 1 << 20) -> Child:
    """A nasty server with everything up, daemon child included."""
    words = [word for habit in habits for word in ("--habit", habit)]
    where = folder / "s.sock"
    argv = [sys.executable, "-S", str(SERVER), *words, "--socket", str(where)]
    child = guardian.spawn(argv, env={}, log_path=folder / "log", cwd=folder, sockets=[where], log_cap_bytes=cap)
    expected = 2 if "daemon_child" in habits else 1
    assert until(lambda: where.exists() and len(child.pids()) == expected, 20)
    return child


# ── kills ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "victims", ["client", "serving half", "waiting half", "both halves", "client and serving half"]
)
@pytest.mark.parametrize("cgroups", [False, True])
def test_a_kill_takes_the_whole_tree_down(
    victims: str, cgroups: bool, client: Callable[..., SimpleNamespace], folder: Path
) -> None:
    running = client(cgroups=cgroups)
    waiting, serving = running.guardian
    kills = {
        "client": [running.process.pid],
        "serving half": [serving],
        "waiting half": [waiting],
        "both halves": [serving, waiting],
        "client and serving half": [running.process.pid, serving],
    }[victims]
    for pid in kills:
        os.kill(pid, signal.SIGKILL)
    assert gone([*running.engine, *running.guardian])
    assert until(lambda: not list((folder / "guard").glob("*.json")), TREE_GONE_S)
    assert not (folder / "engine.sock").exists()


def test_killing_everybody_at_once_leaves_orphans_to_the_next_start(
    client: Callable[..., SimpleNamespace], folder: Path
) -> None:
    segment = f"llmopt-test-{os.getpid()}"
    running = client(segment=segment)
    (record,) = (folder / "guard").glob("*.json")
    assert until(lambda: segment in record.read_text(), 10)  # noted while its user lives; nobody could tell afterwards
    for pid in (running.process.pid, *running.guardian):
        os.kill(pid, signal.SIGSTOP)  # none may act on the end of another
    for pid in (running.process.pid, *running.guardian):
        os.kill(pid, signal.SIGKILL)
    main, *orphans = sorted(running.engine)
    assert gone([main])  # by the kernel, with its parent
    assert all(alive(pid) for pid in orphans)
    with Guardian(folder / "guard") as following:
        assert set(following.swept.removed) == set(orphans)
        assert gone(orphans)
    assert not (folder / "engine.sock").exists()
    assert not Path("/dev/shm", segment).exists()
    assert [path.name for path in (folder / "guard").iterdir()] == ["guardian.err"]


def test_a_forked_child_of_the_client_does_not_keep_the_engine_alive(client: Callable[..., SimpleNamespace]) -> None:
    running = client(forks=True)
    (forked,) = [p.pid for p in psutil.Process(running.process.pid).children() if p.pid not in running.guardian]
    running.process.kill()
    assert gone(running.engine)
    assert alive(forked)


def test_the_terminals_interrupt_does_not_reach_guardian_or_engine(guardian: Guardian, folder: Path) -> None:
    child = spawn(guardian, folder)
    groups = {os.getpgid(pid) for pid in (*guardian.pids, *child.pids())}
    assert os.getpgid(0) not in groups
    assert len({os.getsid(pid) for pid in (os.getpid(), guardian.pids[0], child.pid)}) == 3
    for pid in guardian.pids:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGHUP)
    assert child.pids() == (child.pid,)


def test_our_process_adopts_nobody(guardian: Guardian, folder: Path) -> None:
    child = spawn(guardian, folder, "daemon_child")
    assert {p.pid for p in psutil.Process().children(recursive=False)} & {child.pid, *child.pids()} == set()
    assert psutil.Process(child.pid).ppid() == guardian.pids[1]
    (daemon,) = set(child.pids()) - {child.pid}
    assert psutil.Process(daemon).ppid() == guardian.pids[1]


def test_the_loss_of_the_guardian_is_noticed_and_a_new_one_can_be_had(folder: Path) -> None:
    with Guardian(folder / "guard") as first:
        child = spawn(first, folder, "daemon_child")
        pids = child.pids()
        os.kill(first.pids[1], signal.SIGKILL)
        status = child.wait(TREE_GONE_S)
        assert status is not None
        assert status.lost
        assert not any(alive(pid) for pid in pids)
        assert first.gone
        assert child.stop().how == "lost"
        with pytest.raises(EngineDied):
            first.spawn(["true"], env={}, log_path=folder / "log", cwd=folder)
    with Guardian(folder / "guard") as second:
        assert spawn(second, folder).poll() is None


def test_being_asked_to_end_ends_the_engines_first(each_guardian: Guardian, folder: Path) -> None:
    child = spawn(each_guardian, folder, "daemon_child")
    pids = child.pids()
    os.kill(each_guardian.pids[0], signal.SIGTERM)
    assert gone([*pids, *each_guardian.pids])


# ── orphans and strangers ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a run tag of its own that no record of the folder explains."""
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, "LLMOPT_RUN_TAG": "feed"}) as process:
        yield process
        process.kill()


def record(pid: int, start: str, **changes: object) -> dict[str, object]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {
        "schema": 1,
        "state": "running",
        "tag": "cafe",
        "user": os.getuid(),
        "boot": boot,
        "guardian": [2**22 + 1, "1"],
        "main": pid,
        "members": [[pid, start]],
        "segments": [],
        "sockets": [],
        "cgroup": None,
        "log": "",
        **changes,
    }


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        ({}, True),
        ({"members": [], "tag": "feed"}, True),
        ({"start": "1"}, False),
        ({"boot": "another"}, False),
        ({"user": 12345}, False),
        ({"members": []}, False),
        ({"guardian": "alive"}, False),
    ],
    ids=["recorded", "tag only", "other start time", "other boot", "other user", "nothing matches", "guardian lives"],
)
def test_only_what_is_proved_ours_is_removed(
    change: dict[str, object], ends: bool, stranger: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "guard"
    folder.mkdir(mode=0o700)
    start = Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19]
    start = str(change.pop("start", start)) if "start" in change else start
    if change.get("guardian") == "alive":
        mine = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        change = {"guardian": [os.getpid(), mine]}
    file = folder / "cafe.json"
    file.write_text(json.dumps(record(stranger.pid, start, **change)))
    swept = sweep_orphans(folder)
    assert (stranger.pid in swept.removed) == ends
    assert alive(stranger.pid) != ends
    if not ends:
        assert (stranger.pid, "sleep") in swept.strangers
    assert file.exists() == ("guardian" in change)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"tag": 1}', '{"boot": "x", "guardian": null}'])
def test_a_broken_record_is_dropped(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "guard"
    folder.mkdir(mode=0o700)
    (folder / "broken.json").write_text(text)
    assert sweep_orphans(folder).removed == ()
    assert not (folder / "broken.json").exists()


def test_a_folder_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "guard"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StorageError, match=folder.name):
        Guardian(folder)


# ── our own process ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_after_a_fork_the_child_has_no_guardian_and_may_start_one(folder: Path) -> None:
    with Guardian(folder / "guard") as guardian:
        child = spawn(guardian, folder)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child.stop()
            except EngineError as error:
                with Guardian(folder / "guard") as mine:
                    code = 0 if guardian.gone and error.key == "guardian.other_process" and not mine.gone else 2
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert child.pids() == (child.pid,)


def test_the_shared_guardian_is_one_and_ends_with_the_process(tmp_path: Path) -> None:
    script = """
import sys, tempfile
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from llmopt.runtime.guardian import Guardian
with ThreadPoolExecutor(8) as pool:
    assert len(set(pool.map(lambda _: Guardian.shared(), range(8)))) == 1
folder = Path(sys.argv[1])
child = Guardian.shared().spawn(["sleep", "1000"], env={}, log_path=folder / "log", cwd=folder)
print(*child.pids(), *Guardian.shared().pids)
"""
    short = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        env=short,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert not any(alive(int(word)) for word in done.stdout.split())


def test_the_shared_guardian_is_started_again_where_its_folder_was_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(Guardian, "_shared", None)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with Guardian.shared() as first:
        assert Guardian.shared() is first
        shutil.rmtree(first.folder)
        with Guardian.shared() as second:
            assert second is not first
            assert second.folder.is_dir()
