"""What other records are made of: plain setting values, chat turns, and the short name of any value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = [
    "Message",
    "SettingValue",
    "Settings",
    "digest",
]

SettingValue: TypeAlias = str | int | float | bool | None
Settings: TypeAlias = Mapping[str, SettingValue]
Message: TypeAlias = Mapping[str, str]
"""One chat turn: ``{"role": "user", "content": "…"}``."""


def digest(value: Any, *, size: int = 12) -> str:
    """A short hex name of any JSON-like value, the same in every process (keys sorted, BLAKE2b)."""
    from hashlib import blake2b  # noqa: PLC0415 - loads OpenSSL

    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return blake2b(text.encode(), digest_size=size).hexdigest()
