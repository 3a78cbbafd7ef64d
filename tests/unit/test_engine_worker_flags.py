"""The llama.cpp worker reads llama-server's command line: every option, near misses, and what "auto" means."""

import importlib.util
import sys
from types import ModuleType

import pytest

from llmopt.engines.probing import worker


def load(script: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script.removesuffix(".py"), worker(script))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


server = load("llamacpp_server.py")


def test_option_spellings_are_unique():
    names = [name for flag in server.FLAGS for name in flag.names]
    assert len(names) == len(set(names))


def test_values_are_read_and_the_last_one_wins():
    values = server.parse(
        ["-m", "a.gguf", "-t", "3", "--threads", "5", "-fa", "off", "--kv-unified", "--no-kv-unified"]
    )
    assert values["cpuparams.n_threads"] == 5
    assert values["flash_attn_type"] == "off"
    assert values["kv_unified"] is False


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-m", "a", "--paralel", "2"], "did you mean --parallel"),
        (["-m", "a", "--nothing-like-it"], "unknown option"),
        (["-m"], "needs a value"),
        (["-t", "2"], "-m MODEL is missing"),
        (["-m", "a", "-t", "two"], "--?t.*whole number"),
        (["-m", "a", "-b", "0"], "from 1 to"),
        (["-m", "a", "-ctk", "q9"], "expected one of f32"),
        (["-m", "a", "--fit", "maybe"], "expected one of on, off"),
        (["-m", "a", "--spec-type", "ngram-simple,magic"], "expected one of none"),
        (["-m", "a", "-sps", "x"], "expected a number"),
        (["-m", "a", "--chat-template-kwargs", "[1]"], "expected a JSON object"),
        (["-m", "a", "--chat-template-kwargs", "{"], "expected a JSON object"),
    ],
)
def test_wrong_command_lines_are_explained(argv, text):
    with pytest.raises(server.CommandLineError, match=text):
        server.parse(argv)


def test_automatic_values_are_written_out_as_the_server_takes_them():
    resolved = server.resolve(server.parse(["-m", "a.gguf"]))
    assert (resolved["n_parallel"], resolved["kv_unified"]) == (4, True)
    assert resolved["cpuparams.n_threads"] == resolved["cpuparams_batch.n_threads"] == server.physical_cores() >= 1
    chosen = server.resolve(server.parse(["-m", "a.gguf", "-np", "2", "-t", "3"]))
    assert (chosen["n_parallel"], chosen.get("kv_unified")) == (2, None)
    assert chosen["cpuparams_batch.n_threads"] == 3


def test_no_slots_are_refused():
    with pytest.raises(server.CommandLineError, match="0 slots"):
        server.resolve(server.parse(["-m", "a", "-np", "0"]))


def test_keys_come_from_a_file_and_are_never_empty(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# comment\nalpha\n\n beta \n", encoding="utf-8")
    assert server.read_keys(str(path)) == ["alpha", "beta"]
    path.write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(server.CommandLineError, match="no key"):
        server.read_keys(str(path))
    with pytest.raises(server.CommandLineError, match="No such file"):
        server.read_keys(str(tmp_path / "absent"))
