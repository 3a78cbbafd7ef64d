"""Which options a version of an engine has: read from its own help, kept as data for the versions we know."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = ["Options", "known_versions", "options_of", "parse_help", "version_key"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one version, and the values that some of them take there."""

    version: str
    names: frozenset[str]
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def offers(self, *names: str) -> bool:
        """Whether all these options are there."""
        return self.names.issuperset(names)


def parse_help(text: str) -> frozenset[str]:
    """The long options in a help text; ``--[no-]name`` and ``--name, --no-name`` give both, a cut-off name none."""
    names = set()
    for negated, name in re.findall(r"(?<![\w-])--(\[no-\])?([a-z][a-z0-9-]*[a-z0-9])(?![\w-])", text):
        names.add(f"--{name}")
        if negated:
            names.add(f"--no-{name}")
    return frozenset(names)


def version_key(version: str) -> tuple[int, ...]:
    """A version as numbers, local and pre-release parts left out: ``0.32.0+cpu`` → (0, 32, 0)."""
    release = re.match(r"\D*(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in release.group(1).split(".")) if release else ()


def known_versions(engine: str) -> tuple[str, ...]:
    """The versions our data describes, oldest first."""
    return tuple(sorted(_data(engine), key=version_key))


def options_of(engine: str, version: str | None) -> Options:
    """The options of ``version``: of the newest described one that is not newer, else of the oldest one.

    None asks for the newest.
    """
    versions = known_versions(engine)
    wanted = version_key(version) if version else version_key(versions[-1])
    chosen = next((one for one in reversed(versions) if version_key(one) <= wanted), versions[0])
    raw = _data(engine)[chosen]
    values = {name: tuple(words) for name, words in raw.items() if name != "options"}
    return Options(version=chosen, names=frozenset(raw["options"]), values=values)


@cache
def _data(engine: str) -> dict[str, dict[str, list[str]]]:
    path = Path(__file__).with_name(f"{engine}_options.json")
    data: dict[str, dict[str, list[str]]] = json.loads(path.read_text(encoding="utf-8"))["versions"]
    return data
