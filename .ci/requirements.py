"""Write or check improved_requirements.txt: every run-time dependency of pyproject.toml with what it needs, pinned.

``python .ci/requirements.py`` resolves anew (needs the package index); ``--check`` compares without a network.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "improved_requirements.txt"
HEAD = """\
# Generated from pyproject.toml by .ci/requirements.py: pinned versions that were resolved together.
# One solver, Optuna; scikit-optimize is never used. Optional packages stand at the end, commented out.
"""


def canonical(name: str) -> str:
    """The comparable form of a distribution name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> tuple[list[str], dict[str, list[str]]]:
    """The direct requirements and the optional groups of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"], project["optional-dependencies"]


def split(requirement: str) -> tuple[str, str, str]:
    """Name, version range and marker of a requirement line."""
    bare, _, marker = requirement.partition(";")
    found = re.match(r"\s*([A-Za-z0-9._-]+)\s*(.*)", bare)
    if found is None:
        raise SystemExit(f"cannot read the requirement {requirement!r}")
    return canonical(found[1]), found[2].strip(), marker.strip()


def resolve() -> dict[str, str]:
    """Name → version of everything a fresh installation would take."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    requirements, _ = declared()
    report = subprocess.run([*command, *requirements], capture_output=True, text=True, check=True).stdout
    installs = json.loads(report)["install"]
    return {canonical(i["metadata"]["name"]): i["metadata"]["version"] for i in installs}


def render(pins: dict[str, str]) -> str:
    """The file's text."""
    requirements, optional = declared()
    markers = {name: marker for name, _, marker in map(split, requirements)}
    lines = [HEAD]
    for name in sorted(pins):
        marker = markers.get(name, "")
        lines.append(f"{name}=={pins[name]}" + (f"; {marker}" if marker else ""))
    lines.append("")
    for group, members in optional.items():
        if group not in {"test", "lint", "dev"}:
            lines += [f"# optional ({group}): pip install '{member}'" for member in members]
    return "\n".join(lines) + "\n"


def check() -> list[str]:
    """What is wrong with the file as it stands; empty where it matches pyproject.toml."""
    text = TARGET.read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^;\s]+)", text, flags=re.MULTILINE))
    problems = [f"{name} is not pinned" for name, _, _ in map(split, declared()[0]) if name not in pins]
    if "scikit-optimize" in pins:
        problems.append("scikit-optimize must not be there")
    if not problems and text != render(pins):
        problems.append("it is not what .ci/requirements.py writes")
    return problems


if __name__ == "__main__":
    if "--check" in sys.argv:
        found = check()
        for problem in found:
            print(f"improved_requirements.txt: {problem}", file=sys.stderr)
        sys.exit(1 if found else 0)
    TARGET.write_text(render(resolve()), encoding="utf-8")
