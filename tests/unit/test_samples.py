"""Raw samples: the same bytes for the same samples, complete or absent, damage named."""

from __future__ import annotations

import math

import pytest

from llmopt.errors import StorageError
from llmopt.records import AnswerStatus, Sample, Score
from llmopt.store import read_samples, write_samples


def sample(n: int) -> Sample:
    return Sample(item_id=f"i{n}", planned_s=0.0, sent_s=1.0, ended_s=2.5, token_s=(1.5, 2.0), text="답: 16\n둘째 줄")


def test_samples_come_back_row_by_row(tmp_path):
    score = Score(item_id="i0", value=1.0, status=AnswerStatus.OK)
    path = write_samples(
        tmp_path / "samples", "trial-00000", [sample(0), {"sample": sample(1).text, "bad": math.nan}, score]
    )
    first, second, third = read_samples(path)
    assert (first["item_id"], first["token_s"], first["text"]) == ("i0", [1.5, 2.0], "답: 16\n둘째 줄")
    assert second == {"sample": "답: 16\n둘째 줄", "bad": None}
    assert third["status"] == "ok"
    assert (tmp_path / "samples" / ".llmopt").exists()


def test_the_same_samples_give_the_same_bytes(tmp_path):
    one = write_samples(tmp_path / "a", "x", [sample(n) for n in range(50)])
    two = write_samples(tmp_path / "b", "y", [sample(n) for n in range(50)])
    assert one.read_bytes() == two.read_bytes()


def test_a_failing_source_leaves_the_old_file_and_no_part(tmp_path):
    path = write_samples(tmp_path, "trial", [sample(0)])

    def rows():
        yield sample(1)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_samples(tmp_path, "trial", rows())
    assert [row["item_id"] for row in read_samples(path)] == ["i0"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"nonsense", lambda b: b[:30] + b"\xff" * 20 + b[50:]]
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = write_samples(tmp_path, "trial", [sample(n) for n in range(50)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StorageError) as caught:
        list(read_samples(path))
    assert caught.value.key == "store.samples_damaged"
    assert caught.value.next_step


def test_a_missing_file_and_an_impossible_folder_are_named(tmp_path):
    with pytest.raises(StorageError):
        list(read_samples(tmp_path / "none.jsonl.gz"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        write_samples(tmp_path / "file" / "samples", "trial", [])
