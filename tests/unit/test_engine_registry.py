"""The table of engines, other packages' entry points, and the choice of one."""

from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest

from llmopt.engines import registry
from llmopt.engines.fake import Fake
from llmopt.engines.registry import choose_engine, engine_names, get_engine
from llmopt.errors import EngineMissing, SettingsError, UsageError
from llmopt.records import Cpu, Hardware, HostMemory, Installation, ModelInfo

MODEL = ModelInfo(name="m", path="/w/m.gguf", format="gguf")
MACHINE = Hardware(
    cpu=Cpu(model="c", architecture="x86_64", physical_cores=2, logical_cores=2, usable_cores=2),
    memory=HostMemory(total_bytes=1 << 34, available_bytes=1 << 33),
)


class TheirEngine(Fake):
    name = "theirs"


def plugins(monkeypatch, **targets):
    points = [EntryPoint(name=name, value=value, group="llmopt.engines.v1") for name, value in targets.items()]
    monkeypatch.setattr(
        registry, "entry_points", lambda *, group, name=None: [p for p in points if name in (None, p.name)]
    )


def test_every_name_of_the_table_gives_its_engine():
    assert {"llamacpp", "fake"} <= set(engine_names())
    assert all(get_engine(name).name == name for name in engine_names())


def test_unknown_name_lists_near_ones():
    with pytest.raises(UsageError, match="llamacpp"):
        get_engine("lamacpp")
    with pytest.raises(UsageError, match="fake"):
        get_engine("???")


def test_plugin_joins_by_entry_point(monkeypatch):
    plugins(monkeypatch, theirs=f"{__name__}:TheirEngine")
    monkeypatch.setitem(
        __import__("sys").modules, __name__, __import__("types").SimpleNamespace(TheirEngine=TheirEngine)
    )
    assert engine_names()[-1] == "theirs"
    assert get_engine("theirs").name == "theirs"


def test_plugin_never_replaces_ours(monkeypatch):
    plugins(monkeypatch, llamacpp="nowhere:Nothing")
    assert engine_names().count("llamacpp") == 1
    assert type(get_engine("llamacpp")).__name__ == "LlamaCpp"


@pytest.mark.parametrize("target", ["no_such_module_at_all:X", "json:no_such_name", "json:dumps", "builtins:dict"])
def test_broken_plugin_is_told_with_its_name(monkeypatch, target):
    plugins(monkeypatch, theirs=target)
    with pytest.raises(EngineMissing, match="theirs"):
        get_engine("theirs")


def test_choice_follows_the_wish_or_refuses_it():
    assert choose_engine(MODEL, MACHINE, "fake")[0].name == "fake"
    engine, reason = choose_engine(MODEL, MACHINE)
    assert engine.name == "llamacpp"
    assert reason.startswith("engines.chosen_")
    with pytest.raises(EngineMissing, match="GGUF"):
        choose_engine(replace(MODEL, format="safetensors"), MACHINE, "llamacpp")


def test_choice_never_falls_back_to_the_fake(monkeypatch):
    gone = Installation(engine="llamacpp", available=False, why_not="engines.llamacpp_missing")
    monkeypatch.setattr("llmopt.engines.llamacpp.LlamaCpp.installation", lambda _: gone)
    monkeypatch.setattr(registry, "ENGINES", {k: v for k, v in registry.ENGINES.items() if k in ("llamacpp", "fake")})
    with pytest.raises(EngineMissing, match="xllamacpp"):
        choose_engine(MODEL, MACHINE)


def test_an_address_that_cannot_be_read_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "ftp://there")
    served = ModelInfo(name="m", path="m", format="hub")
    with pytest.raises(SettingsError, match="ftp://there"):
        choose_engine(served, MACHINE, "openai")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert choose_engine(served, MACHINE, "openai")[0].name == "openai"
