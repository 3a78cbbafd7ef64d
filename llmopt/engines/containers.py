"""An engine inside a container as a launch form: the engine's own plan, wrapped in ``docker run`` or ``podman run``.

The engine's file plans as ever; here its command line moves into an image. The model's folder and our stand-alone
scripts are mounted read-only, the port is published on loopback only, the key still comes by standard input, and GPUs
are named by UUID. The container carries the run's label, so that ``docker ps --filter label=llmopt.run`` finds it.

Its processes are children of the tool's own daemon: the guardian knows them by the id that the tool writes into the
run's folder, so that their memory is read as without a container, and has the container removed however it ended.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from llmopt.engines.base import Engine, Forgetful, Forgetting, InTurn, RunFolder
from llmopt.engines.probing import ask, worker
from llmopt.models.draft import draft_of
from llmopt.records import (
    ContainerRun,
    Hardware,
    InferenceParams,
    Installation,
    LaunchPlan,
    ModelInfo,
    Parameter,
    Settings,
    Strategy,
    Task,
)
from llmopt.runtime.environment import TELEMETRY_OFF

__all__ = ["TOOLS", "Contained", "ContainerImage", "contained_plan"]

TOOLS = ("docker", "podman", "nerdctl")
IN_IMAGE: Mapping[str, tuple[str, ...]] = {
    "llamacpp": ("/app/llama-server",),
    "vllm": ("python3",),
    "sglang": ("python3",),
    "transformers": ("python3",),
}
"""The program of an engine's official image that stands in for the one on this machine."""
SHARED_MEMORY = "2g"
"""Workers of one engine talk through /dev/shm, of which containers have 64 MB by default."""
STOP_S = 10
ID_NAME = "container.id"
AT_ONCE: Mapping[str, tuple[str, ...]] = {"podman": ("--time", "0")}
"""What keeps a tool from being patient where a container is removed by force; the others are not."""


@dataclass(frozen=True, kw_only=True)
class ContainerImage:
    """Where an engine lies: an image and the tool that runs it."""

    image: str
    tool: str = "docker"

    @property
    def version(self) -> str | None:
        """The image's tag, where it has one that says something."""
        tag = self.image.rpartition("@")[0] or self.image
        name, colon, found = tag.rpartition(":")
        return found if colon and "/" not in found and name and found != "latest" else None


class Contained:
    """An engine whose launches run in a container; everything else is the engine's own answer."""

    transport = "port"

    def __init__(self, engine: Engine, image: ContainerImage, gpu_uuids: Sequence[str] = ()) -> None:
        self._engine = engine
        self._image = image
        self._gpus = tuple(gpu_uuids)
        self.name = engine.name
        self.metric_names: Mapping[str, str] = engine.metric_names
        self.needs_weights = engine.needs_weights
        self.default_sampling: InferenceParams = engine.default_sampling
        self.request_settings = engine.request_settings

    def installation(self) -> Installation:
        """Whether the tool is here and answers; the image is fetched by it at the first launch."""
        tool = shutil.which(self._image.tool)
        if tool is None:
            return Installation(engine=self.name, available=False, why_not="engines.container_tool_missing")
        if ask(tool, "version") is None:
            return Installation(engine=self.name, available=False, why_not="engines.container_tool_silent")
        return Installation(
            engine=self.name,
            available=True,
            version=self._image.version,
            command=(tool, "run", self._image.image),
            build=f"{self._image.tool} {self._image.image}",
        )

    def supports(self, model: ModelInfo) -> str | None:
        """As the engine itself."""
        return self._engine.supports(model)

    def parameters(self, model: ModelInfo, hardware: Hardware, task: Task) -> tuple[Parameter, ...]:
        """As the engine itself."""
        return self._engine.parameters(model, hardware, task)

    def baseline(self, model: ModelInfo, hardware: Hardware, task: Task) -> Settings:
        """As the engine itself."""
        return self._engine.baseline(model, hardware, task)

    def preset(self, model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None) -> Settings:
        """As the engine itself."""
        return self._engine.preset(model, hardware, task, strategy)

    def conflict(self, settings: Settings, model: ModelInfo, hardware: Hardware, task: Task) -> str | None:
        """As the engine itself."""
        return self._engine.conflict(settings, model, hardware, task)

    def plan(self, model: ModelInfo, settings: Settings, run: RunFolder) -> LaunchPlan:
        """The engine's plan, listening on every interface of its container, published on loopback only."""
        inside = replace(run, endpoint=replace(run.endpoint, host="0.0.0.0", socket_path=None))  # noqa: S104
        plan = self._engine.plan(model, settings, inside)
        return contained_plan(plan, model, self._image, run, gpu_uuids=self._gpus)

    def request_extra(self, settings: Settings) -> Mapping[str, Any]:
        """As the engine itself."""
        return self._engine.request_extra(settings)

    def remembers(self, settings: Settings) -> bool:
        """As the engine itself."""
        return self._engine.remembers(settings)

    def forget(self, settings: Settings, turn: int) -> Forgetting | None:
        """As the engine itself."""
        return self._engine.forget(settings, turn) if isinstance(self._engine, Forgetful) else None

    def in_turn(self, settings: Settings) -> bool:
        """As the engine itself."""
        return isinstance(self._engine, InTurn) and self._engine.in_turn(settings)


def contained_plan(
    plan: LaunchPlan, model: ModelInfo, image: ContainerImage, run: RunFolder, *, gpu_uuids: Sequence[str] = ()
) -> LaunchPlan:
    """``plan`` inside ``image``; pure. The endpoint is the published port on this machine's loopback."""
    port = plan.endpoint.port
    name = f"llmopt-{run.folder.name}"
    scripts = worker("")
    id_file = str(run.folder / ID_NAME)
    ours = ("--interactive", "--name", name, "--label", f"llmopt.run={name}", "--cidfile", id_file)
    entry, rest = _inside(plan, scripts)
    folders = [*([scripts] if any(PurePath(part).parent == scripts for part in rest) else []), *_weights(model)]
    options = (
        *("--publish", f"127.0.0.1:{port}:{port}", "--shm-size", SHARED_MEMORY, "--stop-timeout", str(STOP_S)),
        *_gpu_options(image.tool, gpu_uuids),
        *(part for folder in dict.fromkeys(folders) for part in ("--volume", f"{folder}:{folder}:ro")),
        *(part for pair in sorted({**TELEMETRY_OFF, **plan.env}.items()) for part in ("--env", "=".join(pair))),
    )
    began = (image.tool, "run", "--rm", "--init")
    remove = (image.tool, "rm", "--force", *AT_ONCE.get(image.tool, ()), name)
    program = ("--entrypoint", entry, image.image)
    return replace(
        plan,
        argv=(*began, *ours, *options, *program, *rest),
        env={},
        endpoint=replace(plan.endpoint, host="127.0.0.1", socket_path=None),
        command=(*began, *options, *program, *_keyless(rest)),
        command_here=(),
        port_from_log=None,
        container=ContainerRun(id_file=id_file, remove=remove),
    )


def _weights(model: ModelInfo) -> list[Path]:
    """The folders of the model and its draft where the plan says they are, and those that links in them lead to.

    A hub's cache is made of such links. A hub id is fetched inside.
    """
    draft = draft_of(model)
    found: list[Path] = []
    for one in (model, *((draft.model,) if draft else ())):
        if one.format != "hub":
            path = Path(one.path)
            folder = path.parent if path.suffix == ".gguf" else path
            found += [folder, *_led_to(folder)]
    return found


def _led_to(folder: Path) -> list[Path]:
    try:
        return sorted({entry.resolve().parent for entry in folder.iterdir() if entry.is_symlink()})
    except OSError:
        return []


def _gpu_options(tool: str, uuids: Sequence[str]) -> tuple[str, ...]:
    """GPUs by UUID: an index means another device inside and outside, a UUID never does."""
    if not uuids:
        return ()
    if tool == "docker":
        return ("--gpus", f'"device={",".join(uuids)}"')
    return tuple(part for uuid in uuids for part in ("--device", f"nvidia.com/gpu={uuid}"))


def _inside(plan: LaunchPlan, scripts: Path) -> tuple[str, tuple[str, ...]]:
    """The program of the image and its arguments: the plan's, without the interpreter or server of this machine."""
    program = IN_IMAGE.get(plan.engine, ("python3",))
    rest = plan.argv[1:]
    if plan.engine == "llamacpp" and rest and PurePath(rest[0]).parent == scripts:
        rest = rest[1:]  # the embedded worker: the image has the server itself
    return program[0], (*program[1:], *rest)


def _keyless(parts: Sequence[str]) -> tuple[str, ...]:
    """What a user would type: without a key on standard input; ``-`` tells ``keyed_main`` that there is none."""
    found: list[str] = []
    skip = False
    for part in parts:
        if skip:
            skip = False
        elif part == "--api-key-file":
            skip = True
        else:
            found.append("-" if part == "--api-key" else part)
    return tuple(found)
