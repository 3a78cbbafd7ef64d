"""A scripted engine: a real process that speaks the OpenAI API and behaves, or misbehaves, exactly as it is told.

Stand-alone: started by path, standard library only. ``--mode sim`` computes speed and answers from the launch settings
(``fake_model``) and does what a scenario scripts (``fake_scenario``); ``--mode fast`` streams at exact times and stamps
its own writes (``fake_fast``). Standard output carries JSON lines (``resolved``, ``ready``), standard error the log.
Exit codes: 0 stopped, 1 did not start, 2 wrong command line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from llmopt.workers.fake_fast import FastServing, in_processes
    from llmopt.workers.fake_http import Connection, Handler
    from llmopt.workers.fake_metrics import DIALECTS
    from llmopt.workers.fake_model import CACHE_SPEED, WEIGHTS_MS, Answerer, FakeSettings
    from llmopt.workers.fake_scenario import FINAL_WORDS, Fault, Scenario, ScenarioError, level_at, read_scenario
    from llmopt.workers.fake_serving import Serving, do
    from llmopt.workers.fake_sockets import serve_directly
else:  # started by path and isolated: the folder of this script is not on the search path
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from fake_fast import FastServing, in_processes
    from fake_http import Connection, Handler
    from fake_metrics import DIALECTS
    from fake_model import CACHE_SPEED, WEIGHTS_MS, Answerer, FakeSettings
    from fake_scenario import FINAL_WORDS, Fault, Scenario, ScenarioError, level_at, read_scenario
    from fake_serving import Serving, do
    from fake_sockets import serve_directly

GRANDCHILD_LIFE_S = 600
"""A grandchild that nobody finds ends by itself after this long."""
GPU_VARIABLE = "LLMOPT_FAKE_GPU"
"""The folder in which fake engines tell the fake device library what they hold."""
BACKLOG = 1024


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fake_engine", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="fake")
    parser.add_argument("--alias", default="fake")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--uds", type=Path)
    where.add_argument("--port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--api-key-file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--precision", choices=tuple(WEIGHTS_MS), default="f16")
    parser.add_argument("--cache-type", choices=tuple(CACHE_SPEED), default="f16")
    parser.add_argument("--flash-attention", choices=("on", "off"), default="on")
    parser.add_argument("--cores", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--answers", type=Path, action="append", default=[])
    parser.add_argument("--scenario", type=Path)
    parser.add_argument("--dialect", choices=DIALECTS, default="llamacpp")
    parser.add_argument("--time-scale", type=float, default=1.0)
    parser.add_argument("--mode", choices=("sim", "fast"), default="sim")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--stamps", type=Path)
    return parser


def say(event: str, **facts: Any) -> None:
    """One JSON line on standard output."""
    print(json.dumps({"event": event, **facts}, default=str), flush=True)


def log(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)


def read_key(path: str | None) -> str | None:
    """The first line of the key file or of standard input."""
    if path is None:
        return None
    text = sys.stdin.readline() if path in ("-", "/dev/stdin") else Path(path).read_text(encoding="utf-8")
    return text.strip() or None


def bind(options: argparse.Namespace, scenario: Scenario) -> socket.socket:
    """The listening socket; an address that is taken ends the process as llama.cpp does."""
    where = options.uds or f"{options.host}, port: {options.port}"
    if scenario.port == "stolen":
        refuse_start(where, "Address already in use")
    try:
        if options.uds is not None:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(options.uds))
        else:
            # named as TCP, or asyncio leaves Nagle's algorithm on: small writes would wait 40 ms for a delayed ACK
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((options.host, options.port))
    except OSError as error:
        refuse_start(where, error.strerror)
    listener.listen(BACKLOG)
    return listener


def refuse_start(where: object, reason: str | None) -> NoReturn:
    """End as llama.cpp does when its address is taken."""
    log(f"srv          init: couldn't bind HTTP server socket, hostname: {where} ({reason})")
    sys.exit(1)


def leave_grandchild(manner: str) -> None:
    """A process whose parent is gone and whose session is its own, as some engines leave them; its id is told."""
    if manner == "none" or not hasattr(os, "fork"):
        return
    reader, writer = os.pipe()
    if (first := os.fork()) != 0:
        os.close(writer)
        os.waitpid(first, 0)
        say("grandchild", pid=int(os.read(reader, 32)))
        os.close(reader)
        return
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if manner == "ignores_term" else signal.SIG_DFL)
    signal.alarm(GRANDCHILD_LIFE_S)
    os.write(writer, str(os.getpid()).encode())
    while True:
        signal.pause()


class Memory:
    """Takes real memory, and tells the fake devices what it holds, along the scenario's curves."""

    def __init__(self, scenario: Scenario, settings: FakeSettings) -> None:
        self._scenario = scenario
        self._base_mib = settings.memory_mib * scenario.memory_factor
        self._held: list[bytearray] = []

    def moments(self) -> list[float]:
        """Seconds at which a level changes."""
        curves = (*self._scenario.memory_mib, *self._scenario.gpu_memory_mib)
        return sorted({0.0, *(moment for moment, _ in curves)})

    def hold(self, seconds: float) -> None:
        """Take or give back until the level of this moment is reached; each MiB is written, so that it counts."""
        level = int(self._base_mib + level_at(self._scenario.memory_mib, seconds))
        del self._held[level:]
        while len(self._held) < level:
            self._held.append(bytearray(b"\x01") * (1 << 20))
        folder = os.environ.get(GPU_VARIABLE)
        if folder:
            used = int(level_at(self._scenario.gpu_memory_mib, seconds) * (1 << 20))
            Path(folder, str(os.getpid())).write_text(f"0 {used}\n", encoding="utf-8")


async def live(serving: Serving, scenario: Scenario, memory: Memory) -> None:
    """Load, get ready, and do what is scripted by the second."""
    began_s = time.monotonic()

    async def until(moment_s: float) -> None:
        await asyncio.sleep(max(0.0, began_s + moment_s - time.monotonic()))

    memory.hold(0.0)
    for number, line in enumerate(scenario.load_log, 1):
        await until(scenario.load_s * number / (len(scenario.load_log) + 1))
        log(line)
    await until(scenario.load_s)
    for fault in scenario.due("load"):
        do(fault)
    serving.ready = True
    say("ready", load_s=round(time.monotonic() - began_s, 3))
    plot: list[tuple[float, Fault | None]] = [(moment, None) for moment in memory.moments()]
    plot += [(fault.number, fault) for fault in scenario.faults if fault.when == "seconds"]
    for moment, happening in sorted(plot, key=lambda entry: entry[0]):
        await until(moment)
        memory.hold(moment)
        if happening is not None:
            do(happening)


def on_term(manner: str, leave: Callable[[], None]) -> Callable[[], None]:
    """What SIGTERM does."""
    word, _, delay = manner.partition(":")
    if word == "ignore":
        return lambda: log("SIGTERM is ignored")
    if word != "slow":
        return leave

    def later() -> None:
        asyncio.get_running_loop().call_later(float(delay or 1), leave)

    return later


async def accept(
    listener: socket.socket,
    handler: Handler,
    *work: Coroutine[Any, Any, None],
    key: str | None,
    manner: str = "exit",
    parent: int | None = None,
    direct: bool = False,
) -> None:
    """Serve on a bound socket beside ``work`` until told to stop, or until the pipe ``parent`` closes.

    A piece of work that fails ends the process with its traceback.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for wish in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # where loops know no signals, the default ends us
            loop.add_signal_handler(wish, on_term(manner, stopped.set))
    if parent is not None:
        loop.add_reader(parent, stopped.set)
    server: asyncio.Server | None = None
    if direct:
        serve_directly(listener, lambda: Connection(handler, key))
    else:
        make = loop.create_unix_server if listener.family == getattr(socket, "AF_UNIX", None) else loop.create_server
        server = await make(lambda: Connection(handler, key), sock=listener)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(piece, name="fake-work") for piece in work]
        await stopped.wait()
        for task in tasks:
            task.cancel()
    if server is not None:
        server.close()


def simulate(options: argparse.Namespace, scenario: Scenario, listener: socket.socket, key: str | None) -> None:
    """The scripted engine."""
    settings = FakeSettings(**{one.name: getattr(options, one.name) for one in fields(FakeSettings)})
    say("resolved", settings=asdict(settings), memory_mib=round(settings.memory_mib, 1))
    limit = scenario.memory_limit_mib
    if limit is not None and settings.memory_mib > limit:
        log(FINAL_WORDS["llamacpp"])
        sys.exit(1)
    leave_grandchild(scenario.grandchild)
    known: dict[str, str] = {}
    for path in options.answers:
        known |= Answerer.read_known(path)
    answerer = Answerer(seed=options.seed, known=known, settings=settings)
    answerer.accuracy |= scenario.accuracy
    serving = Serving(answerer, scenario, model=options.alias, dialect=options.dialect, time_scale=options.time_scale)
    work = (live(serving, scenario, Memory(scenario, settings)), serving.scheduler.run())
    asyncio.run(accept(listener, serving.handle, *work, key=key, manner=scenario.on_term))


def stream_fast(options: argparse.Namespace, scenario: Scenario, listener: socket.socket, key: str | None) -> None:
    """The fast mode, in as many processes as asked for."""

    def serve(stamps: Path | None, parent: int | None) -> None:
        serving = FastServing(scenario, model=options.alias, stamps=stamps)
        serving.prepare()
        if parent is None:
            say("ready", processes=options.processes)
        asyncio.run(accept(listener, serving.handle, key=key, parent=parent, direct=True))
        serving.close()

    in_processes(options.processes if hasattr(os, "fork") else 1, options.stamps, serve)


def main(argv: Sequence[str]) -> int:
    """The command line."""
    options = arguments().parse_args(argv)
    try:
        scenario = read_scenario(options.scenario)
        key = read_key(options.api_key_file)
    except (ScenarioError, OSError) as error:
        log(f"error: {error}")
        return 2
    listener = bind(options, scenario)
    log(f"srv          init: listening on {address(options, listener)}")
    try:
        (simulate if options.mode == "sim" else stream_fast)(options, scenario, listener, key)
    finally:
        if options.uds is not None:
            options.uds.unlink(missing_ok=True)
    return 0


def address(options: argparse.Namespace, listener: socket.socket) -> str:
    """Where it listens, as a URL."""
    return f"unix://{options.uds}" if options.uds else f"http://{options.host}:{listener.getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
