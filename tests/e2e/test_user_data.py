"""A user's own files from the command line: formats, encodings, columns by flag and at a terminal, examples, 1 GB."""

import json
import os
import pty
import subprocess
import sys

import pytest

from tests.e2e.conftest import ROOT

FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.02"}
QUICK = ("--dry-run", "--samples", "4", "--repeats", "1", "--name", "b")
ROWS = [(f"사과 {n}개에 1개를 더하면 몇 개인가?", str(n + 1)) for n in range(24)]
PEAK = """
import re, sys
from llmopt.cli.app import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(code)
"""
"""Runs a command and tells the most memory its own process held."""


def result(cli):
    return json.loads((cli.folder / "optimization_results" / "b" / "result.json").read_text(encoding="utf-8"))


def test_a_parquet_file_with_korean_columns(cli):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_pylist([{"질문": question, "정답": answer} for question, answer in ROWS])
    parquet.write_table(table, cli.folder / "문제.parquet")
    ran = cli.run("benchmark", "--dataset", "문제.parquet", *QUICK, env=FAST)
    assert ran.code == 0, ran.err
    found = result(cli)
    assert found["dataset"]["name"] == "문제"
    assert len(found["sides"][0]["items"]) == 4
    assert found["sides"][0]["quality_measure"] == "gold"


@pytest.mark.parametrize("encoding", ["cp949", "utf-8-sig", "utf-16"])
def test_a_table_in_any_encoding_with_columns_by_flag_and_worked_examples(cli, inside, encoding):
    (cli.folder / "표.csv").write_text("가,나\n" + "".join(f"{q},{a}\n" for q, a in ROWS), encoding=encoding)
    shown = [{"question": f"배 {n}개에 1개를 더하면?", "answer": str(n + 1)} for n in range(3)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in shown)
    (cli.folder / "보기.jsonl").write_text(lines, encoding="utf-8")
    ran = cli.run(
        "benchmark", "--dataset", "표.csv", "--column", "question=가", "--column", "answer=나",
        "--examples", "보기.jsonl", "--set", "prompt_form=examples", *QUICK, env=FAST,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = result(cli)
    assert found["best"]["configuration"]["request"]["prompt_form"] == "examples"
    assert len(found["sides"][0]["items"]) == 4
    missing = inside.run(
        "benchmark", "--dataset", "표.csv", "--column", "question=가", "--examples", "없음.jsonl", *QUICK
    )
    assert missing.code == 3
    assert "없음.jsonl" in missing.err


def test_columns_are_asked_for_at_a_terminal(cli):
    """A real terminal: the columns are shown with their first values, and what is typed decides."""
    (cli.folder / "표.csv").write_text("가,나\n" + "".join(f"{q},{a}\n" for q, a in ROWS), encoding="cp949")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), "benchmark", "--dataset", "표.csv", *QUICK],
        cwd=cli.folder, env=cli.environment(FAST), stdin=theirs, stderr=theirs, stdout=subprocess.PIPE,
    )  # fmt: skip
    cli.started.append(process)
    os.close(theirs)
    os.write(ours, "가\n나\n".encode())
    seen = read_all(ours)
    process.communicate(timeout=120)
    assert process.returncode == 0, seen
    assert "사과 0개" in seen
    assert len(result(cli)["sides"][0]["items"]) == 4
    assert result(cli)["request"]["columns"] == {"question": "가", "answer": "나"}


def read_all(terminal):
    """Everything a terminal shows until its program ends."""
    seen = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux tells the end of a terminal in this way
            part = b""
        if not part:
            os.close(terminal)
            return seen.decode(errors="replace")
        seen += part


def test_what_was_left_out_and_drawn_is_told(cli):
    rows = [{"question": q, "answer": a} for q, a in ROWS] + [{"question": "", "answer": "1"}, {"question": "?"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (*rows, rows[0]))
    (cli.folder / "holes.jsonl").write_text(lines, encoding="utf-8")
    ran = cli.run("benchmark", "--dataset", "holes.jsonl", *QUICK, env={**FAST, "LLMOPT_LANG": "en"})
    assert ran.code == 0, ran.err
    assert "Rows without a question, left out: 1." in ran.out + ran.err
    assert "Rows without a gold answer, left out: 1." in ran.out + ran.err
    assert "Repeated rows, used once: 1." in ran.out + ran.err


@pytest.mark.parametrize(
    "size", [pytest.param(160 << 20, id="160MB"), pytest.param(1 << 30, id="1GB", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_large_file_is_streamed(cli, size, suffix):
    """The whole command holds less than 200 MB, whatever the size of the file."""
    path = cli.folder / f"big{suffix}"
    write_large(path, size, suffix)
    assert path.stat().st_size >= size
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, "benchmark", "--dataset", str(path), *QUICK],
        cwd=cli.folder, env=cli.environment({**FAST, "PYTHONPATH": str(ROOT)}), check=False, capture_output=True,
        text=True,
    )  # fmt: skip
    path.unlink()
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stderr.split()[-1]) < 200_000, "kB at its peak"
    assert len(result(cli)["sides"][0]["items"]) == 4


def write_large(path, size, suffix):
    """Rows of some 16 KB: a short question and answer, and a long note that nothing needs."""
    note = "가나다라마바사 " * 700
    with path.open("w", encoding="utf-8") as file:
        if suffix == ".csv":
            file.write("question,answer,note\n")
        for number in range(size // len(note.encode()) + 1):
            question = f"사과 {number}개에 1개를 더하면 몇 개인가?"
            row = {"question": question, "answer": str(number + 1), "note": note}
            line = f"{question},{number + 1},{note}" if suffix == ".csv" else json.dumps(row, ensure_ascii=False)
            file.write(line + "\n")
