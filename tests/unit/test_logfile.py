"""Reading logs: short ones whole, long ones from both ends, rotated ones in order, missing ones as nothing."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llmopt.engines import logfile
from llmopt.engines.logfile import find_in_log, log_text, tail


def test_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert log_text(tmp_path / "log") == ""
    assert tail(tmp_path / "log") == ""
    assert find_in_log(tmp_path / "log", "(x)") is None


def test_the_older_generation_comes_first(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("first\nsecond\n")
    (tmp_path / "log").write_text("third\n\n")
    assert tail(tmp_path / "log", 2) == "second\nthird"


def test_a_long_log_keeps_both_ends(tmp_path: Path) -> None:
    filler = "x" * (logfile.HEAD_BYTES + logfile.TAIL_BYTES)
    (tmp_path / "log").write_text(f"port 80\n{filler}\nthe end")
    text = log_text(tmp_path / "log")
    assert len(text) < len(filler) + len(logfile.GAP) + 1
    assert text.startswith("port 80\n")
    assert text.endswith("\nthe end")
    assert logfile.GAP in text
    assert find_in_log(tmp_path / "log", r"port (\d+)") == "80"


@given(content=st.binary(max_size=400), lines=st.integers(1, 5))
def test_any_bytes_can_be_read(content: bytes, lines: int, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("logs") / "log"
    path.write_bytes(content)
    assert log_text(path) == content.decode("utf-8", "replace")
    assert len(tail(path, lines).splitlines()) <= lines
