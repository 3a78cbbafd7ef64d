"""The documented interface, flag by flag, against the parser: existence, kind, default, and how a value is passed on."""

import click
import pytest

from llmopt.cli.app import cli
from llmopt.config.settings import SPECS
from llmopt.study.request import METHODS

FLAG, TEXT, WHOLE, NUMBER, MANY = "flag", "text", "whole", "number", "many"
DOCUMENTED = {
    "init": {"--auto-detect": FLAG, "--force": FLAG},
    "status": {"--detailed": FLAG, "--json": FLAG},
    "optimize": {
        "--model": TEXT, "--dataset": TEXT, "--trials": WHOLE, "--safe": FLAG, "--method": TEXT, "--timeout": NUMBER,
        "--debug": FLAG, "--strategy": TEXT, "--objective": MANY, "--constraint": MANY, "--resume": TEXT,
        "--json": FLAG, "--engine": TEXT, "--streams": WHOLE, "--rate": NUMBER, "--price-per-hour": NUMBER,
    },
    "benchmark": {"--model": TEXT, "--dataset": TEXT, "--samples": WHOLE, "--streams": WHOLE, "--rate": NUMBER,
                  "--engine": TEXT, "--json": FLAG, "--price-per-hour": NUMBER},
    "compare": {"--models": MANY, "--dataset": TEXT, "--fail-if-worse": TEXT, "--json": FLAG, "--price-per-hour": NUMBER},
    "list": {"--type": TEXT, "--json": FLAG, "--filter": MANY},
    "clean": {"--all": FLAG, "--cache": FLAG, "--results": FLAG, "--logs": FLAG, "--yes": FLAG},
}  # fmt: skip
CHOICES = {
    ("list", "--type"): {"results", "models", "datasets", "errors", "engines"},
    ("optimize", "--strategy"): {"accuracy", "creativity", "speed"},
}
DEFAULTS = {"model": "qwen2.5-coder-0.5b", "dataset": "korean_math", "engine": None, "streams": 4, "trials": 30,
            "timeout": None, "method": "auto", "price_per_hour": None}  # fmt: skip


def command(name):
    found = cli.get_command(click.Context(cli), name)
    assert found is not None, name
    return found


def options(name):
    return {name: param for param in command(name).params for name in param.opts}


def kind_of(param):
    if param.multiple:
        return MANY
    if param.is_flag:
        return FLAG
    return {click.INT: WHOLE, click.FLOAT: NUMBER}.get(param.type, TEXT)


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_every_documented_flag_is_there_and_takes_what_it_should(name):
    there = options(name)
    assert {flag: kind_of(there[flag]) for flag in DOCUMENTED[name] if flag in there} == DOCUMENTED[name]


@pytest.mark.parametrize(("name", "flag"), sorted(CHOICES))
def test_documented_choices(name, flag):
    assert set(options(name)[flag].type.choices) == CHOICES[name, flag]


def test_documented_methods_and_defaults():
    assert {"tpe", "grid", "random"} <= set(METHODS)
    assert {spec.name: spec.default for spec in SPECS if spec.name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_nothing_is_chosen_where_nothing_is_given(name):
    """A flag left out is off or None: the value then comes from the settings, whose defaults are above."""
    with command(name).make_context(name, []) as ctx:
        for flag, param in options(name).items():
            if flag in DOCUMENTED[name] and (name, flag) != ("list", "--type"):
                assert ctx.params[param.name] in (None, False, ()), flag


def test_resume_and_models_take_values_or_none():
    assert options("optimize")["--resume"].flag_value == ""
    more = [param for param in command("compare").params if isinstance(param, click.Argument)]
    assert [param.nargs for param in more] == [-1]


def test_the_documented_lines_are_understood():
    lines = [
        "init --auto-detect", "init --force", "status", "status --detailed",
        "optimize --model M --dataset D --trials 5 --safe --method grid --timeout 60 --debug",
        "optimize --strategy speed --resume --json", "benchmark --model M --dataset D --samples 8",
        "compare --models A B --dataset D", "list --type models", "clean --all", "clean --cache", "clean --results",
        "clean --logs",
    ]  # fmt: skip
    for line in lines:
        name, *words = line.split()
        made = command(name)
        with made.make_context(name, list(words)) as ctx:
            assert ctx.params
