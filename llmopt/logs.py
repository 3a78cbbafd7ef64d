"""Console and JSON-lines logs whose sinks mask secrets. Nothing is configured or opened at import."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from llmopt.paths import ensure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import TextIOWrapper

__all__ = [
    "LOG_FILE",
    "LogSinks",
    "configure_logging",
    "get_logger",
    "log_exception",
    "mask",
    "mask_values",
    "read_log",
    "remember_secret",
]

LOG_FILE = "llmopt.jsonl"
_HIDDEN = "***"
_FILE_BYTES = 5 << 20
_FILES_KEPT = 5

# Secrets that show by their own shape.
_SHAPES = re.compile(
    r"""
    \bhf_[A-Za-z0-9]{8,} | \bsk-[A-Za-z0-9_\-]{8,} | \bnvapi-[A-Za-z0-9_\-]{8,} | \bgsk_[A-Za-z0-9]{8,}
    | \b(?:ghp|gho|ghs|ghu)_[A-Za-z0-9]{8,} | \bgithub_pat_[A-Za-z0-9_]{8,} | \bglpat-[A-Za-z0-9_\-]{8,}
    | \bxox[abprs]-[A-Za-z0-9\-]{8,} | \bAKIA[A-Z0-9]{12,} | \bAIza[A-Za-z0-9_\-]{16,}
    | \beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}\.[A-Za-z0-9_\-]{4,}
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----[\s\S]*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    """,
    re.VERBOSE,
)
_SCHEMES = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/\-]{6,}=*")
_URL_LOGIN = re.compile(r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)")
# Secrets that show by the name in front of them. A bare "token" is left to the shapes above: engines print
# "EOS token = 2" and "max_tokens: 64", which must stay readable.
_TELLING_NAME = (
    r"[A-Za-z0-9_.\-]{0,40}(?:api[_-]?key|secret(?:[_-]?(?:key|token))?|passwd|password|passphrase|access[_-]?key"
    r"|private[_-]?key|(?:hf|hub|auth|access|refresh|session|bearer|api|id|huggingface|wandb)[_-]?token"
    r"|(?-i:[A-Z][A-Z0-9]{0,30}_TOKEN))"
)
_NAMED = re.compile(
    rf"""(?P<name>(?<![A-Za-z0-9]){_TELLING_NAME}[\\"']*\s*[=:]\s*|(?<!\S)--{_TELLING_NAME}\s+)"""
    r"""(?P<quote>[\[(\\"']*)(?P<value>[^\s\\"',;&)\]}]+)""",
    re.IGNORECASE,
)
_TELLING_FIELD = re.compile(_TELLING_NAME, re.IGNORECASE)
_AUTHORIZATION = re.compile(r"""(?i)(\bauthorization["']?\s*[=:]\s*["']?)[^\s"',]+(?:\s+[^\s"',]+)?""")
_QUERY = re.compile(r"(?i)([?&](?:token|key|sig|signature|api_key|access_token|auth)=)[^&\s\"']+")
_SECRET_VARIABLE = re.compile(r"(?i)(key|token|secret|passw|credential)")
_SHORTEST_KNOWN = 6

_remembered: set[str] = set()


def remember_secret(value: str) -> None:
    """Mask ``value`` from now on wherever it shows: for keys we made ourselves, which have no telling shape."""
    if len(value) >= _SHORTEST_KNOWN:
        _remembered.add(value)


def mask(text: str, env: Mapping[str, str] | None = None) -> str:
    """``text`` without secrets: known shapes, named values, logins in addresses, values of secret variables."""
    for value in sorted(_known(os.environ if env is None else env), key=len, reverse=True):
        text = text.replace(value, _HIDDEN)
    text = _SHAPES.sub(_HIDDEN, text)
    text = _AUTHORIZATION.sub(rf"\1{_HIDDEN}", text)
    text = _SCHEMES.sub(rf"\1 {_HIDDEN}", text)
    text = _URL_LOGIN.sub(f"{_HIDDEN}:{_HIDDEN}", text)
    text = _QUERY.sub(rf"\1{_HIDDEN}", text)
    return _NAMED.sub(_hide_value, text)


def _hide_value(match: re.Match[str]) -> str:
    return f"{match['name']}{match['quote']}{_HIDDEN}"


def _known(env: Mapping[str, str]) -> set[str]:
    found = set(_remembered)
    for name, value in env.items():
        if len(value) >= _SHORTEST_KNOWN and _SECRET_VARIABLE.search(name) and not value.isdigit():
            found.add(value)
    # switches such as TOKENIZERS_PARALLELISM=false are no secrets, and paths to key files are not keys
    return {value for value in found if value.lower() not in ("false", "disabled") and not value.startswith(("/", "~"))}


def mask_values(value: Any) -> Any:
    """A JSON-like value with every string in it masked, and every value under a secret name hidden."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {
            key: _HIDDEN if isinstance(each, str) and _TELLING_FIELD.fullmatch(str(key)) else mask_values(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask_values(each) for each in value]
    return value


def get_logger(name: str) -> logging.Logger:
    """The logger of a module; its text is for developers, the user's text comes from the catalogue."""
    return logging.getLogger(name if name.startswith("llmopt") else f"llmopt.{name}")


# ── sinks ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _ConsoleFormat(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


class _JsonFormat(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(mask_values(entry), ensure_ascii=False, default=lambda value: mask(str(value)))


class _LogFile(logging.FileHandler):
    """A rotating file only its owner reads; a full disk costs log lines, never the run.

    The standard rotating handler would do, but importing it costs every command start 19 ms.
    """

    def __init__(self, path: Path) -> None:
        self._failed = False
        super().__init__(path, encoding="utf-8", delay=True)

    def _open(self) -> TextIOWrapper:
        ensure(Path(self.baseFilename).parent)
        return open(self.baseFilename, "a", encoding="utf-8", opener=_open_private)

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is not None and self.stream.tell() > _FILE_BYTES:
            self.stream.close()
            self.stream = None  # the base class opens it again
            self._rotate()
        try:
            super().emit(record)
        except OSError:  # the file could not be opened: the base class reports only failed writes
            self.handleError(record)

    def _rotate(self) -> None:
        for number in range(_FILES_KEPT - 1, -1, -1):
            older = Path(f"{self.baseFilename}.{number}" if number else self.baseFilename)
            with contextlib.suppress(OSError):
                older.replace(f"{self.baseFilename}.{number + 1}")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        if not self._failed:
            self._failed = True
            with contextlib.suppress(OSError, ValueError):
                print(f"llmopt: log file: {sys.exc_info()[1]} ({record.name})", file=sys.stderr)  # noqa: T201


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class LogSinks:
    """The handlers of one configuration; closing takes them off again."""

    def __init__(self, handlers: list[logging.Handler], previous_level: int) -> None:
        self._handlers = handlers
        self._previous_level = previous_level

    def close(self) -> None:
        """Flush and remove these sinks."""
        logger = logging.getLogger("llmopt")
        for handler in self._handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(self._previous_level)
        logger.propagate = True


def configure_logging(
    folder: Path | None = None, *, debug: bool = False, stream: TextIO | None = None, console: bool = True
) -> LogSinks:
    """Send our log to the console (warnings; everything with ``debug``) and, with ``folder``, to a rotating file.

    The folder is made when the first line is written. Returns the sinks, to be closed at the end of the command.
    """
    logger = logging.getLogger("llmopt")
    sinks = LogSinks([], logger.level)
    if console:
        terminal = logging.StreamHandler(stream or sys.stderr)
        terminal.setLevel(logging.DEBUG if debug else logging.WARNING)
        terminal.setFormatter(_ConsoleFormat("%(levelname)s %(name)s: %(message)s" if debug else "%(message)s"))
        sinks._handlers.append(terminal)  # noqa: SLF001 - built here
    if folder is not None:
        file = _LogFile(folder / LOG_FILE)
        file.setLevel(logging.DEBUG if debug else logging.INFO)
        file.setFormatter(_JsonFormat())
        sinks._handlers.append(file)  # noqa: SLF001 - built here
    for handler in sinks._handlers:  # noqa: SLF001 - built here
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = not sinks._handlers  # noqa: SLF001 - built here
    return sinks


def log_exception(folder: Path, error: BaseException) -> None:
    """Write ``error`` with its traceback to the log file of ``folder``, whatever sinks there are."""
    raised = (type(error), error, error.__traceback__)
    record = logging.getLogger("llmopt").makeRecord("llmopt.cli", logging.ERROR, "", 0, str(error), (), raised)
    file = _LogFile(folder / LOG_FILE)
    file.setFormatter(_JsonFormat())
    try:
        file.handle(record)
    finally:
        file.close()


def read_log(folder: Path, *, last: int = 100) -> Iterator[dict[str, Any]]:
    """The newest entries of the log file, oldest first; lines that are no JSON are skipped."""
    try:
        lines = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()[-last:]
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry
