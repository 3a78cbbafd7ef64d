"""Spaces: legal configurations listed, drawn, checked, and as Optuna sees them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmopt.errors import UsageError
from llmopt.records import InferenceParams, Parameter
from llmopt.search.proposer_optuna import distribution, parameters_of, value_of
from llmopt.search.space import Space, grid_values

DEFAULTS = {"threads": 2, "flash": "auto", "kv": "f16", "alias": "model"}


def llama_space(**changes) -> Space:
    parameters = [
        Parameter(name="temperature", level="request", values=(0.0, 0.3, 1.0), ordinal=True),
        Parameter(name="kv", level="launch", values=("f16", "q8_0"), only_if={"flash": ("on",)}),
        Parameter(name="threads", level="launch", values=(1, 2, 4), ordinal=True),
        Parameter(name="flash", level="launch", values=("on", "off")),
    ]
    options = {"engine": "fake", "defaults": DEFAULTS, "request_defaults": InferenceParams(max_tokens=64), **changes}
    return Space(parameters, **options)


def test_configurations_are_complete_and_inactive_settings_keep_their_default():
    space = llama_space()
    found = list(space.configurations())
    # 3 threads × (flash on with 2 kv + flash off) × 3 temperatures
    assert len(found) == space.count() == 3 * 3 * 3
    assert len({c.key for c in found}) == len(found)
    for c in found:
        assert set(c.launch) == set(DEFAULTS)
        assert c.launch["alias"] == "model"
        assert c.request.max_tokens == 64
        if c.launch["flash"] == "off":
            assert c.launch["kv"] == "f16"


def test_configurations_of_one_launch_follow_each_other():
    keys = [c.launch_key for c in llama_space().configurations()]
    starts = [key for key, before in zip(keys, [None, *keys], strict=False) if key != before]
    assert len(starts) == len(set(starts))


def test_a_conflict_removes_its_combinations():
    space = llama_space(conflict=lambda s: "llamacpp.rule" if s["threads"] == 4 and s["kv"] == "q8_0" else None)
    assert space.count() == 27 - 3
    broken = space.configuration({"threads": 4, "flash": "on", "kv": "q8_0", "temperature": 0.0})
    assert space.problem(broken).key == "llamacpp.rule"
    with pytest.raises(UsageError) as caught:
        space.check(broken)
    assert "llamacpp.rule" in caught.value.what


def test_problems_of_enqueued_configurations_are_named():
    space = llama_space()
    good = space.configuration({"threads": 3, "flash": "on", "temperature": 0.7})
    assert space.problem(good) is None  # off the grid, but a size is a size
    bad = space.configuration({"flash": "perhaps"})
    assert space.problem(bad).parameter == "flash"
    unknown = space.configuration({})
    unknown = type(unknown)(engine="fake", launch={**unknown.launch, "gpu_layers": 3}, request=unknown.request)
    assert space.problem(unknown).parameter == "gpu_layers"
    other = type(unknown)(engine="vllm", launch=good.launch, request=good.request)
    assert space.problem(other).key == "search.other_engine"
    for problematic in (bad, unknown, other):
        with pytest.raises(UsageError) as caught:
            space.check(problematic)
        assert caught.value.what
        assert caught.value.next_step


def test_an_assignment_names_only_what_is_active():
    space = llama_space()
    off = space.configuration({"threads": 1, "flash": "off", "kv": "q8_0", "temperature": 0.3})
    assert space.assignment(off) == {"threads": 1, "flash": "off", "temperature": 0.3}


def test_none_is_a_value_of_a_request_setting():
    space = Space([Parameter(name="top_k", level="request", values=(None, 10), ordinal=False)], engine="fake")
    assert [c.request.top_k for c in space.configurations()] == [None, 10]
    assert [space.assignment(c) for c in space.configurations()] == [{"top_k": None}, {"top_k": 10}]
    assert all(space.problem(c) is None for c in space.configurations())


@pytest.mark.parametrize(
    "parameters",
    [
        [Parameter(name="a", level="launch", values=(1,)), Parameter(name="a", level="request", values=(1,))],
        [Parameter(name="a", level="launch", values=(1,), only_if={"b": (1,)})],
        [
            Parameter(name="a", level="launch", values=(1,), only_if={"b": (1,)}),
            Parameter(name="b", level="launch", values=(1,), only_if={"a": (1,)}),
        ],
        [
            Parameter(name="a", level="launch", values=(1,), only_if={"top_k": (1,)}),
            Parameter(name="top_k", level="request", values=(1,)),
        ],
        [Parameter(name="no_such_field", level="request", values=(1,))],
    ],
)
def test_spaces_that_make_no_sense_are_programming_errors(parameters):
    with pytest.raises(ValueError):
        Space(parameters, engine="fake")


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        (Parameter(name="p", level="launch", low=0.5, high=1.5, step=0.5), (0.5, 1.0, 1.5)),
        (Parameter(name="p", level="launch", low=0.1, high=0.3, step=0.1), (0.1, 0.2, 0.3)),
        (Parameter(name="p", level="launch", low=1, high=16, log=True, integer=True), (1, 2, 4, 8, 16)),
        (Parameter(name="p", level="launch", low=0.0, high=1.0), (0.0, 0.25, 0.5, 0.75, 1.0)),
        (Parameter(name="p", level="launch", low=3, high=3), (3,)),
    ],
)
def test_ranges_have_grid_values(parameter, values):
    assert grid_values(parameter) == pytest.approx(values)


def test_the_fingerprint_tells_spaces_apart():
    assert llama_space().fingerprint == llama_space().fingerprint
    assert llama_space().fingerprint != llama_space(defaults={**DEFAULTS, "alias": "other"}).fingerprint


def test_a_space_without_parameters_has_one_configuration():
    space = Space([], engine="fake", defaults=DEFAULTS)
    assert space.count() == 1
    assert space.draw_launch(random.Random(0)) == {}


VALUES = st.lists(st.integers(0, 50), min_size=1, max_size=4, unique=True).map(tuple)


@st.composite
def spaces(draw) -> Space:
    parameters = []
    for i in range(draw(st.integers(1, 4))):
        only_if = {}
        if i and draw(st.booleans()):
            parent = parameters[draw(st.integers(0, i - 1))]
            if parent.values:
                only_if = {parent.name: tuple(draw(st.sets(st.sampled_from(parent.values), min_size=1)))}
        kind = draw(st.sampled_from(["list", "ordinal", "float", "log"]))
        if kind in ("list", "ordinal"):
            parameters.append(
                Parameter(name=f"p{i}", level="launch", values=draw(VALUES), ordinal=kind == "ordinal", only_if=only_if)
            )
        else:
            low = draw(st.floats(0.01, 10))
            parameters.append(
                Parameter(
                    name=f"p{i}",
                    level="launch",
                    low=low,
                    high=low + draw(st.floats(0, 10)),
                    log=kind == "log",
                    only_if=only_if,
                )
            )
    parameters.append(Parameter(name="top_k", level="request", values=draw(VALUES), ordinal=True))
    defaults = {p.name: -1 for p in parameters if p.level == "launch"}
    forbidden = draw(st.integers(0, 50))
    return Space(
        draw(st.permutations(parameters)),
        engine="fake",
        defaults=defaults,
        conflict=lambda s: "rule" if s["p0"] == forbidden else None,
    )


@given(spaces(), st.integers(0, 1000))
@settings(max_examples=150)
def test_everything_listed_or_drawn_is_legal_and_reads_back(space, seed):
    listed = [c for c, _ in zip(space.configurations(), range(30), strict=False)]
    source = random.Random(seed)
    drawn = space.draw_launch(source)
    if drawn is not None:
        listed.append(space.configuration(space.draw_request(drawn, source)))
    for configuration in listed:
        assert space.problem(configuration) is None
        assert space.configuration(space.assignment(configuration)) == configuration


@given(spaces())
@settings(max_examples=150)
def test_optuna_parameters_stand_for_the_same_configuration(space):
    for configuration, _ in zip(space.configurations(), range(20), strict=False):
        found = parameters_of(space, configuration)
        assert found is not None
        for name, suggested in found.items():
            kind = distribution(space.by_name[name])
            assert kind._contains(kind.to_internal_repr(suggested))
        values = {name: value_of(space.by_name[name], suggested) for name, suggested in found.items()}
        back = space.configuration(values)
        assert back.request == configuration.request
        assert back.launch == pytest.approx(configuration.launch, abs=1e-6)


def test_a_size_off_the_list_is_seen_as_the_nearest_and_a_stranger_not_at_all():
    space = llama_space()
    assert parameters_of(space, space.configuration({"threads": 3, "flash": "off", "temperature": 0.9})) == {
        "threads": 1, "flash": "off", "temperature": 2,
    }  # fmt: skip
    assert parameters_of(space, space.configuration({"threads": 3, "flash": "auto", "temperature": 0.9})) is None
