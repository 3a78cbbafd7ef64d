"""The guardian's view of processes: rows, families, tags, and signals that hit exactly one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.workers import process_table as proc

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    name = ["-c", "import sys; print(flush=True); sys.stdin.read()"]
    environment = {**os.environ, proc.TAG_VARIABLE: "abc"}
    with subprocess.Popen(
        [sys.executable, *name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_row_says_what_the_system_says(sleeper: subprocess.Popen[bytes]) -> None:
    row = proc.read_table()[sleeper.pid]
    assert (row.parent, row.group, row.session, row.zombie) == (os.getpid(), sleeper.pid, sleeper.pid, False)
    assert proc.read_process(sleeper.pid) == row
    assert proc.identity(sleeper.pid) == [sleeper.pid, row.start]
    assert proc.user_of(sleeper.pid) == os.getuid()
    assert proc.tag_of(sleeper.pid) == "abc"
    assert proc.tag_of(1) is None
    assert Path(proc.command_of(sleeper.pid)).name.startswith("python")


def test_an_odd_name_does_not_shift_the_fields(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([str(odd), "1000"]) as process:
        row = proc.read_process(process.pid)
        process.kill()
    assert row is not None
    assert row.parent == os.getpid()


def test_a_dead_process_is_nowhere(sleeper: subprocess.Popen[bytes]) -> None:
    row = proc.read_table()[sleeper.pid]
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    zombie = proc.read_process(sleeper.pid)
    assert zombie is not None
    assert zombie.zombie
    assert proc.identity(sleeper.pid) is None
    sleeper.wait()
    assert proc.read_process(sleeper.pid) is None
    assert not proc.send_signal(row, 0)
    assert proc.tag_of(sleeper.pid) is proc.user_of(sleeper.pid) is None
    assert proc.command_of(sleeper.pid) == ""


def test_a_signal_needs_the_right_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    row = proc.read_table()[sleeper.pid]
    later = proc.Process(row.pid, row.parent, row.group, row.session, str(int(row.start) + 1), zombie=False)
    assert not proc.send_signal(later, signal.SIGKILL)
    assert sleeper.poll() is None
    assert proc.send_signal(row, signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL


def test_without_process_handles_the_start_time_still_decides(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = proc.read_table()[sleeper.pid]
    monkeypatch.delattr(os, "pidfd_open")
    later = proc.Process(row.pid, row.parent, row.group, row.session, "0", zombie=False)
    assert not proc.send_signal(later, signal.SIGKILL)
    assert proc.send_signal(row, signal.SIGKILL)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(1, 30))
def test_descendants_are_exactly_those_whose_line_of_parents_meets_the_root(parents: list[int], root: int) -> None:
    table = {pid: proc.Process(pid, parent, 0, 0, "", zombie=False) for pid, parent in enumerate(parents, 1)}

    def below(pid: int) -> bool:
        seen = set()
        while pid in table and pid not in seen:
            if pid == root:
                return True
            seen.add(pid)
            pid = table[pid].parent
        return False

    assert proc.descendants(table, [root]) == {pid for pid in table if below(pid)}


def test_shared_memory_in_use_is_seen_mapped_or_open() -> None:
    import mmap

    mapped, opened = (Path("/dev/shm", f"llmopt-table-{os.getpid()}-{word}") for word in ("mapped", "opened"))
    try:
        with mapped.open("w+b") as file, opened.open("wb"):
            file.truncate(4096)
            memory = mmap.mmap(file.fileno(), 4096)
            file.close()
            assert {str(mapped), str(opened)} <= proc.segments_of([os.getpid(), 2**22 + 7])
            memory.close()
        assert proc.segments_of([os.getpid()]).isdisjoint({str(mapped), str(opened)})
    finally:
        mapped.unlink()
        opened.unlink()


def test_the_boot_is_named_and_the_cgroup_is_ours_or_none() -> None:
    assert proc.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    folder = proc.own_cgroup()
    assert folder is None or os.access(folder / "cgroup.procs", os.W_OK)


def test_a_cgroup_holds_and_kills_all_that_is_in_it(sleeper: subprocess.Popen[bytes]) -> None:
    parent = proc.own_cgroup()
    leaf = proc.Cgroup(parent / f"llmopt-table-{os.getpid()}") if parent else None
    if leaf is None or not leaf.make():
        pytest.skip("no cgroup v2 was delegated here")
    try:
        (leaf.folder / "cgroup.procs").write_text(str(sleeper.pid))
        assert leaf.pids() == {sleeper.pid}
        assert leaf.memory_kills() == 0
        leaf.kill()
        assert sleeper.wait(10) == -signal.SIGKILL
    finally:
        leaf.remove()
    assert not leaf.folder.exists()
    assert leaf.pids() == set()


@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="asks ps")
def test_ps_tells_the_same_families() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        row = proc._table_from_ps().get(process.pid)
        process.kill()
    assert row is not None
    assert row.parent == os.getpid()
