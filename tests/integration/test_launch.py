"""Launching badly behaved servers through a real guardian: every start is ready or explained, every end is complete."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from llmopt.engines.base import RunFolder
from llmopt.engines.fake import Fake
from llmopt.engines.launch import Phase, RunningEngine, launch
from llmopt.errors import EngineDied, EngineError, EngineStartError
from llmopt.hardware.probe import probe
from llmopt.records import Endpoint, LaunchPlan, Load, ModelInfo, Task
from llmopt.runtime.guardian import Guardian
from llmopt.runtime.http import request

SERVER = Path(__file__).parents[1] / "fixtures" / "processes" / "nasty_server.py"
MODEL = ModelInfo(name="tiny", path="tiny.gguf", format="gguf")


@dataclass
class Nasty:
    """An engine whose process is the nasty server."""

    habits: tuple[str, ...] = ()
    transport: str = "socket"
    announces_port: bool = False
    stall_s: float = 30.0
    cap_s: float = 60.0
    grace_s: float = 0.5
    segment: str = ""
    name: str = "nasty"
    metric_names: dict[str, str] = field(default_factory=dict)
    plans: list[LaunchPlan] = field(default_factory=list)

    def plan(self, model: ModelInfo, settings: object, run: RunFolder) -> LaunchPlan:
        endpoint = run.endpoint
        where = ["--socket", endpoint.socket_path] if endpoint.socket_path else ["--port", str(endpoint.port)]
        habits = [word for habit in self.habits for word in ("--habit", habit)]
        plan = LaunchPlan(
            engine=self.name,
            argv=(sys.executable, "-S", str(SERVER), *habits, "--segment", self.segment, *where),
            env={},
            endpoint=endpoint,
            command=("nasty",),
            settings={},
            stdin=f"{endpoint.api_key}\n",
            stall_s=self.stall_s,
            ready_cap_s=self.cap_s,
            stop_grace_s=self.grace_s,
            port_from_log=r"listening on http://[^:]+:(\d+)" if self.announces_port else None,
        )
        self.plans.append(plan)
        return plan


@pytest.fixture(scope="module")
def guardian(tmp_path_factory: pytest.TempPathFactory):
    with Guardian(tmp_path_factory.mktemp("guard")) as guardian:
        yield guardian


async def started(engine: Nasty, guardian: Guardian, folder: Path) -> str:
    """Launch, stop at once; the text of the error, or 'ready'."""
    try:
        async with launch(engine, MODEL, {}, guardian=guardian, run_root=folder):
            return "ready"
    except EngineStartError as error:
        return str(error)


def exists(path: str) -> bool:
    return Path(path).exists()


def assert_gone(running: RunningEngine, pids: tuple[int, ...]) -> None:
    assert running.stop_report is not None
    assert running.stop_report.survivors == ()
    assert running.pids() == ()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


@pytest.mark.parametrize("transport", ["socket", "port", "announced"])
async def test_a_server_becomes_ready_and_goes(transport: str, guardian: Guardian, tmp_path: Path) -> None:
    phases: list[Phase] = []
    engine = Nasty(transport="socket" if transport == "socket" else "port", announces_port=transport == "announced")
    async with launch(engine, MODEL, {}, guardian=guardian, run_root=tmp_path, on_phase=phases.append) as running:
        assert running.exit_status() is None
        pids = running.pids()
        assert len(pids) == 1
        assert bool(running.endpoint.socket_path) == (transport == "socket")
        assert (await request(running.endpoint, "GET", "/health", timeout_s=5)).status == 200
        assert running.start_seconds > 0
        running.check()
    assert phases == list(Phase)
    assert_gone(running, pids)
    if running.endpoint.socket_path:
        assert not exists(running.endpoint.socket_path)


async def test_the_run_folder_is_private(guardian: Guardian, tmp_path: Path) -> None:
    async with launch(Nasty(), MODEL, {}, guardian=guardian, run_root=tmp_path) as running:
        assert running.folder.stat().st_mode & 0o777 == 0o700
        assert running.log_path.stat().st_mode & 0o777 == 0o600
        assert running.endpoint.api_key
        for pid in running.pids():
            process = psutil.Process(pid)
            assert running.endpoint.api_key not in " ".join(process.cmdline())
            assert running.endpoint.api_key not in " ".join(process.environ().values())
            assert process.environ()["PYTHONSAFEPATH"] == "1"
            assert process.cwd() == str(running.folder)


async def test_a_slow_server_is_waited_for(guardian: Guardian, tmp_path: Path) -> None:
    async with launch(Nasty(("slow",)), MODEL, {}, guardian=guardian, run_root=tmp_path) as running:
        assert running.start_seconds > 1.5


@pytest.mark.parametrize(
    ("habit", "expected"),
    [
        ("exit_early", ["3", "the model file is not readable"]),
        ("crash_early", ["11", "loading"]),
        ("crash_on_chat", ["11", "illegal memory access"]),
        ("bad_answer", ["400", "no chat template"]),
    ],
)
async def test_a_failed_start_says_how_with_command_and_log(
    habit: str, expected: list[str], guardian: Guardian, tmp_path: Path
) -> None:
    text = await started(Nasty((habit, "daemon_child")), guardian, tmp_path)
    assert [words for words in [*expected, "nasty_server.py"] if words not in text] == []


async def test_a_silent_server_is_given_up_by_stall(guardian: Guardian, tmp_path: Path) -> None:
    text = await started(Nasty(("hang",), stall_s=1.5, cap_s=30), guardian, tmp_path)
    assert "progress" in text or "진행" in text


async def test_a_silent_server_whose_log_tells_the_cause_is_given_up_sooner(
    guardian: Guardian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmopt.engines.readiness.HOPELESS_S", 1.0)
    with pytest.raises(EngineStartError) as caught:
        async with launch(Nasty(("says_oom", "hang")), MODEL, {}, guardian=guardian, run_root=tmp_path):
            pass
    assert caught.value.key == "launch.stalled"
    assert caught.value.values["failure"].id == "MEM-006"
    assert caught.value.values["seconds"] < Nasty.stall_s


def test_what_an_engine_worked_around_is_told_where_it_changes_what_is_measured(tmp_path: Path) -> None:
    log = Path(__file__).parents[1] / "fixtures" / "logs" / "healthy" / "llamacpp_cpu_build.log"
    plan = LaunchPlan(engine="llamacpp", argv=(), env={}, endpoint=Endpoint(model="tiny"), command=(), settings={})
    running = RunningEngine(plan, child=None, log_path=log, start_seconds=0.0, folder=tmp_path)
    assert running.notices() == ("failures.OK-006.what",)
    assert (
        RunningEngine(plan, child=None, log_path=tmp_path / "none", start_seconds=0.0, folder=tmp_path).notices() == ()
    )


async def test_a_spinning_server_is_given_up_by_the_cap(guardian: Guardian, tmp_path: Path) -> None:
    engine = Nasty(("spin",), stall_s=1.0, cap_s=4.0)
    with pytest.raises(EngineStartError) as caught:
        async with launch(engine, MODEL, {}, guardian=guardian, run_root=tmp_path):
            pass
    assert caught.value.key == "launch.too_slow"


async def test_a_start_that_a_huge_context_holds_up_is_ended_and_explained(guardian: Guardian, tmp_path: Path) -> None:
    """As a real llama-server did with two billion tokens: one warning, then a busy core for ever."""
    engine = Nasty(("says_context", "spin"), stall_s=1.0, cap_s=3.0, name="llamacpp")
    with pytest.raises(EngineStartError) as caught:
        async with launch(engine, MODEL, {}, guardian=guardian, run_root=tmp_path):
            pass
    assert caught.value.key == "launch.too_slow"
    assert caught.value.values["failure"].id == "CFG-017"
    assert caught.value.values["failure"].remedy in caught.value.detail


async def test_a_wrong_alias_is_named(guardian: Guardian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmopt.engines.readiness.LISTED_CAP_S", 0.5)
    with pytest.raises(EngineStartError) as caught:
        async with launch(Nasty(("wrong_alias",)), MODEL, {}, guardian=guardian, run_root=tmp_path):
            pass
    assert caught.value.key == "launch.not_listed"
    assert "tiny" in str(caught.value)


async def test_the_worst_server_leaves_nothing(guardian: Guardian, tmp_path: Path) -> None:
    name = f"llmopt-test-{os.getpid()}"
    engine = Nasty(("ignore_term", "daemon_child", "clean_env"), segment=name)
    async with launch(engine, MODEL, {}, guardian=guardian, run_root=tmp_path) as running:
        pids = running.pids()
        assert len(pids) == 2
        assert exists(f"/dev/shm/{name}")
    assert_gone(running, pids)
    assert running.stop_report.how == "killed"
    assert not exists(f"/dev/shm/{name}")


async def test_an_engine_that_dies_in_use_is_named(guardian: Guardian, tmp_path: Path) -> None:
    async def use(running: RunningEngine) -> None:
        psutil.Process(running.pids()[0]).kill()
        status = await asyncio.wait_for(running.ended(), 20)
        assert status == running.exit_status() == await running.ended()
        raise ConnectionError("reset")

    with pytest.raises(EngineDied) as caught:
        async with launch(Nasty(("daemon_child",)), MODEL, {}, guardian=guardian, run_root=tmp_path) as running:
            await use(running)
    assert "9" in caught.value.what
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert running.pids() == ()


async def test_an_error_in_the_block_passes_through(guardian: Guardian, tmp_path: Path) -> None:
    seen: list[tuple[RunningEngine, tuple[int, ...]]] = []

    async def use() -> None:
        async with launch(Nasty(), MODEL, {}, guardian=guardian, run_root=tmp_path) as running:
            seen.append((running, running.pids()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await use()
    assert_gone(*seen[0])


@pytest.mark.parametrize("moment", ["loading", "ready"])
async def test_cancelling_stops_the_engine_first(moment: str, guardian: Guardian, tmp_path: Path) -> None:
    engine = Nasty(("slow", "ignore_term") if moment == "loading" else ("ignore_term",))
    reached = asyncio.Event()
    children: list[int] = []

    async def use() -> None:
        def on_phase(phase: Phase) -> None:
            if phase.value == moment:
                reached.set()

        async with launch(engine, MODEL, {}, guardian=guardian, run_root=tmp_path, on_phase=on_phase):
            await asyncio.sleep(60)

    before = {p.pid for p in psutil.Process(guardian.pids[1]).children(recursive=True)}
    task = asyncio.ensure_future(use())
    await asyncio.wait_for(reached.wait(), 20)
    children = [p.pid for p in psutil.Process(guardian.pids[1]).children(recursive=True) if p.pid not in before]
    assert children
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [pid for pid in children if psutil.pid_exists(pid)]


async def test_cancelling_at_any_instant_of_the_start_leaves_nothing(guardian: Guardian, tmp_path: Path) -> None:
    async def use() -> None:
        async with launch(Nasty(("slow",)), MODEL, {}, guardian=guardian, run_root=tmp_path):
            pass

    for tick in range(0, 40, 2):
        task = asyncio.ensure_future(use())
        for _ in range(tick):  # instants by loop turns and by a little time
            await asyncio.sleep(0.0005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert psutil.Process(guardian.pids[1]).children() == []


class Thief(Nasty):
    """Lets a stranger bind the port between choice and use, for the first ``times`` launches."""

    times = 2

    def plan(self, model: ModelInfo, settings: object, run: RunFolder) -> LaunchPlan:
        plan = super().plan(model, settings, run)
        if plan.endpoint.port and self.times:
            self.times -= 1
            self.strangers = [*getattr(self, "strangers", []), socket.create_server(("127.0.0.1", plan.endpoint.port))]
        return plan

    def release(self) -> None:
        for stranger in self.strangers:
            stranger.close()


async def test_a_stolen_port_is_replaced(guardian: Guardian, tmp_path: Path) -> None:
    engine = Thief(transport="port")
    try:
        async with launch(engine, MODEL, {}, guardian=guardian, run_root=tmp_path) as running:
            stolen = {stranger.getsockname()[1] for stranger in engine.strangers}
            assert len(stolen) == 2
            assert running.endpoint.port not in stolen
    finally:
        engine.release()


async def test_ports_stolen_for_ever_end_in_a_clear_error(guardian: Guardian, tmp_path: Path) -> None:
    engine = Thief(transport="port")
    engine.times = 99
    try:
        with pytest.raises(EngineStartError) as caught:
            async with launch(engine, MODEL, {}, guardian=guardian, run_root=tmp_path):
                pass
    finally:
        engine.release()
    assert caught.value.key == "launch.port_taken"
    assert len(engine.strangers) == 4


async def test_a_program_that_does_not_exist_is_named(guardian: Guardian, tmp_path: Path) -> None:
    class Missing(Nasty):
        def plan(self, model: ModelInfo, settings: object, run: RunFolder) -> LaunchPlan:
            return replace(super().plan(model, settings, run), argv=("no-such-engine", "--serve"))

    text = await started(Missing(), guardian, tmp_path)
    assert "no-such-engine --serve" in text


# ── engines that somebody else runs ────────────────────────────────────────────────────────────────────────────────


class Elsewhere(Nasty):
    """Somebody else's server at a known endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(transport="remote", cap_s=2.0)
        self.endpoint = endpoint

    def plan(self, model: ModelInfo, settings: object, run: RunFolder) -> LaunchPlan:
        return replace(super().plan(model, settings, run), argv=(), endpoint=self.endpoint)


async def test_an_engine_elsewhere_is_verified_and_left_alone(guardian: Guardian, tmp_path: Path) -> None:
    phases: list[Phase] = []
    async with launch(Nasty(), MODEL, {}, guardian=guardian, run_root=tmp_path) as theirs:
        async with launch(
            Elsewhere(theirs.endpoint), MODEL, {}, guardian=guardian, run_root=tmp_path, on_phase=phases.append
        ) as running:
            assert running.pids() == ()
            assert running.exit_status() is None
            running.check()
        assert running.stop_report is None
        assert theirs.exit_status() is None
        assert phases == [Phase.STARTING, Phase.LISTED, Phase.READY]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model": "other"}, "launch.lists_others"),
        ({"api_key": "wrong"}, "measure.wrong_key"),
        ({"socket_path": "/nowhere.sock"}, "measure.refused"),
    ],
)
async def test_an_engine_elsewhere_that_will_not_do_is_explained(
    change: dict[str, str], key: str, guardian: Guardian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmopt.engines.readiness.PROBE_S", 0.5)
    async with launch(Nasty(), MODEL, {}, guardian=guardian, run_root=tmp_path) as theirs:
        engine = Elsewhere(replace(theirs.endpoint, **change))
        with pytest.raises(EngineError) as caught:
            async with launch(engine, MODEL, {}, guardian=guardian, run_root=tmp_path):
                pass
    assert caught.value.key == key
    assert caught.value.what


async def test_an_endpoint_without_a_list_of_models_says_itself_that_it_has_no_such_model(
    guardian: Guardian, tmp_path: Path
) -> None:
    body = b'{"error": {"message": "model \'tiny\' not found"}}'
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n")).split()[1])
        writer.write(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    engine = Elsewhere(Endpoint(model="tiny", port=server.sockets[0].getsockname()[1]))
    with pytest.raises(EngineError) as caught:
        async with launch(engine, MODEL, {}, guardian=guardian, run_root=tmp_path):
            pass
    server.close()
    assert "model 'tiny' not found" in caught.value.what
    assert asked == [b"/v1/models", b"/v1/models", b"/v1/chat/completions"]  # it is not asked again and again


async def test_a_request_under_way_may_finish_when_the_block_is_left(guardian: Guardian, tmp_path: Path) -> None:
    engine = Fake(time_scale=1.0)
    settings = engine.baseline(MODEL, probe(), Task(load=Load(streams=2), prompt_tokens=64, max_tokens=64))
    body = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "max_tokens": 16}
    async with launch(engine, MODEL, settings, guardian=guardian, run_root=tmp_path) as running:
        asking = asyncio.ensure_future(
            request(running.endpoint, "POST", "/v1/chat/completions", body=body, timeout_s=20)
        )
        metric, seen = engine.metric_names["running"], "0"
        async with asyncio.timeout(30):
            while float(seen) < 1:
                metrics = await request(running.endpoint, "GET", "/metrics", timeout_s=5)
                seen = next(row.split()[-1] for row in metrics.body.decode().splitlines() if row.startswith(metric))
        assert not asking.done()
    assert (await asking).status == 200
