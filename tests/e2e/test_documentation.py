"""Every example of README and docs/ is run as written, or rehearsed, or read by the real parser with a reason given here.

Korean pages show the same examples as the English ones (tested), so that each is run once. Every reason below must
still be needed by some example, and a program nobody listed fails.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from llmopt.cli.app import COMMANDS
from llmopt.config.settings import ENGINE_VARIABLES, SPECS
from llmopt.engines.doctor import DRIVERS
from llmopt.records import ENGINE_GROUP, EVALUATOR_GROUP
from tests.e2e.conftest import CommandLine
from tests.e2e.examples import (
    OPTION,
    ROOT,
    Command,
    all_commands,
    blocks,
    command_of,
    options_of,
    pages,
    parse,
    shown,
    text_of,
)

QUICK = {"LLMOPT_FAKE_TIME_SCALE": "0.01"}


@dataclass(frozen=True)
class Rule:
    """How examples that match are treated: only ``parsed``, or run with ``added`` options; always for a reason."""

    pattern: str
    reason: str
    added: tuple[str, ...] | None = None
    codes: tuple[int, ...] = (0,)


SMALL = ("--dry-run", "--trials", "6", "--samples", "4")
RULES = (
    Rule(r"^serve ", "serves until it is stopped; tests/integration/test_serving.py starts and stops one"),
    Rule(r"^engines install", "fetches gigabytes; `nox -s heavy` does it"),
    Rule(r"^engines doctor ", "names an engine that is not installed here; tests/unit/test_engine_doctor.py"),
    Rule(r"^engines doctor$", "loads server modules", ("--quick",), (0, 5)),
    Rule(r"--cluster", "needs a Ray cluster; tests/e2e/test_cluster.py"),
    Rule(r"--url", "needs a server elsewhere; tests/e2e/test_api.py and the openai engine's contract tests"),
    Rule(r"--resume", "nothing was interrupted here; tests/e2e/test_optimize.py interrupts and resumes"),
    Rule(r"@engine=", "needs engines with environments of their own; `nox -s heavy` compares them"),
    Rule(r"^compare .*--baseline", "a scripted engine in place of a model", ("--dry-run",), (0, 8)),
    Rule(r"^compare", "a scripted engine in place of a model", ("--dry-run", "--samples", "4")),
    Rule(r"^benchmark", "a scripted engine in place of a model", ("--dry-run", "--samples", "2", "--repeats", "2")),
    Rule(r"^calibrate", "measures for half a minute even with a scripted engine; tests/unit/measure/test_calibrate.py"),
    Rule(r"^optimize", "a scripted engine in place of a model, a few trials", SMALL),
    Rule(r"^init", "the measurement of ten seconds is left out", ("--no-measure",)),
    Rule(r"^clean .*--all", "removes what the examples after it use; tests/e2e/test_clean.py"),
)
OTHERS = {
    "docker": "makes an image of an engine's files; its run is a heavy test",
    "git": "fetches sources",
    "cd": "the shell's own",
    "cmake": "builds an engine of another project",
    "hf": "the hub's own program, and needs a hub",
    "nox": "runs whole sessions; their names are checked",
    "bash": ".ci/run is what runs these tests",
}
STUDY = "STUDY"
READERS_OWN = {
    "my_score": "async def my_score(model, dataset, temperature): return 1 - abs((1.0 if temperature is None else temperature) - 0.3)",
    "my_rows": "my_rows = [{'question': str(n), 'answer': str(n)} for n in range(10)]",
}
"""Names an example leaves to its reader."""
ENGLISH = [page for page in pages() if not page.endswith(".ko.md")]
WITH_COMMANDS = [page for page in ENGLISH if any(c.arguments is not None for c in all_commands(page))]


def rule_for(command: Command) -> Rule | None:
    line = " ".join(command.arguments or ())
    return next((rule for rule in RULES if re.search(rule.pattern, line)), None)


# ── read by the real parser ────────────────────────────────────────────────────────────────────────────────────────


def test_the_parser_takes_every_command_of_every_page():
    refused = {}
    for command in (command for page in pages() for command in all_commands(page)):
        if command.arguments is None:
            continue
        try:
            parse(command.arguments)
        except click.exceptions.Exit:
            pass  # --help and --version
        except click.ClickException as error:
            refused[str(command)] = error.format_message()
    assert refused == {}
    with pytest.raises(click.NoSuchOption):
        parse(("optimize", "--gone"))


NOT_READ = ("docs/measurements/", "docs/commands/", "docs/bad-input", "CHANGELOG", "CONTRIBUTING")
"""Pages whose spans name other programs' options, are made from ``--help``, or show words that must be refused."""


def test_options_named_in_prose_exist():
    unknown = []
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    every = frozenset().union(*map(options_of, COMMANDS), OPTION.findall(scripts)) | {"--version", "--lang"}
    for page in pages():
        if page.startswith(NOT_READ):
            continue
        prose = re.sub(r"^( *)```.*?^\1```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`([^`\n]+)`", prose):
            name = command_of(span.replace("\\|", "|"))
            if name is None and not span.startswith("--"):
                continue
            known = every if name is None else options_of(name) | {"--lang"}
            unknown += [f"{page}: {span}: {option}" for option in OPTION.findall(span) if option not in known]
    assert [line for line in unknown if not line.endswith(FOREIGN)] == []


FOREIGN = (
    "--no-index",
    "--find-links",
    "--extra-index-url",
    "--rm",
    "--filter",
    "--fit",
    "--platform",
    "--python-version",
)
"""Options of other programs that stand alone in a sentence."""


def test_other_programs_are_listed_and_what_they_are_given_exists():
    wrong, used = [], set()
    for command in (command for page in ENGLISH for command in all_commands(page)):
        if command.arguments is None:
            used.add(command.words[0])
            wrong += [f"{command}: {problem}" for problem in problems_of(command)]
    assert wrong == []
    assert OTHERS.keys() - {Path(word).name for word in used} == set(), "a reason that nothing needs any more"


def problems_of(command: Command) -> list[str]:
    """What in this repository such a command needs and does not find."""
    program, *rest = Path(command.words[0]).name, *command.words[1:]
    if program in ("python", "python3"):
        return _of_python(rest)
    if program in ("pip", "pip3"):
        return _of_pip(rest)
    if program == "export":
        name = rest[0].partition("=")[0]
        known = {spec.variable for spec in SPECS} | set(ENGINE_VARIABLES) | VARIABLES
        return [] if name in known else [f"{name} is no variable of ours"]
    if program == "nox":
        sessions = [rest[place + 1] for place, word in enumerate(rest) if word == "-s"]
        source = (ROOT / "noxfile.py").read_text(encoding="utf-8")
        return [f"no session {name}" for name in sessions if f"def {name}(" not in source]
    if program == "bash":
        return [] if (ROOT / rest[0]).is_file() else [f"no file {rest[0]}"]
    return [] if program in OTHERS else ["a program nobody listed"]


VARIABLES = {
    *("LLMOPT_HOME", "LLMOPT_WEIGHTS_CACHE", "SSL_CERT_FILE", "HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"),
    *("HF_HUB_OFFLINE", "PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_CERT"),
}


def _of_python(rest: list[str]) -> list[str]:
    if rest[0] == "-m":
        assert rest[1] in ("venv", "pytest", "pip"), rest
        return [] if rest[1] != "pytest" or (ROOT / rest[2]).is_dir() else [f"no folder {rest[2]}"]
    script = ROOT / rest[0]
    if not script.is_file():
        return [f"no file {rest[0]}"]
    source = script.read_text(encoding="utf-8")
    for name in re.findall(r"^from (\w+) import", source, re.MULTILINE):
        beside = script.with_name(f"{name}.py")
        source += beside.read_text(encoding="utf-8") if beside.is_file() else ""
    return [f"no option {word}" for word in rest if word.startswith("--") and f'"{word}"' not in source]


def _of_pip(rest: list[str]) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wrong = [
        f"no file {after}" for word, after in itertools.pairwise(rest) if word == "-r" and not (ROOT / after).is_file()
    ]
    for word in rest:
        extras = re.fullmatch(r"(?:\.|llmopt)\[([\w,-]+)\]", word)
        names = extras[1].split(",") if extras else []
        wrong += [f"no extra {name}" for name in names if name not in project["optional-dependencies"]]
    return wrong


# ── run ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rehearsals() -> dict[str, Command]:
    """For each rule with a scripted engine its example with most words; that the parser takes the others is tested."""
    found: dict[str, Command] = {}
    for command in (command for page in WITH_COMMANDS for command in all_commands(page)):
        rule = rule_for(command) if command.arguments else None
        if rule is not None and "--dry-run" in (rule.added or ()):
            known = found.get(rule.pattern)
            if known is None or len(command.words) > len(known.words):
                found[rule.pattern] = command
    return found


REHEARSALS = rehearsals()


@pytest.fixture(scope="module")
def template(tmp_path_factory, gguf_bytes, safetensors_bytes):
    """A workspace with everything the examples name: model files, questions, a study STUDY and a result.json.

    The study is an example of ``optimize`` and the result one of ``benchmark``, as the pages show them.
    """
    folder, runtime = tmp_path_factory.mktemp("t"), tmp_path_factory.mktemp("r")
    for name in ("model", "my-model-Q4_K_M", "m", "a", "b"):
        (folder / f"{name}.gguf").write_bytes(gguf_bytes(TINY, [("token_embd.weight", (64, 32), 0)]))
    (folder / "my-model").mkdir()
    (folder / "my-model" / "config.json").write_text(json.dumps(TINY_CONFIG), encoding="utf-8")
    (folder / "my-model" / "model.safetensors").write_bytes(safetensors_bytes({"w": ("F16", [64, 64], 8192)}))
    rows = [{"question": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(24)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for name in ("questions.jsonl", "my-questions.jsonl"):
        (folder / name).write_text(lines, encoding="utf-8")
    line = CommandLine(folder, runtime)
    for kind, name in (("^optimize", STUDY), ("^benchmark", "base")):
        command = REHEARSALS[kind]
        ran = line.run(*command.arguments, *rule_for(command).added, "--name", name, env={**QUICK, **command.env})
        assert ran.code == 0, ran.err
    shutil.copy(folder / "optimization_results" / "base" / "result.json", folder / "result.json")
    line.wait_until_clean()
    line.close()
    return folder


TINY = {
    "general.architecture": "llama", "general.name": "tiny", "llama.block_count": 1, "llama.context_length": 512,
    "llama.embedding_length": 64, "llama.attention.head_count": 2, "llama.attention.head_count_kv": 2,
    "llama.feed_forward_length": 128, "tokenizer.ggml.tokens": ["a", "b"], "general.file_type": 0,
}  # fmt: skip
TINY_CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 64,
    "max_position_embeddings": 512, "torch_dtype": "float16",
}  # fmt: skip


@pytest.mark.parametrize("pattern", [kind for kind in REHEARSALS if "compare" in kind])
def test_a_comparison_of_every_kind_runs_as_shown(pattern, template, cli):
    """Studies and benchmarks are run as shown to make the workspace of all examples."""
    shutil.copytree(template, cli.folder, dirs_exist_ok=True)
    command = REHEARSALS[pattern]
    rule = rule_for(command)
    ran = cli.run(*command.arguments, *rule.added, env={**QUICK, **command.env})
    assert ran.code in rule.codes, ran.err
    assert "Traceback" not in ran.err
    cli.wait_until_clean()


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_other_command_of_a_page_runs_as_written(page, template, inline):
    shutil.copytree(template, inline.folder, dirs_exist_ok=True)
    old = [block.text for block in blocks(page) if block.language == "json" and '"models"' in block.text]
    if old:
        (inline.folder / "llm_config.json").write_text(old[0], encoding="utf-8")
    wrong = {}
    for command in all_commands(page):
        rule = rule_for(command) if command.arguments else None
        if not command.arguments or (rule is not None and (rule.added is None or "--dry-run" in rule.added)):
            continue
        ran = inline.run(*command.arguments, *(rule.added or () if rule else ()), env=command.env)
        if ran.code not in (rule.codes if rule else (0,)):
            wrong[str(command)] = (ran.code, ran.err[-1500:])
    assert wrong == {}


def test_every_reason_is_needed():
    used = {rule_for(command) for page in WITH_COMMANDS for command in all_commands(page) if command.arguments}
    assert [rule for rule in RULES if rule not in used] == []


PYTHON = [block for page in ENGLISH for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=[f"{block.page}:{block.line}" for block in PYTHON])
def test_every_python_example_runs(block, cli):
    (cli.folder / "config").mkdir()
    given = [source for name, source in READERS_OWN.items() if re.search(rf"\b{name}\b", block.text)]
    script = cli.folder / "example.py"
    script.write_text("\n".join([*given, block.text]), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=cli.folder,
        env=cli.environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr


def test_entry_points_shown_are_those_that_are_read():
    shown_groups = set()
    for block in (block for page in ENGLISH for block in blocks(page) if block.language == "toml"):
        shown_groups |= tomllib.loads(block.text)["project"]["entry-points"].keys()
    assert shown_groups == {ENGINE_GROUP, EVALUATOR_GROUP}


def test_the_old_configuration_of_the_guide_becomes_what_the_guide_says(cli):
    (old,) = [block.text for block in blocks("docs/guide.md") if block.language == "json"]
    (cli.folder / "llm_config.json").write_text(old, encoding="utf-8")
    ran = cli.run("init", "--force", "--no-measure")
    assert ran.code == 0, ran.err
    settings = json.loads((cli.folder / "config" / "settings.json").read_text(encoding="utf-8"))
    models = json.loads((cli.folder / "config" / "models.json").read_text(encoding="utf-8"))["models"]
    assert (settings["method"], settings["trials"], settings["timeout"]) == ("gp", 40, 1800)
    (entry,) = models if isinstance(models, list) else [{"name": name, **one} for name, one in models.items()]
    assert (entry["name"], entry["model_type"], entry["dtype"]) == ("qwen", "vllm", "bfloat16")
    assert entry["inference"]["temperature"] == pytest.approx(0.5)
    assert list(cli.folder.glob("llm_config.json.bak*"))


# ── both languages, and what the guide must name ───────────────────────────────────────────────────────────────────

PAIRS = [
    (page, ko)
    for page in ENGLISH
    if (ROOT / (ko := page.removesuffix(".md") + ".ko.md")).exists() and "/measurements/" not in page
]
"""Records of measurements have a Korean summary, not a translation."""


@pytest.mark.parametrize(("page", "korean"), PAIRS)
def test_both_languages_show_the_same_examples(page, korean):
    assert [(b.language, shown(b)) for b in blocks(korean)] == [(b.language, shown(b)) for b in blocks(page)]
    for one, other in ((page, korean), (korean, page)):
        if "/" in one or one.startswith("README"):
            assert f"({Path(other).name})" in text_of(one), f"{one} does not lead to {other}"


@pytest.mark.parametrize("page", ["docs/guide.md", "docs/guide.ko.md"])
def test_the_guide_names_every_command_setting_variable_and_driver(page):
    text = text_of(page)
    suffix = ".ko.md" if page.endswith(".ko.md") else ".md"
    assert [name for name in COMMANDS if f"(commands/{name}{suffix})" not in text] == []
    names = [spec.name for spec in SPECS] + list(ENGINE_VARIABLES)
    assert [name for name in names if f"`{name}`" not in text] == []
    least = [".".join(f"{part:02d}" if place else str(part) for place, part in enumerate(v)) for v in DRIVERS.values()]
    assert [version for version in least if version not in text] == []


def anchor(heading: str) -> str:
    words = re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower())
    return re.sub(r"\s", "-", words.strip())


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page):
    broken = []
    prose = re.sub(r"^( *)```.*?^\1```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, place = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        if not path.exists():
            broken.append(target)
        elif place and path.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            if place not in map(anchor, headings):
                broken.append(target)
    assert broken == []
