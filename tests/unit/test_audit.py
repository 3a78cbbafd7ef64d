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


def test_every_package_of_an_environment_is_pinned(audit) -> None:
    assert any(line.startswith("pytest==") for line in audit.frozen(sys.executable))
    assert not any(line.startswith("llmopt==") for line in audit.frozen(sys.executable))
