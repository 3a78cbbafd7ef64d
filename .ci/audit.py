"""What this package is made of, and whether any of it has a known hole: a bill of materials, and an audit of it.

    python .ci/audit.py [--sbom FILE] [--python INTERPRETER]

Writes a CycloneDX bill of materials of an environment (cyclonedx-bom) and looks up every package of it (pip-audit, by
PyPI's own records). A known vulnerability fails. A service that cannot be reached does not: then it says what could not
be asked and why, because a build must not depend on somebody else's server. Both tools must be installed beside this
script's interpreter; the environment they look at may be another.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OURS = "llmopt"
NETWORK_WORDS = ("ConnectionError", "Could not connect", "timed out", "Max retries", "NameResolution", "ServiceError")


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What pip-audit found: packages it could ask about, those it could not (with the reason), and vulnerabilities."""

    asked: int = 0
    not_asked: dict[str, str] = field(default_factory=dict)
    vulnerable: tuple[str, ...] = ()
    unreachable: str = ""


def read_report(report: dict[str, Any]) -> Audit:
    """pip-audit's JSON in three parts; our own package, which no index has, is left out."""
    asked, not_asked, vulnerable = 0, {}, []
    for one in report.get("dependencies", []):
        if one["name"] == OURS:
            continue
        if "skip_reason" in one:
            not_asked[one["name"]] = one["skip_reason"]
            continue
        asked += 1
        for hole in one.get("vulns", []):
            fixed = ", ".join(hole.get("fix_versions", [])) or "no version yet"
            names = ", ".join([hole["id"], *hole.get("aliases", [])])
            vulnerable.append(f"{one['name']} {one['version']}: {names} (fixed in {fixed})")
    return Audit(asked=asked, not_asked=not_asked, vulnerable=tuple(vulnerable))


def run_audit(folder: Path, requirements: Path) -> Audit:
    """Ask about every pinned package of ``requirements``."""
    out = folder / "audit.json"
    command = [
        "-m",
        "pip_audit",
        "-r",
        str(requirements),
        "--no-deps",
        "--disable-pip",
        "--vulnerability-service",
        "pypi",
    ]
    done = subprocess.run(
        [
            sys.executable,
            *command,
            "--format",
            "json",
            "--output",
            str(out),
            "--progress-spinner",
            "off",
            "--timeout",
            "20",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if out.exists() and out.read_text(encoding="utf-8").strip():
        return read_report(json.loads(out.read_text(encoding="utf-8")))
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit code {done.returncode}")
    if any(word in done.stderr for word in NETWORK_WORDS):
        return Audit(unreachable=last[:300])
    raise SystemExit(f"pip-audit did not work:\n{done.stderr[-2000:]}")


def write_sbom(python: str, target: Path) -> int:
    """The bill of materials of an environment as CycloneDX JSON; how many components it lists."""
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["-m", "cyclonedx_py", "environment", python, "--of", "JSON", "-o", str(target)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    return len(json.loads(target.read_text(encoding="utf-8"))["components"])


def frozen(python: str) -> list[str]:
    """Every package of an environment, pinned."""
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True
    ).stdout
    return [f"{one['name']}=={one['version']}" for one in json.loads(listed) if one["name"] != OURS]


def verdict(audit: Audit) -> tuple[int, str]:
    """The exit code and the sentences of an audit."""
    if audit.unreachable:
        return 0, f"audit: NOT DONE, the vulnerability service cannot be reached ({audit.unreachable})"
    if audit.not_asked and not audit.asked:
        reason = next(iter(audit.not_asked.values()))
        return (
            0,
            f"audit: NOT DONE, the service knew none of {len(audit.not_asked)} packages (for example: {reason[:200]})",
        )
    lines = [f"audit: {audit.asked} packages asked about, {len(audit.vulnerable)} known vulnerabilities"]
    lines += [f"  {line}" for line in audit.vulnerable]
    if audit.not_asked:
        reason = next(iter(audit.not_asked.values()))
        lines.append(f"  {len(audit.not_asked)} packages could not be asked about here, for example: {reason[:200]}")
    return (1 if audit.vulnerable else 0), "\n".join(lines)


def main() -> int:
    """Write the bill, audit it, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sbom", type=Path)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    if options.sbom:
        print(f"bill of materials: {write_sbom(options.python, options.sbom)} components in {options.sbom}")
    with tempfile.TemporaryDirectory() as name:
        requirements = Path(name) / "requirements.txt"
        requirements.write_text("\n".join(frozen(options.python)) + "\n", encoding="utf-8")
        code, said = verdict(run_audit(Path(name), requirements))
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
