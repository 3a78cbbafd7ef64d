"""The scripted engine: a real process that computes, answers and fails exactly as it is told."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmopt.engines.fake import CORES, Fake
from llmopt.engines.probing import worker

DEADLINE_S = 30.0
CHAT = "/v1/chat/completions"
QUESTION = "사과 3개와 배 4개를 샀습니다. 과일은 모두 몇 개입니까?"

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")


def load(script: str) -> Any:
    spec = importlib.util.spec_from_file_location(script, worker(f"{script}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fake_model = load("fake_model")
fake_scenario = load("fake_scenario")


def eventually(condition) -> None:
    until = time.monotonic() + DEADLINE_S
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < until, "condition never held"
        tick.wait(0.01)


class Running:
    """One fake engine on a Unix socket."""

    def __init__(
        self, folder: Path, *options: str, scenario: dict[str, Any] | None = None, key: str | None = "k1"
    ) -> None:
        self.socket = folder / "e.sock"
        self.log = folder / "e.log"
        argv = [sys.executable, "-I", str(worker("fake_engine.py")), "--uds", str(self.socket), *options]
        if scenario is not None:
            script = folder / "scenario.json"
            script.write_text(json.dumps(scenario), encoding="utf-8")
            argv += ["--scenario", str(script)]
        self.key = key
        if key:
            argv += ["--api-key-file", "/dev/stdin"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdin is not None
        self.process.stdin.write(f"{key}\n".encode() if key else b"")
        self.process.stdin.close()

    def event(self, name: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            if told["event"] == name:
                return told
        raise AssertionError(f"no {name} in {self.log.read_text()}")

    def ask(self, path: str, body: Any = None, *, key: str | None = None, timeout_s: float = DEADLINE_S):
        connection = http.client.HTTPConnection("fake", timeout=timeout_s)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout_s)
        connection.sock.connect(str(self.socket))
        headers = {"Authorization": f"Bearer {key or self.key}"}
        data = None if body is None else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, data, headers)
        with contextlib.closing(connection):
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def chat(self, text: str, **more: Any) -> dict[str, Any]:
        status, _, body = self.ask(CHAT, {"messages": [{"role": "user", "content": text}], **more})
        assert status == 200, body
        return json.loads(body)

    def stream(self, text: str = "hello there", **more: Any) -> bytes:
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        return self.ask(CHAT, {"messages": [{"role": "user", "content": text}], **usage, **more})[2]

    def begin_stream(self, text: str = QUESTION) -> socket.socket:
        """A raw connection on which a streamed answer has begun."""
        body = json.dumps({"messages": [{"role": "user", "content": text}], "stream": True}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nAuthorization: Bearer {self.key}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(DEADLINE_S)
        connection.connect(str(self.socket))
        connection.sendall(head.encode() + body)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        return connection

    def wire(self, text: str = QUESTION) -> bytes:
        """The bytes of a streamed answer as they travel."""
        data = b""
        with self.begin_stream(text) as connection:
            while not data.endswith(b"\r\n0\r\n\r\n"):
                data += connection.recv(65536)
        return data

    def listening(self) -> None:
        eventually(self.socket.exists)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path_factory) -> Iterator[Any]:
    running: list[Running] = []

    def starter(*options: str, ready: bool = True, **more: Any) -> Running:
        one = Running(tmp_path_factory.mktemp("f"), "--time-scale", "0.01", *options, **more)
        running.append(one)
        if ready:
            one.event("ready")
        return one

    yield starter
    for one in running:
        one.close()


def events(raw: bytes) -> list[str]:
    lines = raw.decode().replace("\r\n", "\n").split("\n\n")
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def streamed_text(raw: bytes) -> str:
    deltas = [json.loads(one) for one in events(raw) if one.startswith("{") and '"choices": [{' in one]
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in deltas)


# ── what it computes ───────────────────────────────────────────────────────────────────────────────────────────────


def settings(**changes):
    return fake_model.FakeSettings(**changes)


def test_speed_has_its_known_best_point():
    steps = {threads: settings(threads=threads).step_s(4) for threads in (1, 2, 4, 8)}
    assert min(steps, key=steps.get) == CORES
    assert steps[1] > steps[2] > steps[4] < steps[8]
    per_token = [settings().step_s(n) / n for n in (1, 2, 4, 8)]
    assert per_token == sorted(per_token, reverse=True), "larger batches must pay"
    assert settings(precision="q4").step_s(1) < settings(precision="q8").step_s(1) < settings().step_s(1)
    assert settings(flash_attention="off").step_s(1) > settings().step_s(1)
    assert settings(batch=2048).prompt_s(1000) < settings(batch=128).prompt_s(1000)
    assert settings(context=8192).memory_mib > settings(cache_type="q4", context=8192).memory_mib


FORMS = {
    "zero_shot": [{"role": "user", "content": f"{QUESTION}\n마지막 줄에 '정답: <값>' 형식으로 답을 쓰세요."}],
    "answer_only": [{"role": "user", "content": f"{QUESTION}\n풀이 없이 답만 숫자로 쓰세요."}],
    "step_by_step": [{"role": "user", "content": f"{QUESTION}\n차근차근 풀고 '정답: <값>'으로 쓰세요."}],
    "examples": [
        {"role": "user", "content": "1 더하기 1은?"},
        {"role": "assistant", "content": "정답: 2"},
        {"role": "user", "content": QUESTION},
    ],
    "examples_steps": [
        {"role": "user", "content": "차근차근: 1 더하기 1은?"},
        {"role": "assistant", "content": "정답: 2"},
        {"role": "user", "content": QUESTION},
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_prompt_forms_are_told_apart(form):
    assert fake_model.prompt_form(FORMS[form]) == form


def right_answers(
    count: int = 400, *, form: str = "examples", body: dict[str, Any] | None = None, **changes: Any
) -> float:
    answerer = fake_model.Answerer(known={f"문제 {n}번": str(n) for n in range(1000, 1000 + count)})
    answerer.settings = settings(**changes)
    hits = 0
    for n in range(1000, 1000 + count):
        messages = [
            *FORMS[form][:-1],
            {"role": "user", "content": FORMS[form][-1]["content"].replace(QUESTION, f"문제 {n}번")},
        ]
        hits += answerer.text(messages, body or {}).split()[-1] == str(n)
    return hits / count


def test_accuracy_follows_form_temperature_and_precision():
    by_form = {form: right_answers(form=form) for form in FORMS}
    for form, share in by_form.items():
        assert abs(share - fake_model.FORM_ACCURACY[form]) < 0.08
    assert right_answers(body={"temperature": 1.5}) < right_answers(body={"temperature": 0.5}) < right_answers()
    assert right_answers(precision="q4") < right_answers(precision="f16")
    assert right_answers(cache_type="q4") < right_answers(cache_type="f16")


def test_pieces_give_the_text_back():
    text = "조건을 차례로 봅니다.\n정답: 3,500원 (three and a half) — 끝!  \n"
    assert "".join(fake_model.pieces(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "scenario"),
        ("[1]", "JSON object"),
        ('{"lod_s": 1}', "lod_s"),
        ('{"stream": ["wobbly"]}', "wobbly"),
        ('{"faults": [{"at": "never", "do": "hang"}]}', "never"),
        ('{"faults": [{"at": "load", "do": "dance"}]}', "dance"),
        ('{"faults": [{"at": "load", "do": "oom:zx81"}]}', "zx81"),
    ],
)
def test_wrong_scenarios_are_explained(tmp_path, text, words):
    path = tmp_path / "s.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(fake_scenario.ScenarioError, match=words):
        fake_scenario.read_scenario(path)


# ── what it says ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_speaks_the_api(start):
    engine = start("--alias", "m", "--context", "2048", "--slots", "2")
    assert engine.ask("/health", key="wrong")[0] == 200
    assert engine.ask("/v1/models", key="wrong")[0] == 401
    assert json.loads(engine.ask("/v1/models")[2])["data"][0]["id"] == "m"
    assert len(json.loads(engine.ask("/slots")[2])) == 2
    assert json.loads(engine.ask("/tokenize", {"content": "가나 다라"})[2])["count"] == 2
    assert engine.ask("/no/such/place")[0] == 404
    assert engine.ask(CHAT, {"messages": []})[0] == 400
    assert engine.ask(CHAT, {"messages": [{"role": "user", "content": "가 " * 1200}]})[0] == 400
    whole = engine.chat(QUESTION)
    raw = engine.stream(QUESTION)
    assert streamed_text(raw) == whole["choices"][0]["message"]["content"]
    usage = json.loads(events(raw)[-2])["usage"]
    assert (
        usage["completion_tokens"] == whole["usage"]["completion_tokens"] == len(fake_model.pieces(streamed_text(raw)))
    )
    assert events(raw)[-1] == "[DONE]"
    assert engine.chat(QUESTION, max_tokens=3)["choices"][0]["finish_reason"] == "length"
    assert json.loads(engine.ask("/v1/completions", {"prompt": "hi"})[2])["choices"][0]["text"]


@pytest.mark.parametrize(("dialect", "name"), [("llamacpp", "llamacpp:"), ("vllm", "vllm:"), ("sglang", "sglang:")])
def test_metrics_speak_the_dialect(start, dialect, name):
    engine = start("--dialect", dialect)
    done = engine.chat(QUESTION)["usage"]["completion_tokens"]
    lines = [line for line in engine.ask("/metrics")[2].decode().splitlines() if not line.startswith("#")]
    assert all(line.startswith(name) for line in lines)
    assert any(float(line.rsplit(" ", 1)[1]) == done for line in lines)


def test_default_metric_names_of_the_engine_exist(start):
    text = start().ask("/metrics")[2].decode()
    assert all(f"\n{theirs} " in text for theirs in Fake.metric_names.values())


def test_same_seed_same_answers_other_seed_others(start, tmp_path):
    known = tmp_path / "known.jsonl"
    known.write_text("\n".join(json.dumps({"question": f"문제 {n}번", "answers": [str(n)]}) for n in range(100, 130)))
    engines = [start("--answers", str(known), "--seed", seed) for seed in ("1", "1", "2")]
    one, same, other = (
        [e.chat(f"문제 {n}번")["choices"][0]["message"]["content"] for n in range(100, 130)] for e in engines
    )
    assert one == same != other
    assert any(text.endswith(str(n)) for n, text in zip(range(100, 130), one, strict=True))


def test_slots_limit_what_runs_at_once(start):
    engine = start("--slots", "1", "--time-scale", "0.1")
    finished: list[str] = []

    def ask(name: str, tokens: int) -> None:
        engine.chat(QUESTION, max_tokens=tokens)
        finished.append(name)

    long = threading.Thread(target=ask, args=("long", 40))
    long.start()
    eventually(lambda: b"requests_processing 1" in engine.ask("/metrics")[2])
    ask("short", 1)
    long.join(DEADLINE_S)
    assert finished == ["long", "short"]


def test_a_client_that_leaves_frees_its_slot(start):
    engine = start("--slots", "1", "--time-scale", "5")
    engine.begin_stream().close()
    eventually(lambda: b"requests_processing 0" in engine.ask("/metrics")[2])
    given = int(engine.ask("/metrics")[2].split(b"\nllamacpp:tokens_predicted_total ")[1].split()[0])
    assert given < len(fake_model.pieces(fake_model.Answerer().text([{"role": "user", "content": QUESTION}], {})))


# ── what goes wrong ────────────────────────────────────────────────────────────────────────────────────────────────


def test_load_is_announced_and_refuses_requests(start):
    engine = start(ready=False, scenario={"load_s": 0.6, "load_log": ["load_tensors: first", "load_tensors: second"]})
    engine.listening()
    assert engine.ask("/health")[0] == 503
    engine.event("ready")
    assert engine.ask("/health")[0] == 200
    log = engine.log.read_text()
    assert log.index("first") < log.index("second")


def test_wrong_scenario_ends_with_two(start):
    engine = start(ready=False, scenario={"nonsense": 1})
    assert engine.process.wait(DEADLINE_S) == 2
    assert "nonsense" in engine.log.read_text()


def test_a_launch_over_the_limit_dies_with_the_real_words(start):
    engine = start("--context", "65536", ready=False, scenario={"memory_limit_mib": 500})
    assert engine.process.wait(DEADLINE_S) == 1
    assert "failed to initialize memory module" in engine.log.read_text()
    start("--context", "1024", scenario={"memory_limit_mib": 500})


@pytest.mark.parametrize(
    ("deed", "code", "words"),
    [
        ("oom:vllm", 1, "No available memory for the cache blocks"),
        ("oom:torch", 1, "torch.OutOfMemoryError"),
        ("signal:SEGV", -signal.SIGSEGV, ""),
        ("signal:KILL", -signal.SIGKILL, ""),
        ("exit:7", 7, ""),
    ],
)
def test_dies_at_the_scripted_token(start, deed, code, words):
    engine = start(scenario={"faults": [{"at": "token:5", "do": deed}]})
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        engine.stream(QUESTION)
    assert engine.process.wait(DEADLINE_S) == code
    assert words in engine.log.read_text()


def test_hangs_at_the_scripted_request(start):
    engine = start(scenario={"faults": [{"at": "request:2", "do": "hang"}]})
    engine.chat(QUESTION)
    with pytest.raises(TimeoutError):
        engine.ask(CHAT, {"messages": [{"role": "user", "content": QUESTION}]}, timeout_s=0.5)
    assert engine.process.poll() is None


def test_faults_by_the_second(start):
    engine = start(
        scenario={"faults": [{"at": "seconds:0.2", "do": "log:scripted line"}, {"at": "seconds:0.3", "do": "exit:9"}]}
    )
    assert engine.process.wait(DEADLINE_S) == 9
    assert "scripted line" in engine.log.read_text()


def test_term_is_obeyed_ignored_or_slow(start):
    obedient, deaf, slow = (start(scenario={"on_term": manner}) for manner in ("exit", "ignore", "slow:0.5"))
    began_s = time.monotonic()
    for engine in (obedient, deaf, slow):
        engine.process.terminate()
    assert obedient.process.wait(DEADLINE_S) == 0
    assert not obedient.socket.exists()
    assert slow.process.wait(DEADLINE_S) == 0
    assert time.monotonic() - began_s >= 0.5
    assert deaf.process.poll() is None
    deaf.process.kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("manner", ["plain", "ignores_term"])
def test_grandchild_outlives_its_engine_in_a_session_of_its_own(start, manner):
    engine = start(ready=False, scenario={"grandchild": manner})
    pid = engine.event("grandchild")["pid"]
    grandchild = psutil.Process(pid)
    try:
        engine.event("ready")
        assert os.getsid(pid) != os.getsid(engine.process.pid)
        engine.process.kill()
        engine.process.wait(DEADLINE_S)
        assert grandchild.is_running()
        grandchild.terminate()
        if manner == "plain":
            gone, _ = psutil.wait_procs([grandchild], timeout=DEADLINE_S)
            assert gone
        else:
            _, alive = psutil.wait_procs([grandchild], timeout=0.5)
            assert alive
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            grandchild.kill()


def test_refuses_some_requests_and_says_when_to_return(start):
    engine = start(scenario={"refuse": {"status": 429, "first": 2, "count": 1, "retry_after": 7}})
    body = {"messages": [{"role": "user", "content": QUESTION}]}
    answers = [engine.ask(CHAT, body) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 429, 200]
    assert answers[1][1]["Retry-After"] == "7"


def test_stolen_port_is_told_as_llamacpp_tells_it(start):
    engine = start(ready=False, scenario={"port": "stolen"})
    assert engine.process.wait(DEADLINE_S) == 1
    assert "couldn't bind" in engine.log.read_text()


def test_a_really_taken_port_ends_the_start():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        argv = [sys.executable, "-I", str(worker("fake_engine.py")), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 1
    assert "couldn't bind" in done.stderr


def test_wrong_answers_come_on_schedule(start):
    engine = start(scenario={"wrong_every": 2})
    texts = [engine.chat(f"{QUESTION} 정답: 으로 쓰세요")["choices"][0]["message"]["content"] for _ in range(4)]
    assert [text == "정답: -1" for text in texts] == [False, True, False, True]


def test_memory_follows_the_curve(start):
    engine = start(scenario={"memory_mib": [[0, 10], [0.3, 90], [0.9, 20]]})
    process = psutil.Process(engine.process.pid)
    seen: list[int] = []

    def peaked_and_fell() -> bool:
        seen.append(process.memory_info().rss >> 20)
        return max(seen) - seen[-1] > 40

    eventually(peaked_and_fell)
    assert max(seen) - seen[0] > 40


def test_tells_the_fake_devices_what_it_holds(start, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMOPT_FAKE_GPU", str(tmp_path))
    engine = start(scenario={"gpu_memory_mib": [[0, 128]]})
    eventually((tmp_path / str(engine.process.pid)).exists)
    assert (tmp_path / str(engine.process.pid)).read_text() == f"0 {128 << 20}\n"


def test_exact_times_are_never_early(start):
    engine = start(scenario={"timing": {"ttft_ms": 120, "itl_ms": 15, "tokens": 9}})
    began_s = time.monotonic()
    raw = engine.stream()
    assert time.monotonic() - began_s >= 0.120 + 8 * 0.015
    assert json.loads(events(raw)[-2])["usage"]["completion_tokens"] == 9


# ── odd streams ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "oddity", ["split_utf8", "slow_drip", "comments", "glued", "empty_deltas", "crlf", "no_usage", "no_done"]
)
def test_harmless_oddities_carry_the_whole_text(start, oddity):
    plain, odd = start(), start(scenario={"stream": [oddity]})
    expected, raw = plain.stream(QUESTION), odd.stream(QUESTION)
    assert streamed_text(raw) == streamed_text(expected)
    assert (b"[DONE]" in raw) == (oddity != "no_done")
    assert (b'"usage"' in raw) == (oddity != "no_usage")


def test_split_characters_and_drips_cross_the_borders_of_chunks(start):
    whole = start().wire()
    split = start(scenario={"stream": ["split_utf8"]}).wire()
    drip = start(scenario={"stream": ["slow_drip"]}).wire()
    borders = [data.count(b"\r\n") for data in (whole, split, drip)]
    assert borders[0] < borders[1] < borders[2]
    assert any(before[-1] >= 0xC0 for before in split.split(b"\r\n") if before), "no character was cut"


def test_malformed_event_stands_between_good_ones(start):
    raw = start(scenario={"stream": ["malformed"]}).stream(QUESTION)
    assert b'"bro\n\n' in raw
    assert raw.rstrip().endswith(b"data: [DONE]")


def test_early_end_cuts_the_response(start):
    with pytest.raises(http.client.IncompleteRead) as cut:
        start(scenario={"stream": ["early_eof"], "stream_at": 4}).stream(QUESTION)
    assert cut.value.partial.count(b"data: ") == 1 + 4


def test_error_in_mid_stream(start):
    raw = start(scenario={"stream": ["error_event"]}).stream(QUESTION)
    assert '"error"' in events(raw)[-1]
    assert b"[DONE]" not in raw


def test_reasoning_comes_in_its_own_field(start):
    raw = start(scenario={"stream": ["reasoning"], "stream_at": 5}).stream(QUESTION)
    assert raw.count(b'"reasoning_content"') == 4


def test_endless_stream_never_ends(start):
    with pytest.raises(TimeoutError):
        start(scenario={"stream": ["endless"]}).ask(
            CHAT, {"messages": [{"role": "user", "content": "x"}], "stream": True}, timeout_s=1.0
        )


# ── fast mode ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fast_mode_stamps_every_write_of_every_process(start, tmp_path):
    stamps = tmp_path / "stamps"
    timing = {"timing": {"ttft_ms": 60, "itl_ms": 5, "tokens": 20}}
    engine = start("--mode", "fast", "--processes", "2", "--stamps", str(stamps), scenario=timing)
    raws: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda n=n: raws.update({f"u{n}": engine.stream("x", user=f"u{n}")})) for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    engine.process.terminate()
    assert engine.process.wait(DEADLINE_S) == 0
    lines = [json.loads(line) for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert {line["key"] for line in lines} == raws.keys() == {f"u{n}" for n in range(16)}
    for line in lines:
        assert len(line["written_ns"]) == 20
        assert line["written_ns"][0] - line["received_ns"] >= 60e6
        assert line["written_ns"][-1] - line["received_ns"] >= (60 + 19 * 5) * 1e6
    assert all(json.loads(events(raw)[-2])["usage"]["completion_tokens"] == 20 for raw in raws.values())


# ── as an engine ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_engine_reads_its_surroundings_when_made(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMOPT_FAKE_ANSWERS", os.pathsep.join(["/a.jsonl", "/b.jsonl"]))
    monkeypatch.setenv("LLMOPT_FAKE_SCENARIO", "/s.json")
    monkeypatch.setenv("LLMOPT_FAKE_TIME_SCALE", "0.5")
    from llmopt.engines.base import RunFolder
    from llmopt.records import Endpoint, ModelInfo

    run = RunFolder(folder=tmp_path, endpoint=Endpoint(model="", socket_path="/e.sock"))
    model = ModelInfo(name="m", path="m", format="gguf")
    wanted = {
        "threads": 1,
        "slots": 1,
        "batch": 128,
        "context": 512,
        "precision": "q8",
        "cache_type": "f16",
        "flash_attention": "on",
    }
    argv = Fake().plan(model, wanted, run).argv
    assert [argv[i + 1] for i, part in enumerate(argv) if part == "--answers"] == ["/a.jsonl", "/b.jsonl"]
    assert argv[argv.index("--scenario") + 1] == "/s.json"
    assert "--time-scale=0.5" in argv
    assert "--precision=q8" in argv
