"""The cascade of settings: who wins, who is named as the origin, and what is refused where."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.config.settings import ENGINE_VARIABLES, SPECS, load_settings, save_settings
from llmopt.errors import SettingsError
from llmopt.paths import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(root=tmp_path)


def write(workspace, text):
    workspace.settings_file.parent.mkdir(parents=True, exist_ok=True)
    workspace.settings_file.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_each_level_beats_the_one_before_and_is_named(workspace):
    view = load_settings(workspace, environ={})
    assert (view["streams"], view.origin("streams")) == (4, "default")
    write(workspace, '{"streams": 5}')
    view = load_settings(workspace, environ={})
    assert (view["streams"], view.origin("streams")) == (5, str(workspace.settings_file))
    (workspace.root / ".env").write_text("LLMOPT_STREAMS=6\n")
    assert load_settings(workspace, environ={}).origin("streams") == ".env"
    view = load_settings(workspace, environ={"LLMOPT_STREAMS": "7"})
    assert (view["streams"], view.origin("streams")) == (7, "LLMOPT_STREAMS")
    view = load_settings(workspace, environ={"LLMOPT_STREAMS": "7"}, flags={"streams": 8, "seed": None})
    assert (view["streams"], view.origin("streams")) == (8, "flag")


def test_an_unknown_key_is_refused_with_its_place_and_the_nearest_name(workspace):
    write(workspace, '{\n  "seed": 1,\n  "stream": 5\n}')
    with pytest.raises(SettingsError) as raised:
        load_settings(workspace, environ={})
    assert (raised.value.values["line"], raised.value.values["column"]) == (3, 3)
    assert "streams" in raised.value.values["near"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"streams": "many"}', "settings.bad_value"),
        ('{"streams": true}', "settings.bad_value"),
        ('{"streams": 0}', "settings.bad_value"),
        ('{"lang": "fr"}', "settings.bad_value"),
        ('{"timeout": -1}', "settings.bad_value"),
        ("[1, 2]", "settings.not_object"),
        ('{"seed": 1', "settings.not_json"),
        ("[" * 100_000, "settings.not_json"),
        ('{"model": "한국"}'.encode("cp949"), "settings.not_utf8"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(workspace, text, key):
    write(workspace, text)
    with pytest.raises(SettingsError) as raised:
        load_settings(workspace, environ={})
    assert raised.value.key == key
    assert str(raised.value)


def test_a_variable_that_is_no_number_names_the_variable(workspace):
    with pytest.raises(SettingsError) as raised:
        load_settings(workspace, environ={"LLMOPT_TRIALS": "lots"})
    assert raised.value.values["origin"] == "LLMOPT_TRIALS"


def test_the_engines_variables_come_from_env_files_but_never_override_the_environment(workspace, monkeypatch):
    (workspace.root / ".env").write_text("HF_HOME=/models\nOMP_NUM_THREADS=3\nSOMETHING_ELSE=1\n")
    view = load_settings(workspace, environ={"OMP_NUM_THREADS": "1"})
    assert dict(view.engine_env) == {"HF_HOME": "/models", "OMP_NUM_THREADS": "1"}
    for name in ENGINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    view.apply_engine_environment()
    assert os.environ["HF_HOME"] == "/models"


def test_saved_settings_read_back(workspace):
    path = save_settings(workspace, {"streams": 3, "timeout": 60})
    assert json.loads(path.read_text()) == {"streams": 3, "timeout": 60.0}
    assert load_settings(workspace, environ={})["timeout"] == 60.0


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    workspace = Workspace(root=tmp_path_factory.mktemp("fuzz"))
    write(workspace, data)
    try:
        view = load_settings(workspace, environ={})
    except SettingsError as error:
        str(error)
    else:
        assert set(view.values) == {spec.name for spec in SPECS}
