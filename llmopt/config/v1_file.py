"""The bytes of an old single-file configuration, as data: any usual encoding, and a place for everything wrong."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from llmopt.errors import SettingsError, json_problem

__all__ = ["parse_v1"]

_MAX_BYTES = 4 << 20
_MAX_DEPTH = 64
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[{}\[\]:,]|-?(?:Infinity|NaN)|-?\d{400,}')
_LONE = re.compile(r"\\u[dD][89a-fA-F]")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def parse_v1(data: bytes, path: str) -> Any:
    """What the file says; raises SettingsError with line and column (counted from 1) for what cannot be used."""
    if len(data) > _MAX_BYTES:
        raise SettingsError("v1.too_large", path=path, limit_mb=_MAX_BYTES >> 20)
    text = _decode(data, path)
    repeated = _walk(text, path)
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise _not_json(path, text, error.pos, json_problem(error)) from None
    if repeated is not None:
        raise _not_json(path, text, *repeated)
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        lone = _LONE.search(text)
        raise _not_json(path, text, lone.start() if lone else 0, "half a character (lone surrogate)") from None
    return found


def _decode(data: bytes, path: str) -> str:
    """UTF-8 with or without a mark, UTF-16 with one, else the Korean Windows code page."""
    names = ("utf-16",) if data.startswith(_UTF16) else ("utf-8-sig", "cp949")
    bad = 0
    for name in names:
        try:
            return data.decode(name)
        except UnicodeDecodeError as error:
            bad = bad or error.start
    line = data.count(b"\n", 0, bad) + 1
    raise SettingsError("v1.encoding", path=path, line=line, column=bad - (data.rfind(b"\n", 0, bad) + 1) + 1)


def _walk(text: str, path: str) -> tuple[int, str] | None:
    """Refuse what the parser would take or choke on; returns the place of the first key given twice, if any."""
    keys: list[set[str] | None] = []
    repeated: tuple[int, str] | None = None
    last: re.Match[str] | None = None
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word in "{[":
            keys.append(set() if word == "{" else None)
            if len(keys) > _MAX_DEPTH:
                raise _not_json(path, text, token.start(), "nested too deeply")
        elif word in "}]":
            if keys:
                keys.pop()
        elif word == ":" and last is not None and keys and keys[-1] is not None:
            name = last.group()
            if name in keys[-1]:
                repeated = repeated or (last.start(), f"{name[:40]} twice")
            keys[-1].add(name)
        elif word[0] not in '":,':
            raise _not_json(path, text, token.start(), f"{word[:20]} is no usable number")
        last = token if word[0] == '"' else None
    return repeated


def _not_json(path: str, text: str, offset: int, why: str) -> SettingsError:
    line = text.count("\n", 0, offset) + 1
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    return SettingsError("v1.not_json", path=path, line=line, column=column, why=why)
