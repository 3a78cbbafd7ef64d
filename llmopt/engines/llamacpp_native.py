"""A ``llama-server`` built for this machine, where one is configured (or is all there is): its version and options."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from llmopt.engines.locate import configured_command
from llmopt.engines.options import parse_help
from llmopt.engines.probing import ask

__all__ = ["NativeServer", "native_server"]

COMMAND = "llama-server"
REQUIRED = frozenset({"--fit", "--kv-unified", "--no-kv-unified", "--cache-ram", "--spec-type", "--api-key-file"})
"""Options without which a launch could not be explicit; a server that lacks one is too old."""
RENAMED = {"--no-ui": "--no-webui"}
NEVER_DROPPED = frozenset({"--model", "--host", "--port", "--api-key-file"})
VALUELESS = frozenset(
    {
        *("--kv-unified", "--no-kv-unified", "--cont-batching", "--no-cors-credentials", "--no-ui", "--offline"),
        *("--metrics", "--slots", "--cache-prompt", "--no-cache-prompt"),
    }
)


@dataclass(frozen=True, kw_only=True)
class NativeServer:
    """An installed llama-server."""

    path: str
    version: str
    options: frozenset[str]
    devices: tuple[str, ...] = ()

    @property
    def new_enough(self) -> bool:
        """Whether it has every option that an explicit launch needs."""
        return self.options >= REQUIRED

    def accepted(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """``argv`` with options under the names this version has; those it lacks are left out with their value."""
        kept: list[str] = []
        rest = list(argv)
        while rest:
            option = rest.pop(0)
            value = [] if option in VALUELESS else [rest.pop(0)]
            named = option if option in self.options else RENAMED.get(option, option)
            if named in self.options or option in NEVER_DROPPED:
                kept += [named, *value]
        return tuple(kept)


def native_server(*, only_if_configured: bool) -> NativeServer | None:
    """The configured llama-server, else (unless ``only_if_configured``) the one on PATH; None without an answer."""
    path = configured_command("llama_server") or (None if only_if_configured else shutil.which(COMMAND))
    if path is None:
        return None
    told, help_text = ask(path, "--version"), ask(path, "--help")
    if told is None or help_text is None:
        return None
    listed = ask(path, "--list-devices") or ""
    devices = tuple(re.findall(r"^\s+([A-Za-z]+\d+):", listed, flags=re.MULTILINE))
    return NativeServer(
        path=path,
        version=_version(told),
        options=parse_help(help_text),
        devices=devices,
    )


def _version(told: str) -> str:
    """The build number (b11434) of ``version: 11434 (commit)``, also where a release number stands before it."""
    build = re.search(r"version:\s*(?:(\d+)\s*\(|\S+\s*\(build (\d{2,}))", told)
    if build:
        return f"b{build.group(1) or build.group(2)}"
    release = re.search(r"version:\s*(\S+)", told)
    return release.group(1) if release else "unknown"
