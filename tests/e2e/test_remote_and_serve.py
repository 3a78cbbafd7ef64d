"""A server that somebody else runs is tuned by request settings alone; a result is served, and Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from llmopt.engines.probing import worker

KEY = "sk-the-houses-own-key-7"
REMOTE = ("--dataset", "korean_math_easy", "--samples", "4", "--max-tokens", "16")
PATIENCE_S = 60


def first_line(process, wanted, patience_s=PATIENCE_S):
    """The first line on standard error that matches; fails where the process ends before."""
    for line in process.stderr:
        if found := re.search(wanted, line):
            return found
    pytest.fail(f"ended with {process.wait(patience_s)} without {wanted!r}")


@pytest.fixture
def house(tmp_path):
    """A server of somebody else that wants a key; its address."""
    key = tmp_path / "key"
    key.write_text(KEY)
    fake = [sys.executable, str(worker("fake_engine.py")), "--time-scale", "0.02"]
    process = subprocess.Popen(
        [*fake, "--alias", "house-model", "--port", "0", "--api-key-file", str(key)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield first_line(process, r"listening on (http://\S+)")[1] + "/v1"
    finally:
        process.kill()
        process.communicate()


def test_a_remote_server_is_tuned_by_request_settings_and_its_key_is_written_nowhere(cli, house):
    asked = ("optimize", "--url", house, "--model", "house-model", *REMOTE, "--trials", "4", "--name", "far")
    ran = cli.run(*asked, env={"OPENAI_API_KEY": KEY})
    assert ran.code == 0, ran.err
    found = json.loads((cli.folder / "optimization_results" / "far" / "result.json").read_text(encoding="utf-8"))
    best = found["best"]["configuration"]
    assert best["engine"] == "openai"
    assert found["command"]["line"] == house, "what is used is the address"
    assert "memory_bytes" not in found["best"]["search"]["estimates"], "its memory is not ours to see"
    tried = [trial["configuration"] for trial in found["trials"]]
    assert len(tried) == 4
    assert all(not one["launch"] for one in tried), "nothing is launched, so no launch setting is searched"
    assert len({json.dumps(one["request"], sort_keys=True) for one in tried}) == 4
    written = [path for path in (*cli.folder.rglob("*"), *cli.runtime.rglob("*")) if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert KEY not in ran.out + ran.err
    served = cli.run("serve", "far", "--lang", "en")
    assert served.code == 2
    assert "somebody else runs" in served.err
    cli.wait_until_clean()


def test_a_wrong_key_and_an_address_where_nobody_is_are_said_with_the_next_step(inline, house):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and never listening
        silent = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        for url, key, said in [
            (house, "wrong", {"en": "OPENAI_API_KEY", "ko": "OPENAI_API_KEY"}),
            (silent, KEY, {"en": "refused", "ko": "거부"}),
        ]:
            for lang in ("en", "ko"):
                env = {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": url}
                model = ("--engine", "openai", "--model", "house-model", "--name", f"{lang}-{key[:5]}")
                ran = inline.run("benchmark", *model, *REMOTE, lang=lang, env=env)
                assert ran.code in (5, 6), ran.err
                assert said[lang] in ran.err, ran.err
                assert key not in ran.err
                assert "Traceback" not in ran.err


@pytest.mark.parametrize("lang", ["en", "ko"])
@pytest.mark.parametrize("wish", [("--objective", "memory"), ("--constraint", "memory<2GB")])
def test_memory_is_not_asked_of_a_server_elsewhere(inline, lang, wish):
    asked = ("optimize", "--url", "http://127.0.0.1:9/v1", "--model", "house-model", *REMOTE, *wish)
    ran = inline.run(*asked, lang=lang)
    assert ran.code == 2, ran.err
    assert {"en": "cannot be seen", "ko": "볼 수 없습니다"}[lang] in ran.err


def test_serving_a_result_answers_until_ctrl_c_and_leaves_nothing(cli):
    fast = {"LLMOPT_FAKE_TIME_SCALE": "0.02"}
    made = cli.run("optimize", "--dry-run", *REMOTE, "--trials", "2", "--name", "won", env=fast)
    assert made.code == 0, made.err
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        port = probing.getsockname()[1]
    process = cli.start("serve", "won", "--port", str(port), "--json", env=fast)
    ready = next(event for line in process.stdout if (event := json.loads(line))["event"] == "serving")
    assert ready["pids"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out + err
    assert "Traceback" not in out + err
    assert not [pid for pid in ready["pids"] if psutil.pid_exists(pid)]
    assert not list(cli.runtime.rglob("*.key")), "the key goes with the server"
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
    cli.wait_until_clean()
