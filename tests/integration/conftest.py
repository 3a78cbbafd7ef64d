"""Guardians for the tests that start processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmopt.config.settings import load_settings
from llmopt.paths import Workspace
from llmopt.runtime.guardian import Guardian
from llmopt.study.prepare import Prepared, prepare
from llmopt.study.request import StudyRequest


@pytest.fixture
def guardian(tmp_path: Path) -> Iterator[Guardian]:
    """At the level that works everywhere."""
    with Guardian(tmp_path / "guard", cgroups=False) as guardian:
        assert guardian.containment == "tag"
        yield guardian


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """A study of the scripted engine on four easy items."""
    workspace = Workspace(root=tmp_path / "study")
    workspace.root.mkdir()
    request = StudyRequest(model="smollm2-135m", dataset="korean_math_easy", samples=4, streams=2, engine="fake")
    return prepare(request, workspace=workspace, settings=load_settings(workspace))


@pytest.fixture(params=["tag", "cgroup"])
def each_guardian(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guardian]:
    """At every level this machine allows."""
    with Guardian(tmp_path / "guard", cgroups=request.param == "cgroup") as guardian:
        if guardian.containment != request.param:
            pytest.skip("no cgroup v2 was delegated here")
        yield guardian
