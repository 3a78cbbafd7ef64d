"""The audit fails on a known hole and on nothing else; what could not be asked is said."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["audit"]


HOLE = {"id": "PYSEC-2023-74", "fix_versions": ["2.31.0"], "aliases": ["CVE-2023-32681"], "description": "…"}


def report(*dependencies):
    return {"dependencies": list(dependencies), "fixes": []}


def test_a_known_hole_fails_with_its_names_and_the_version_that_closes_it(audit) -> None:
    sound = {"name": "click", "version": "8.5.1", "vulns": []}
    found = audit.read_report(report({"name": "requests", "version": "2.19.0", "vulns": [HOLE]}, sound))
    code, said = audit.verdict(found)
    assert code == 1
    assert found.asked == 2
    for word in ("requests 2.19.0", "PYSEC-2023-74", "CVE-2023-32681", "2.31.0"):
        assert word in said


def test_packages_nobody_knows_are_counted_and_do_not_fail(audit) -> None:
    skipped = {"name": "private", "skip_reason": "Dependency not found on PyPI and could not be audited: private (1.0)"}
    ours = {"name": "llmopt", "skip_reason": "not there"}
    found = audit.read_report(report(skipped, ours, {"name": "click", "version": "8.5.1", "vulns": []}))
    assert audit.verdict(found)[0] == 0
    assert found.not_asked == {"private": skipped["skip_reason"]}
    assert "1 packages could not be asked" in audit.verdict(found)[1]


def test_nothing_asked_is_not_called_an_audit(audit) -> None:
    skipped = {"name": "private", "skip_reason": "Dependency not found on PyPI"}
    code, said = audit.verdict(audit.read_report(report(skipped)))
    assert code == 0
    assert "NOT DONE" in said
    code, said = audit.verdict(audit.Audit(unreachable="ConnectionError: name not known"))
    assert code == 0
    assert "NOT DONE" in said
    assert "name not known" in said


def test_where_it_is_required_an_audit_that_could_not_be_made_fails(audit) -> None:
    for found in (audit.Audit(unreachable="no route"), audit.Audit(not_asked={"private": "not found"}), audit.Audit()):
        assert audit.verdict(found, required=True)[0] == 1
        assert audit.verdict(found)[0] == 0
    assert audit.verdict(audit.Audit(asked=3), required=True)[0] == 0


STAND_IN = """
import json, sys, urllib.request
words = sys.argv
asked = [line.strip().split("==") for line in open(words[words.index("-r") + 1])]
found = []
try:
    for name, version in asked:
        query = json.dumps({"package": {"name": name, "ecosystem": "PyPI"}, "version": version}).encode()
        with urllib.request.urlopen(words[words.index("--osv-url") + 1], query, timeout=20) as answer:
            holes = json.load(answer).get("vulns", [])
        vulns = [{"id": h["id"], "aliases": h["aliases"], "fix_versions": ["1.1"], "description": ""} for h in holes]
        found.append({"name": name, "version": version, "vulns": vulns})
except OSError as error:
    sys.exit(f"ConnectionError: {error}")
open(words[words.index("--output") + 1], "w").write(json.dumps({"dependencies": found, "fixes": []}))
sys.exit(any(one["vulns"] for one in found))
"""
"""The part of pip-audit that asks a service of OSV's kind; CI rehearses with the real one (``audit.py --rehearse``)."""


def test_the_rehearsal_asks_a_service_and_notices_an_audit_that_cannot_fail(audit, tmp_path, monkeypatch) -> None:
    (tmp_path / "pip_audit.py").write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert audit.rehearse(tmp_path) == []
    monkeypatch.setattr(audit, "HOLE", {**audit.HOLE, "aliases": []})
    (wrong,) = audit.rehearse(tmp_path)
    assert wrong.startswith("a known vulnerability does not fail")


def test_every_package_of_an_environment_is_pinned(audit) -> None:
    assert any(line.startswith("pytest==") for line in audit.frozen(sys.executable))
    assert not any(line.startswith("llmopt==") for line in audit.frozen(sys.executable))
