"""An engine inside a container: the plan of every engine, wrapped; nothing of it needs a container tool."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from llmopt.engines.base import Engine, RunFolder
from llmopt.engines.containers import TOOLS, Contained, ContainerImage
from llmopt.engines.probing import worker
from llmopt.engines.registry import get_engine
from llmopt.hardware.probe import probe
from llmopt.models.catalogue import built_in_models
from llmopt.models.draft import with_draft
from llmopt.records import Endpoint, Load, Task
from llmopt.runtime.environment import TELEMETRY_OFF

TASK = Task(load=Load(streams=2), max_tokens=64, prompt_tokens=128)
KEY = "the-secret-key-of-this-run"
UUIDS = ("GPU-aaaa", "GPU-bbbb")
MODEL = built_in_models()["qwen2.5-7b"].facts
MODELS = {
    "llamacpp": replace(MODEL, format="gguf", path="/data/models/qwen.gguf", weight_bytes=4 << 30),
    "vllm": replace(MODEL, format="safetensors", path="/data/models/qwen"),
    "sglang": replace(MODEL, format="safetensors", path="/data/models/qwen"),
    "transformers": replace(MODEL, format="safetensors", path="/data/models/qwen"),
}
RUN = RunFolder(folder=Path("/runs/vllm-0a1b"), endpoint=Endpoint(model="m", port=40123, api_key=KEY))


def contained(name: str, tool: str = "docker", gpus=UUIDS) -> Contained:
    return Contained(get_engine(name), ContainerImage(image="registry.test/engine:v9.1", tool=tool), gpus)


def plan_of(engine: Contained):
    model = MODELS[engine.name]
    return engine.plan(model, engine.preset(model, probe(), TASK, None), RUN)


def after(argv, option):
    return [value for name, value in itertools.pairwise(argv) if name == option]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", MODELS)
def test_the_plan_runs_the_image_and_is_reached_on_loopback_only(name, tool):
    engine = contained(name, tool)
    assert isinstance(engine, Engine)
    plan = plan_of(engine)
    assert plan.argv[:3] == (tool, "run", "--rm")
    run = plan.container  # what the guardian knows its processes by, and how it takes it away
    assert after(plan.argv, "--cidfile") == [run.id_file] == ["/runs/vllm-0a1b/container.id"]
    patience = ("--time", "0") if tool == "podman" else ()
    assert run.remove == (tool, "rm", "--force", *patience, *after(plan.argv, "--name"))
    assert after(plan.argv, "--publish") == ["127.0.0.1:40123:40123"]
    assert (plan.endpoint.host, plan.endpoint.port, plan.endpoint.socket_path) == ("127.0.0.1", 40123, None)
    image = plan.argv.index("registry.test/engine:v9.1")
    inside = plan.argv[image + 1 :]
    assert after(inside, "--host") == ["0.0.0.0"]
    assert after(inside, "--port") == ["40123"]
    assert after(plan.argv, "--name") == ["llmopt-vllm-0a1b"]
    assert plan.env == {}
    assert {f"{name}={value}" for name, value in TELEMETRY_OFF.items()} <= set(after(plan.argv, "--env"))


@pytest.mark.parametrize("name", MODELS)
def test_model_and_scripts_are_mounted_read_only_where_the_plan_names_them(name):
    plan = plan_of(contained(name))
    mounts = after(plan.argv, "--volume")
    assert all(mount.endswith(":ro") for mount in mounts)
    folder = "/data/models" if name == "llamacpp" else "/data/models/qwen"
    assert f"{folder}:{folder}:ro" in mounts
    scripts = str(worker(""))
    assert (f"{scripts}:{scripts}:ro" in mounts) == any(part.startswith(scripts) for part in plan.argv[-40:])
    hub = replace(MODELS[name], format="hub", path="org/name")
    if contained(name).supports(hub) is None:
        engine = contained(name)
        of_hub = engine.plan(hub, engine.preset(hub, probe(), TASK, None), RUN)
        assert not [mount for mount in after(of_hub.argv, "--volume") if "org" in mount]


def test_what_links_in_the_folder_lead_to_is_mounted_too(tmp_path):
    blobs, snapshot, draft = (tmp_path / name for name in ("blobs", "snapshots", "draft"))
    for folder in (blobs, snapshot, draft):
        folder.mkdir()
    (blobs / "0a1b").write_text("weights")
    (snapshot / "model.safetensors").symlink_to("../blobs/0a1b")
    small = replace(MODELS["vllm"], path=str(draft))
    model = with_draft(replace(MODELS["vllm"], path=str(snapshot)), small)
    engine = contained("vllm")
    plan = engine.plan(model, engine.preset(model, probe(), TASK, None), RUN)
    assert {f"{folder}:{folder}:ro" for folder in (blobs, snapshot, draft)} <= set(after(plan.argv, "--volume"))


@pytest.mark.parametrize("name", MODELS)
def test_the_key_is_in_no_argument_and_the_printed_command_needs_none(name):
    plan = plan_of(contained(name))
    assert KEY not in " ".join([*plan.argv, *plan.command, *plan.env.values()])
    if plan.stdin is not None:
        assert KEY in plan.stdin
        assert "--interactive" in plan.argv
    for own in ("--interactive", "--name", "--label", "--cidfile", "--api-key-file", "--api-key"):
        assert own not in plan.command
    assert shlex.split(shlex.join(plan.command)) == list(plan.command)


@pytest.mark.parametrize("name", MODELS)
def test_gpus_are_named_by_uuid(name):
    assert after(plan_of(contained(name)).argv, "--gpus") == ['"device=GPU-aaaa,GPU-bbbb"']
    podman = plan_of(contained(name, "podman")).argv
    assert after(podman, "--device")[: len(UUIDS)] == [f"nvidia.com/gpu={uuid}" for uuid in UUIDS]
    none = plan_of(contained(name, gpus=())).argv
    assert "--gpus" not in none
    assert not [part for part in none if "nvidia.com" in part]


def test_the_programs_are_those_of_the_images():
    entries = {name: after(plan_of(contained(name)).argv, "--entrypoint") for name in MODELS}
    assert entries == {
        "llamacpp": ["/app/llama-server"], "vllm": ["python3"], "sglang": ["python3"], "transformers": ["python3"],
    }  # fmt: skip
    llama = plan_of(contained("llamacpp")).argv
    assert llama[llama.index("registry.test/engine:v9.1") + 1] == "--model"
    vllm = plan_of(contained("vllm")).argv
    assert vllm[vllm.index("registry.test/engine:v9.1") + 1].endswith("keyed_main.py")


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.32.0", "v0.32.0"),
        ("vllm/vllm-openai", None),
        ("vllm/vllm-openai:latest", None),
        ("registry.test:5000/vllm", None),
        ("registry.test:5000/vllm:v1@sha256:abcd", "v1"),
    ],
)
def test_the_version_is_the_images_tag(image, version):
    assert ContainerImage(image=image).version == version


def test_a_setting_puts_an_engine_into_its_image(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMOPT_HOME", str(tmp_path))
    monkeypatch.setenv("LLMOPT_VLLM_IMAGE", "vllm/vllm-openai:v0.32.0")
    monkeypatch.setenv("LLMOPT_CONTAINER_TOOL", "podman")
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = get_engine("vllm")
    assert isinstance(engine, Contained)
    here = engine.installation()
    assert (here.available, here.why_not) == (False, "engines.container_tool_missing")
    assert not isinstance(get_engine("llamacpp"), Contained)
    tool = tmp_path / "podman"
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    here = engine.installation()
    assert (here.available, here.version) == (True, "v0.32.0")
