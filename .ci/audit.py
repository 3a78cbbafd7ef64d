"""What this package is made of, and whether any of it has a known hole: a bill of materials, and an audit of it.

    python .ci/audit.py [--sbom FILE] [--python INTERPRETER] [--required]
    python .ci/audit.py --rehearse        # against a service of our own on loopback: does a finding fail?

Writes a CycloneDX bill of materials of an environment (cyclonedx-bom) and looks up every package of it (pip-audit, by
PyPI's own records, else by OSV's). A known vulnerability fails. Services that cannot be reached do not, unless the
audit is ``--required``: then it says what could not be asked and why, because a build must not depend on somebody
else's server. Both tools must be installed beside this script's interpreter; the environment they look at may be
another.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

OURS = "llmopt"
SERVICES = ("pypi", "osv")
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


def run_audit(folder: Path, requirements: Path, *, service: str = "pypi", url: str | None = None) -> Audit:
    """Ask ``service`` (at ``url``, where it is OSV's kind) about every pinned package of ``requirements``."""
    out = folder / "audit.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pip_audit", "-r", str(requirements), "--no-deps", "--disable-pip"]
    command += ["--vulnerability-service", service, *(["--osv-url", url] if url else []), "--timeout", "20"]
    command += ["--format", "json", "--output", str(out), "--progress-spinner", "off"]
    command += ["--cache-dir", str(folder / "cache")] if url else []
    env = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} if url else None
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if out.exists() and out.read_text(encoding="utf-8").strip():
        return read_report(json.loads(out.read_text(encoding="utf-8")))
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit code {done.returncode}")
    if any(word in done.stderr for word in NETWORK_WORDS):
        return Audit(unreachable=last[:300])
    raise SystemExit(f"pip-audit did not work:\n{done.stderr[-2000:]}")


def audited(folder: Path, requirements: Path) -> Audit:
    """The audit by the first service that knows any of these packages; else the last one's answer."""
    *others, last = SERVICES
    for service in others:
        found = run_audit(folder, requirements, service=service)
        if found.asked:
            return found
        print(f"{verdict(found)[1]}; asking {last}")
    return run_audit(folder, requirements, service=last)


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


def verdict(audit: Audit, *, required: bool = False) -> tuple[int, str]:
    """The exit code and the sentences of an audit."""
    not_done = 1 if required else 0
    if audit.unreachable:
        return not_done, f"audit: NOT DONE, the vulnerability service cannot be reached ({audit.unreachable})"
    reason = next(iter(audit.not_asked.values()), "")[:200]
    if not audit.asked:
        known = f"the service knew none of {len(audit.not_asked)} packages"
        return not_done, f"audit: NOT DONE, {known} (for example: {reason})"
    lines = [f"audit: {audit.asked} packages asked about, {len(audit.vulnerable)} known vulnerabilities"]
    lines += [f"  {line}" for line in audit.vulnerable]
    if audit.not_asked:
        lines.append(f"  {len(audit.not_asked)} packages could not be asked about here, for example: {reason}")
    return (1 if audit.vulnerable else 0), "\n".join(lines)


# ── rehearsal ──────────────────────────────────────────────────────────────────────────────────────────────────────

HOLE = {
    "id": "PYSEC-0000-1",
    "aliases": ["CVE-0000-0001"],
    "summary": "made up",
    "affected": [
        {
            "package": {"name": "holed", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


class _Service(BaseHTTPRequestHandler):
    """A vulnerability service of OSV's kind that knows one hole."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"vulns": [HOLE]} if asked["package"]["name"] == "holed" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words: object) -> None:
        """Say nothing of every request."""


def rehearse(folder: Path) -> list[str]:
    """What of the audit does not work, tried with the real pip-audit against a service of our own."""
    requirements, wrong = folder / "requirements.txt", []

    def tried(packages: str, url: str) -> tuple[int, str]:
        requirements.write_text(packages, encoding="utf-8")
        return verdict(run_audit(folder, requirements, service="osv", url=url))

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code, said = tried("sound==1.0\nholed==1.0\n", url)
    if code != 1 or not all(word in said for word in ("holed 1.0", "PYSEC-0000-1", "CVE-0000-0001", "1.1")):
        wrong.append(f"a known vulnerability does not fail: {code} {said}")
    code, said = tried("sound==1.0\nother==2.0\n", url)
    if code != 0 or "2 packages asked about, 0 known" not in said:
        wrong.append(f"sound packages do not pass: {code} {said}")
    server.shutdown()
    server.server_close()
    code, said = tried("sound==1.0\n", url)
    if code != 0 or "NOT DONE" not in said:
        wrong.append(f"a service that is not there is not told: {code} {said}")
    return wrong


def main() -> int:
    """Write the bill, audit it, say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sbom", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--required", action="store_true", help="fail also where no service could be asked")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.rehearse:
            wrong = rehearse(folder)
            print("\n".join(wrong) or "audit rehearsed: a finding fails, none passes, a service out of reach is told")
            return 1 if wrong else 0
        if options.sbom:
            print(f"bill of materials: {write_sbom(options.python, options.sbom)} components in {options.sbom}")
        requirements = folder / "requirements.txt"
        requirements.write_text("\n".join(frozen(options.python)) + "\n", encoding="utf-8")
        code, said = verdict(audited(folder, requirements), required=options.required)
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
