"""``init`` on a fresh machine, over an existing set-up, and over an old one."""

import json
import stat
from pathlib import Path

import pytest

OLD = {
    "models": {"큐원": {"hf_id": "Qwen/Qwen2.5-7B-Instruct", "type": "hf", "dtype": "fp16", "temperature": [0.0, 1.0]}},
    "optimization": {"method": "hyperopt", "n_trials": 40},
    "hf_token": "hf_abcdefghijklmnopqrst",
    "beam": 4,
}


def files(folder):
    """Everything but logs/, where a refusal is noted."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if name.parts[0] != "logs"}


@pytest.mark.parametrize("arguments", [("init",), ("init", "--auto-detect", "--no-measure", "--lang", "ko")])
def test_it_says_what_it_found_and_writes_the_settings(cli, arguments):
    ran = cli.run(*arguments)
    assert ran.code == 0, ran.err
    assert "CPU" in ran.out
    assert "llamacpp" in ran.out or "vllm" in ran.out
    written = json.loads((cli.folder / "config" / "settings.json").read_text(encoding="utf-8"))
    assert written["streams"] == 4
    assert written.get("lang") == ("ko" if "ko" in arguments else None)
    assert set(files(cli.folder)) == {str(Path("config", "settings.json"))}
    assert cli.run("status").code == 0


def test_json_has_every_default_with_its_reason(cli):
    ran = cli.run("init", "--auto-detect", "--json")
    assert ran.code == 0, ran.err
    facts = json.loads(ran.out)
    assert all(row["reason"] for row in facts["defaults"])
    assert facts["hardware"]["memory_bytes"] > 0
    assert facts["settings"]["streams"] == 4
    assert facts["measured"]["bandwidth_one"] > 1e8
    assert facts["measured"]["flops_all"] > 1e8
    again = cli.run("estimate", "qwen2.5-7b", "--engine", "llamacpp", "--json")
    assert json.loads(again.out)["rows"][0]["at_most_tokens_per_s"] > 0  # what was measured is used


def test_existing_settings_are_not_touched_without_force(cli):
    assert cli.run("init").code == 0
    path = cli.folder / "config" / "settings.json"
    path.write_text('{"trials": 7, "streams": 9}', encoding="utf-8")
    before = files(cli.folder)
    for lang in ("en", "ko"):
        ran = cli.run("--lang", lang, "init", "--auto-detect")
        assert ran.code == 3
        assert "--force" in ran.err
        assert "Traceback" not in ran.err
    assert files(cli.folder) == before
    assert cli.run("init", "--force").code == 0
    assert json.loads(path.read_text(encoding="utf-8")) | {"engine": "-"} == {"trials": 7, "streams": 9, "engine": "-"}
    (backup,) = (cli.folder / "config").glob("settings.json.bak-*")
    assert backup.read_text(encoding="utf-8") == '{"trials": 7, "streams": 9}'


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp949"])
def test_an_old_file_is_converted_once_with_a_backup(cli, encoding):
    old = cli.folder / "llm_config.json"
    old.write_bytes(json.dumps(OLD, ensure_ascii=False).encode(encoding))
    old.chmod(stat.S_IRUSR | stat.S_IWUSR)
    ran = cli.run("init", "--force", "--json")
    assert ran.code == 0, ran.err
    assert "hf_abcdef" not in ran.out + ran.err
    notes = {row["field"]: row for row in json.loads(ran.out)["converted"]}
    assert notes["beam"]["outcome"] == notes["hf_token"]["outcome"] == "dropped"
    assert notes["optimization.method"]["became"] == "tpe"
    models = json.loads((cli.folder / "config" / "models.json").read_text(encoding="utf-8"))["models"]
    assert models["큐원"]["inference"] == {"temperature": 0.5}
    settings = json.loads((cli.folder / "config" / "settings.json").read_text(encoding="utf-8"))
    assert (settings["method"], settings["trials"]) == ("tpe", 40)
    (backup,) = cli.folder.glob("llm_config.json.bak-*")
    assert backup.read_bytes() == old.read_bytes()
    assert stat.S_IMODE(backup.stat().st_mode) == stat.S_IMODE(old.stat().st_mode)

    edited = settings | {"trials": 12}
    (cli.folder / "config" / "settings.json").write_text(json.dumps(edited), encoding="utf-8")
    assert cli.run("init", "--force").code == 0
    assert json.loads((cli.folder / "config" / "settings.json").read_text(encoding="utf-8"))["trials"] == 12


def test_a_broken_old_file_changes_nothing(cli):
    assert cli.run("init").code == 0
    (cli.folder / "llm_config.json").write_text('{\n  "models": [\n    {"path": "a/b",}\n  ]\n}', encoding="utf-8")
    before = files(cli.folder)
    for lang, word in (("en", "line 3"), ("ko", "3행")):
        ran = cli.run("init", "--force", "--lang", lang)
        assert ran.code == 3
        assert word in ran.err
        assert "Traceback" not in ran.err
    assert files(cli.folder) == before


def test_without_force_an_old_file_is_only_mentioned(cli):
    (cli.folder / "llm_config.json").write_text(json.dumps(OLD), encoding="utf-8")
    ran = cli.run("init")
    assert ran.code == 0, ran.err
    assert "llm_config.json" in ran.out
    assert "method" not in json.loads((cli.folder / "config" / "settings.json").read_text(encoding="utf-8"))
