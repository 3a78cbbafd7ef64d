"""No secret reaches a sink, ordinary text stays readable, and logging never ends a run."""

from __future__ import annotations

import io
import json
import logging
import stat
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt import logs
from llmopt.logs import LOG_FILE, configure_logging, get_logger, mask, mask_values, read_log, remember_secret

OWN_KEY = "9f8e7d6c5b4a39281706"
KNOWN = "correct-horse-battery"

# Fifteen secrets as they show in real output: (the text around, the secret)
PLANTED = [
    ("downloading with token hf_AbCdEfGhIjKlMnOp", "hf_AbCdEfGhIjKlMnOp"),
    ("OPENAI_API_KEY=sk-proj-0123456789abcdef in environment", "sk-proj-0123456789abcdef"),
    ("Authorization: Bearer s3cr3tS3ss10n.value", "s3cr3tS3ss10n.value"),
    ("non-default args: {'api_key': ['kk-engine-123456'], 'model': 'x'}", "kk-engine-123456"),
    ('{"api_key": "json-secret-value", "n": 1}', "json-secret-value"),
    ("vllm serve m --api-key argv-secret-77 --port 8000", "argv-secret-77"),
    ("proxy http://user:pr0xypass@10.0.0.1:3128 used", "pr0xypass"),
    ("GET https://host/x?token=querySecret1&n=1", "querySecret1"),
    ("password: hunter2hunter2", "hunter2hunter2"),
    ("AWS key AKIAIOSFODNN7EXAMPLE found", "AKIAIOSFODNN7EXAMPLE"),
    ("git remote ghp_0123456789abcdefghij", "ghp_0123456789abcdefghij"),
    ("jwt eyJhbGciOiJIUzI1.eyJzdWIiOiIx.SflKxwRJSMeKKF2Q", "SflKxwRJSMeKKF2Q"),
    ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANB\n-----END PRIVATE KEY-----", "MIIEvQIBADANB"),
    (f"engine started with {OWN_KEY}", OWN_KEY),
    (f"value {KNOWN} comes from the environment", KNOWN),
]


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setenv("COMPANY_SECRET_THING", KNOWN)
    monkeypatch.setattr(logs, "_remembered", set())
    remember_secret(OWN_KEY)
    return PLANTED


def test_fifteen_secrets_are_planted() -> None:
    assert len(PLANTED) == 15
    assert all(secret in text for text, secret in PLANTED)


def test_no_planted_secret_reaches_any_sink(planted, tmp_path: Path) -> None:
    stream = io.StringIO()
    sinks = configure_logging(tmp_path / "logs", debug=True, stream=stream)
    logger = get_logger(__name__)
    for text, secret in planted:
        logger.warning(text)
        logger.info("as a value: %s", {"text": text})
        logger.debug("as a field", extra={"payload": {"nested": [text], "api_key": secret}})
        logger.error("as an exception", exc_info=RuntimeError(text))
    sinks.close()
    written = stream.getvalue() + (tmp_path / "logs" / LOG_FILE).read_text(encoding="utf-8")
    assert [secret for _, secret in planted if secret in written] == []
    assert written.count("***") >= 4 * len(planted)


@pytest.mark.parametrize(
    "text",
    [
        "print_info: EOS token        = 2 '</s>'",
        "max_tokens: 64, eos_token_id=2, special_eos_token: </s>",
        "prompt eval time = 12.3 ms / 7 tokens",
        "the password was wrong",
        "tokenizer: key = value pairs loaded",
        "http://127.0.0.1:8080/health answered 200",
        "basic tests and bearer of news",
        "한국어 로그: 토큰 12개, 비밀번호 없음",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert mask(text, {}) == text


def test_switches_and_paths_in_the_environment_are_no_secrets() -> None:
    env = {"TOKENIZERS_PARALLELISM": "false", "SSH_KEY_FILE": "/home/u/.ssh/id", "KEY_LENGTH": "4096000"}
    text = "false /home/u/.ssh/id 4096000"
    assert mask(text, env) == text


def test_a_line_is_json_with_its_own_fields(tmp_path: Path) -> None:
    sinks = configure_logging(tmp_path, console=False)
    get_logger("llmopt.engines").info("시작: %d", 3, extra={"trial": 7, "path": Path("x")})
    sinks.close()
    entry = json.loads((tmp_path / LOG_FILE).read_text(encoding="utf-8"))
    assert (entry["message"], entry["level"], entry["logger"], entry["trial"]) == (
        "시작: 3",
        "info",
        "llmopt.engines",
        7,
    )
    assert entry["time"].endswith("Z")
    assert list(read_log(tmp_path)) == [entry]


def test_nothing_is_made_before_the_first_line(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    sinks = configure_logging(folder, console=False)
    get_logger("x").debug("below the level")
    assert not folder.exists()
    get_logger("x").warning("now")
    assert (folder / LOG_FILE).exists()
    sinks.close()
    if sys.platform != "win32":
        assert stat.S_IMODE((folder / LOG_FILE).stat().st_mode) == 0o600


def test_files_rotate_and_old_ones_go(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(logs, "_FILE_BYTES", 2000)
    monkeypatch.setattr(logs, "_FILES_KEPT", 2)
    sinks = configure_logging(tmp_path, console=False)
    for number in range(200):
        get_logger("x").info("line %d %s", number, "·" * 50)
    sinks.close()
    names = sorted(path.name for path in tmp_path.glob(f"{LOG_FILE}*"))
    assert names == [LOG_FILE, f"{LOG_FILE}.1", f"{LOG_FILE}.2"]
    assert all(path.stat().st_size < 3000 for path in tmp_path.glob(f"{LOG_FILE}*"))


def test_a_log_that_cannot_be_written_costs_one_line_and_no_run(tmp_path: Path, capsys) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    sinks = configure_logging(blocked / "logs", console=False)
    for _ in range(5):
        get_logger("x").warning("lost")
    sinks.close()
    assert capsys.readouterr().err.count("llmopt: log file:") == 1


def test_closing_leaves_logging_as_it_was(tmp_path: Path) -> None:
    logger = logging.getLogger("llmopt")
    before = (logger.level, list(logger.handlers), logger.propagate)
    configure_logging(tmp_path, debug=True, stream=io.StringIO()).close()
    assert (logger.level, list(logger.handlers), logger.propagate) == before


def test_damaged_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).write_text('{"message": "a"}\n{"cut\n[1]\n{"message": "b"}\n', encoding="utf-8")
    assert [entry["message"] for entry in read_log(tmp_path)] == ["a", "b"]
    assert list(read_log(tmp_path / "absent")) == []


@given(st.text(max_size=300))
def test_masking_is_stable(text: str) -> None:
    once = mask(text, {})
    assert mask(once, {}) == once


def test_masking_is_linear_in_hostile_text() -> None:
    def seconds(size: int) -> float:
        text = "a-" * size + "=" * size + "api_key" * 10
        began = time.process_time()
        mask(text, {})
        return time.process_time() - began

    small, large = max(seconds(4000), 1e-3), seconds(64000)
    assert large < small * 16 * 8


def test_values_keep_their_shape() -> None:
    value = {"token": "hf_AbCdEfGhIjKl", "n": 3, "list": [1.5, None, True], "hf_token": "plain"}
    assert mask_values(value) == {"token": "***", "n": 3, "list": [1.5, None, True], "hf_token": "***"}
