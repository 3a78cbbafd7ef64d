"""The store under real kills and power losses: every committed trial is there, nothing else, and a resume works."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmopt.records import Configuration, InferenceParams, Outcome
from llmopt.store import Store
from llmopt.store.repair import problems

WRITER = """
import sys
from pathlib import Path
from llmopt.records import Configuration, Estimate, InferenceParams, Measurement, Outcome
from llmopt.store import Store, write_samples
path = Path(sys.argv[1])
store = Store.open(path)
row = store.find_study("study")
if row is None:
    study = store.create_study("study", {}, fingerprint="f")
else:
    study = row.id
    store.claim_study(study, fingerprint="f")
while True:
    done = sum(1 for _ in store.trials(study, outcomes=[Outcome.DONE]))
    configuration = Configuration(engine="fake", launch={"n": done}, request=InferenceParams())
    number = store.start_trial(study, configuration, origin="grid", position=done)
    print("started", number, flush=True)
    name = write_samples(path.parent / "samples", f"trial-{number}", [{"n": done, "pad": "x" * 2000}]).name
    measurement = Measurement(estimates={"accuracy": Estimate(value=done / 1000, unit="", n=1)})
    store.finish_trial(study, number, Outcome.DONE, measurement=measurement, score=done, samples=name)
    print("committed", number, done, flush=True)
"""


def lines_until(process, wanted: int) -> list[str]:
    """Read what the writer says until so many commits were seen."""
    seen: list[str] = []
    while sum(line.startswith("committed") for line in seen) < wanted:
        line = process.stdout.readline()
        assert line, f"the writer ended: {process.stderr.read()}"
        seen.append(line.strip())
    return seen


def killed_runs(path: Path, kills: int, seed: int) -> None:
    source = random.Random(seed)
    committed: dict[int, int] = {}
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            said = lines_until(process, source.randint(1, 6))
            # somewhere inside the next few steps, wherever the writer is by then
            deadline = time.monotonic() + source.random() * 0.02
            while time.monotonic() < deadline:
                pass
        finally:
            os.kill(process.pid, signal.SIGKILL)
            rest, _ = process.communicate()
        for line in [*said, *rest.split("\n")]:
            words = line.split()
            if words[:1] == ["committed"] and len(words) == 3:
                committed[int(words[1])] = int(words[2])
    assert problems(path) == ()
    with Store.open(path) as store:
        (study,) = store.studies()
        assert study.state == "interrupted"
        done = {trial.number: trial for trial in store.trials(study.id, outcomes=[Outcome.DONE])}
        # a commit may have been killed before it could be said, but none that was said is missing or twice
        assert committed.keys() <= done.keys()
        positions = [trial.position for trial in done.values()]
        assert positions == sorted(set(positions)) == list(range(len(positions)))
        assert all(done[number].position == position for number, position in committed.items())
        assert all((path.parent / "samples" / trial.samples).exists() for trial in done.values())
        running = [t for t in store.trials(study.id) if t.outcome is Outcome.RUNNING]
        assert running == []
        assert study.counts.get("abandoned", 0) <= kills


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL as POSIX has it")
def test_killing_the_writer_loses_no_committed_trial(tmp_path):
    killed_runs(tmp_path / "llmopt.db", kills=6, seed=1)


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL as POSIX has it")
def test_killing_the_writer_two_hundred_times(tmp_path):
    killed_runs(tmp_path / "llmopt.db", kills=200, seed=2)


def step(store: Store, study: int, n: int) -> None:
    configuration = Configuration(engine="fake", launch={"n": n, "pad": "x" * 700}, request=InferenceParams())
    number = store.start_trial(study, configuration, origin="grid")
    store.finish_trial(study, number, Outcome.DONE, score=n)


def copy_as_after_power_loss(path: Path, folder: Path, *, wal_bytes: int | None = None) -> Path:
    """Database and WAL as a disk would hold them; the shared-memory index is gone, the WAL perhaps torn."""
    folder.mkdir()
    copy = folder / path.name
    shutil.copyfile(path, copy)
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        content = wal.read_bytes()
        copy.with_name(wal.name).write_bytes(content if wal_bytes is None else content[:wal_bytes])
    return copy


def done_in(path: Path) -> int:
    with Store.open(path) as store:
        if not store.studies():
            return -1
        trials = list(store.trials(1))
        done = [t for t in trials if t.outcome is Outcome.DONE]
        assert [t.number for t in done] == list(range(len(done)))
        step(store, 1, 999)
    assert problems(path) == ()
    return len(done)


def test_a_copy_at_every_commit_has_every_trial_committed_by_then(tmp_path):
    path = tmp_path / "llmopt.db"
    with Store.open(path) as store:
        study = store.create_study("study", {}, fingerprint="f")
        store.connection.execute("PRAGMA wal_autocheckpoint=20")  # so that some copies are taken after a checkpoint
        for n in range(25):
            step(store, study, n)
            assert done_in(copy_as_after_power_loss(path, tmp_path / f"copy{n}")) == n + 1


def test_a_torn_wal_ends_at_a_whole_transaction(tmp_path):
    path = tmp_path / "llmopt.db"
    with Store.open(path) as store:
        study = store.create_study("study", {}, fingerprint="f")
        for n in range(12):
            step(store, study, n)
        size = path.with_name(path.name + "-wal").stat().st_size
        source, counts = random.Random(3), []
        for i, cut in enumerate(sorted(source.randrange(size) for _ in range(40))):
            counts.append(done_in(copy_as_after_power_loss(path, tmp_path / f"torn{i}", wal_bytes=cut)))
        whole = done_in(copy_as_after_power_loss(path, tmp_path / "whole"))
    assert counts == sorted(counts)
    assert whole == 12
    assert len(set(counts)) > 5
