"""What every engine of the registry keeps to, ours and others'; one class, run against each of them."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from llmopt.engines.base import Engine, RunFolder
from llmopt.engines.registry import engine_names, get_engine
from llmopt.engines.sizing import active_names
from llmopt.errors import SettingsError
from llmopt.messages import t
from llmopt.records import (
    Cpu,
    Device,
    DeviceType,
    Endpoint,
    Hardware,
    HostMemory,
    InferenceParams,
    LaunchPlan,
    Load,
    ModelInfo,
    Settings,
    Strategy,
    Task,
)
from llmopt.runtime.environment import TELEMETRY_OFF, child_environment

HUB_CLIENTS = ("vllm", "sglang", "transformers")
KEY = "k3y-that-must-never-show"
SOCKET = "/run/user/1/llmopt-1/r/e.sock"
GIB = 1 << 30


def machine(*, cores: float = 2, physical: int = 2, ram_gib: int = 16, gpu_gib: tuple[int, ...] = ()) -> Hardware:
    devices = tuple(
        Device(
            index=index,
            uuid=f"GPU-{index}",
            vendor="nvidia",
            kind=DeviceType.CUDA,
            name="Test GPU",
            total_bytes=size * GIB,
            free_bytes=size * GIB,
            compute_capability=(8, 9),
        )
        for index, size in enumerate(gpu_gib)
    )
    cpu = Cpu(
        model="test",
        architecture="x86_64",
        physical_cores=physical,
        logical_cores=2 * physical,
        usable_cores=cores,
        features=("avx2", "avx512f", "avx512_bf16"),
    )
    memory = HostMemory(total_bytes=ram_gib * GIB, available_bytes=ram_gib * GIB)
    return Hardware(cpu=cpu, memory=memory, devices=devices, system="Linux")


MACHINES = {
    "laptop": machine(),
    "half a core": machine(cores=0.5, physical=1, ram_gib=2),
    "server": machine(cores=64, physical=32, ram_gib=256),
    "one GPU": machine(cores=8, physical=8, gpu_gib=(8,)),
    "two GPUs": machine(cores=32, physical=16, ram_gib=128, gpu_gib=(24, 24)),
}
TASKS = {
    "four streams": Task(load=Load(streams=4), max_tokens=128, prompt_tokens=300),
    "one stream": Task(load=Load(streams=1), max_tokens=512, prompt_tokens=1000),
    "by rate": Task(load=Load(streams=None, rate=2.0, arrival="poisson"), max_tokens=64, prompt_tokens=64),
    "many streams": Task(load=Load(streams=48), max_tokens=100, prompt_tokens=100),
    "prefix cache": Task(load=Load(streams=4), max_tokens=128, prompt_tokens=300, prefix_cache=True),
}
SHAPE = {
    "layers": 24,
    "hidden_size": 896,
    "heads": 14,
    "kv_heads": 2,
    "head_dim": 64,
    "context_length": 32768,
    "parameters": 494_000_000,
}
MODELS = {
    "gguf": ModelInfo(
        name="demo 한국어/0.5b", path="/weights/demo model.gguf", format="gguf", weight_bytes=491 << 20, **SHAPE
    ),
    "safetensors": ModelInfo(name="demo", path="/weights/demo", format="safetensors", weight_bytes=988 << 20, **SHAPE),
    "hub": ModelInfo(name="owner/demo", path="owner/demo", format="hub"),
}


def model_for(engine: Engine) -> ModelInfo:
    return next(model for model in MODELS.values() if engine.supports(model) is None)


def run_folder(engine: Engine, folder: Path) -> RunFolder:
    if engine.transport == "socket":
        endpoint = Endpoint(model="", socket_path=SOCKET, api_key=KEY)
    else:
        endpoint = Endpoint(model="", host="127.0.0.1", port=43210, api_key=KEY)
    return RunFolder(folder=folder, endpoint=endpoint)


def starts(engine: Engine, model: ModelInfo, hardware: Hardware, task: Task) -> list[Settings]:
    presets = [engine.preset(model, hardware, task, strategy) for strategy in (None, *Strategy)]
    return [engine.baseline(model, hardware, task), *presets]


def everything(plan: LaunchPlan) -> str:
    return json.dumps([plan.argv, dict(plan.env), plan.command]) + repr(plan) + repr(plan.endpoint)


NOT_PRINTED = frozenset(
    {
        *("--host", "--port", "--uds", "--api-key", "--api-key-file"),  # where it listens, and for whom
        *("--seed", "--random-seed", "--default-seed"),  # measured requests repeat; users' need not
        *("--enable-metrics", "--metrics", "--slots", "--disable-uvicorn-access-log"),  # what only we look at
        *("--cors-origins", "--no-cors-credentials", "--no-ui", "--offline", "--threads-http"),
    }
)
"""Options a measured launch has and a printed command may lack: none of them changes speed, memory or fixed answers."""


def settings_in(argv: tuple[str, ...]) -> dict[str, list[str]]:
    """Option → its words, without those that are not printed."""
    found: dict[str, list[str]] = {}
    last = ""
    for word in argv:
        if word.startswith("--"):
            last = word
            found[last] = []
        elif last:
            found[last].append(word)
    return {name: words for name, words in found.items() if name not in NOT_PRINTED}


def environment_in(command: tuple[str, ...]) -> dict[str, str]:
    """What the leading ``env`` of a printed command sets."""
    if command[:1] != ("env",):
        return {}
    words = itertools.takewhile(lambda word: "=" in word, command[1:])
    return dict(word.split("=", 1) for word in words)


cases = pytest.mark.parametrize(
    ("hardware", "task"),
    [pytest.param(MACHINES[m], TASKS[k], id=f"{m}, {k}") for m, k in itertools.product(MACHINES, TASKS)],
)


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that somebody else runs needs to be told where, and its key."""
    monkeypatch.setenv("OPENAI_BASE_URL", "https://models.example/api/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize("name", engine_names())
class TestEngineContract:
    def test_is_an_engine_and_says_how_it_is_reached(self, name: str) -> None:
        engine = get_engine(name)
        assert isinstance(engine, Engine)
        assert engine.name == name
        assert engine.transport in ("socket", "port", "remote")
        assert isinstance(engine.default_sampling, InferenceParams)
        assert engine.request_settings <= InferenceParams.__dataclass_fields__.keys()
        assert engine.default_sampling.given().keys() <= engine.request_settings
        assert all(isinstance(theirs, str) and theirs for theirs in engine.metric_names.values())

    def test_installation_is_told_or_its_absence_explained(self, name: str) -> None:
        installation = get_engine(name).installation()
        assert installation.engine == name
        if installation.available:
            assert installation.why_not is None
        else:
            assert installation.why_not is not None
            assert all(t(installation.why_not, lang=lang) for lang in ("ko", "en"))

    def test_supports_some_model_and_explains_the_others(self, name: str) -> None:
        engine = get_engine(name)
        answers = [engine.supports(model) for model in MODELS.values()]
        assert None in answers
        assert all(t(answer, lang=lang) for answer in answers if answer is not None for lang in ("ko", "en"))

    @cases
    def test_parameters_are_legal_and_hold_baseline_and_presets(
        self, name: str, hardware: Hardware, task: Task
    ) -> None:
        engine = get_engine(name)
        model = model_for(engine)
        parameters = engine.parameters(model, hardware, task)
        by_name = {parameter.name: parameter for parameter in parameters}
        assert len(by_name) == len(parameters)
        assert not by_name.keys() & InferenceParams.__dataclass_fields__.keys()
        for parameter in parameters:
            assert parameter.level == "launch"
            assert len(parameter.values) == len(set(parameter.values)) > 0
            if parameter.ordinal:
                assert list(parameter.values) == sorted(parameter.values)
            for other, wanted in parameter.only_if.items():
                assert set(wanted) <= set(by_name[other].values)
                assert list(by_name).index(other) < list(by_name).index(parameter.name)
        for start in starts(engine, model, hardware, task):
            assert set(start) == set(active_names(parameters, start))
            assert all(value in by_name[setting].values for setting, value in start.items()), start
            assert engine.conflict(start, model, hardware, task) is None
            assert json.loads(json.dumps(start)) == dict(start)

    @cases
    def test_every_value_makes_a_plan_of_its_own(
        self, name: str, hardware: Hardware, task: Task, tmp_path: Path
    ) -> None:
        engine = get_engine(name)
        model = model_for(engine)
        parameters = engine.parameters(model, hardware, task)
        first = {parameter.name: parameter.values[0] for parameter in parameters}
        baseline = dict(engine.baseline(model, hardware, task))
        for parameter in parameters:
            started = set()
            for value in parameter.values:
                wish = {**first, **baseline, **{k: v[0] for k, v in parameter.only_if.items()}, parameter.name: value}
                settings = {active: wish[active] for active in active_names(parameters, wish)}
                assert settings[parameter.name] == value
                plan = engine.plan(model, settings, run_folder(engine, tmp_path))
                assert plan.settings == settings
                started.add(json.dumps([plan.argv, sorted(plan.env.items())]))
            assert len(started) == len(parameter.values), f"{parameter.name} is a dead setting"

    @cases
    def test_random_settings_are_planned_or_refused_with_a_reason(
        self, name: str, hardware: Hardware, task: Task, tmp_path: Path
    ) -> None:
        engine = get_engine(name)
        model = model_for(engine)
        parameters = engine.parameters(model, hardware, task)
        draw = random.Random(f"{name}{task}")
        for _ in range(40):
            wish = {parameter.name: draw.choice(parameter.values) for parameter in parameters}
            settings = {active: wish[active] for active in active_names(parameters, wish)}
            reason = engine.conflict(settings, model, hardware, task)
            if reason is None:
                assert engine.plan(model, settings, run_folder(engine, tmp_path)).settings == settings
            else:
                assert all(t(reason, lang=lang) for lang in ("ko", "en"))

    def test_plan_is_pure_and_deterministic(self, name: str, tmp_path: Path) -> None:
        engine, again = get_engine(name), get_engine(name)
        model = model_for(engine)
        settings = engine.baseline(model, MACHINES["laptop"], TASKS["four streams"])
        before = dict(settings)
        plans = [one.plan(model, settings, run_folder(engine, tmp_path)) for one in (engine, engine, again)]
        assert plans[0] == plans[1] == plans[2]
        assert settings == before
        assert list(tmp_path.iterdir()) == []

    def test_plan_keeps_the_key_to_itself(self, name: str, tmp_path: Path) -> None:
        engine = get_engine(name)
        model = model_for(engine)
        settings = engine.baseline(model, MACHINES["laptop"], TASKS["four streams"])
        plan = engine.plan(model, settings, run_folder(engine, tmp_path))
        assert KEY not in everything(plan)
        if plan.endpoint.api_key is not None:
            assert plan.endpoint.api_key == KEY
            assert engine.transport == "remote" or KEY in (plan.stdin or "")
        else:
            assert plan.stdin is None, "an engine without a key is told none"

    def test_nothing_is_reported_and_no_hub_is_asked_for_what_is_here(self, name: str, tmp_path: Path) -> None:
        engine = get_engine(name)
        model = model_for(engine)
        plan = engine.plan(
            model, engine.baseline(model, MACHINES["laptop"], TASKS["four streams"]), run_folder(engine, tmp_path)
        )
        environment = child_environment(plan.env, dict.fromkeys(TELEMETRY_OFF, "0"))
        assert TELEMETRY_OFF.items() <= environment.items()
        if name in HUB_CLIENTS and model.format != "hub":
            assert environment["HF_HUB_OFFLINE"] == "1"

    def test_plan_binds_exactly_where_it_was_told(self, name: str, tmp_path: Path) -> None:
        engine = get_engine(name)
        model = model_for(engine)
        settings = engine.baseline(model, MACHINES["laptop"], TASKS["four streams"])
        run = run_folder(engine, tmp_path)
        plan = engine.plan(model, settings, run)
        assert plan.engine == name
        assert plan.health_path.startswith("/")
        assert "0.0.0.0" not in everything(plan)
        if engine.transport == "socket":
            assert plan.endpoint.socket_path == SOCKET
            assert SOCKET in plan.argv
        elif engine.transport == "port":
            assert (plan.endpoint.host, plan.endpoint.port) == ("127.0.0.1", 43210)
            assert "127.0.0.1" in plan.argv
            assert "43210" in plan.argv
        assert SOCKET not in plan.command
        assert plan.endpoint.model
        if engine.transport != "remote":
            assert plan.endpoint.model in plan.argv

    @cases
    def test_a_copied_command_is_what_was_measured(
        self, name: str, hardware: Hardware, task: Task, tmp_path: Path
    ) -> None:
        engine = get_engine(name)
        model = model_for(engine)
        for settings in starts(engine, model, hardware, task):
            plan = engine.plan(model, settings, run_folder(engine, tmp_path))
            for command in (plan.command, plan.command_here):
                if not command:
                    continue
                assert settings_in(command) == settings_in(plan.argv)
                measured = {name: value for name, value in plan.env.items() if name != "PYTHONSAFEPATH"}
                assert environment_in(command) == measured
                assert model.path in command

    def test_socket_engines_can_also_take_a_port(self, name: str, tmp_path: Path) -> None:
        engine = get_engine(name)
        if engine.transport != "socket":
            pytest.skip("it has no socket")
        model = model_for(engine)
        settings = engine.baseline(model, MACHINES["laptop"], TASKS["four streams"])
        endpoint = Endpoint(model="", host="127.0.0.1", port=43210, api_key=KEY)
        plan = engine.plan(model, settings, RunFolder(folder=tmp_path, endpoint=endpoint))
        assert "127.0.0.1" in plan.argv
        assert "43210" in plan.argv

    def test_missing_and_unknown_settings_are_refused(self, name: str, tmp_path: Path) -> None:
        engine = get_engine(name)
        model = model_for(engine)
        baseline = dict(engine.baseline(model, MACHINES["laptop"], TASKS["four streams"]))
        run = run_folder(engine, tmp_path)
        with pytest.raises(SettingsError, match="no_such_setting"):
            engine.plan(model, {**baseline, "no_such_setting": 1}, run)
        for missing in list(baseline)[:1]:
            del baseline[missing]
            with pytest.raises(SettingsError, match=missing):
                engine.plan(model, baseline, run)

    def test_request_fields_are_plain_data(self, name: str) -> None:
        engine = get_engine(name)
        settings = engine.baseline(model_for(engine), MACHINES["laptop"], TASKS["four streams"])
        extra = dict(engine.request_extra(settings))
        assert json.loads(json.dumps(extra)) == extra
        assert isinstance(engine.remembers(settings), bool)
