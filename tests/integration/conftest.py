"""Guardians for the tests that start processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmopt.runtime.guardian import Guardian


@pytest.fixture
def guardian(tmp_path: Path) -> Iterator[Guardian]:
    """At the level that works everywhere."""
    with Guardian(tmp_path / "guard", cgroups=False) as guardian:
        assert guardian.containment == "tag"
        yield guardian


@pytest.fixture(params=["tag", "cgroup"])
def each_guardian(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guardian]:
    """At every level this machine allows."""
    with Guardian(tmp_path / "guard", cgroups=request.param == "cgroup") as guardian:
        if guardian.containment != request.param:
            pytest.skip("no cgroup v2 was delegated here")
        yield guardian
