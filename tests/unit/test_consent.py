"""Consent to a model's own code holds for one repository at one revision."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmopt.errors import SettingsError
from llmopt.models.consent import check_consent, code_of
from llmopt.models.entry import ModelEntry
from llmopt.paths import Workspace
from llmopt.records import ModelInfo

REPOSITORY = "somebody/special"


def entry(revision: str | None = None, *, consent: bool = True) -> ModelEntry:
    facts = ModelInfo(name="special", path=REPOSITORY, format="hub")
    return ModelEntry(
        name="special", path=REPOSITORY, facts=facts, origin="user", revision=revision, trust_remote_code=consent
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path / "w")


def snapshot(tmp_path: Path, commit: str, code: str | None = "print('hello')") -> Path:
    folder = tmp_path / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    if code is not None:
        (folder / "modeling_special.py").write_text(code, encoding="utf-8")
    return folder


def test_without_consent_nothing_is_recorded(tmp_path, workspace) -> None:
    assert check_consent(entry(consent=False), snapshot(tmp_path, "a" * 40), workspace) is None
    assert check_consent(entry(), snapshot(tmp_path, "b" * 40, code=None), workspace) is None
    assert not workspace.root.exists()


def test_the_first_use_binds_consent_to_the_code_and_names_it(tmp_path, workspace, caplog) -> None:
    folder = snapshot(tmp_path, "a" * 40)
    code = check_consent(entry(), folder, workspace)
    assert code.files == ("modeling_special.py",)
    kept = json.loads((workspace.root / "config" / "consents.json").read_text(encoding="utf-8"))
    assert kept == {f"{REPOSITORY}@": {"commit": "a" * 40, "sha256": code.sha256, "files": list(code.files)}}
    assert "modeling_special.py" in caplog.text
    assert check_consent(entry(), folder, workspace) == code


def test_code_that_changed_is_refused_until_its_revision_is_named(tmp_path, workspace) -> None:
    check_consent(entry(), snapshot(tmp_path, "a" * 40), workspace)
    changed = snapshot(tmp_path, "c" * 40, code="import os")
    with pytest.raises(SettingsError) as refused:
        check_consent(entry(), changed, workspace)
    assert refused.value.exit_code == 3
    for word in (REPOSITORY, "a" * 40, "c" * 40, "revision"):
        assert word in str(refused.value)
    assert check_consent(entry("c" * 40), changed, workspace).commit == "c" * 40
    with pytest.raises(SettingsError):  # consent to one revision is none to another, nor to a moved branch
        check_consent(entry("c" * 40), snapshot(tmp_path, "d" * 40, code="import sys"), workspace)


def test_the_same_code_at_a_later_commit_is_the_same_code(tmp_path, workspace) -> None:
    check_consent(entry(), snapshot(tmp_path, "a" * 40), workspace)
    assert check_consent(entry(), snapshot(tmp_path, "e" * 40), workspace).commit == "e" * 40


def test_another_repository_needs_its_own_consent(tmp_path, workspace) -> None:
    check_consent(entry(), snapshot(tmp_path, "a" * 40), workspace)
    other = replace(entry(), path="somebody/else")
    assert check_consent(other, snapshot(tmp_path, "f" * 40, code="import os"), workspace).files


def test_a_renamed_file_is_a_change_and_a_damaged_record_is_refused(tmp_path, workspace) -> None:
    folder = snapshot(tmp_path, "a" * 40)
    before = code_of(folder)
    (folder / "modeling_special.py").rename(folder / "other.py")
    assert code_of(folder).sha256 != before.sha256
    record = workspace.root / "config" / "consents.json"
    record.parent.mkdir(parents=True)
    record.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"consents\.json"):
        check_consent(entry(), folder, workspace)
