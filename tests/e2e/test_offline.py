"""A machine without a network: whole commands with every way out blocked, and nobody asked who was not named.

Two fences: a guard in our own process that refuses and notes every connection beyond loopback (proxies lead nowhere as
well), and, where the system allows it, a network namespace without any device, which also holds the engines.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache

import pytest

from llmopt.runtime.environment import TELEMETRY_OFF
from tests.e2e.conftest import ROOT

GUARD = """
import ipaddress, os, socket
NOTES = os.environ["NETWORK_NOTES"]
def refuse(where):
    with open(NOTES, "a", encoding="utf-8") as file:
        file.write(f"{where}\\n")
    raise OSError(101, "Network is unreachable")
def beyond(host):
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host not in ("localhost", "", None)
class Guarded(socket.socket):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and beyond(address[0]):
            refuse(address)
        return super().connect(address)
    def connect_ex(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and beyond(address[0]):
            refuse(address)
        return super().connect_ex(address)
socket.socket = Guarded
asked = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    name = host.decode() if isinstance(host, bytes) else host
    if name is not None and beyond(name):
        refuse(name)
    return asked(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""
FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.01"}
STUDY = ("optimize", "--dry-run", "--trials", "3", "--samples", "4", "--dataset", "korean_math_easy")
REAL = (
    *("benchmark", "--engine", "llamacpp", "--dataset", "korean_math_easy"),
    *("--samples", "2", "--repeats", "1", "--streams", "2", "--max-tokens", "4", "--name", "real"),
)
NAMESPACE = ("unshare", "--user", "--map-root-user", "--net")


@pytest.fixture
def fenced(cli, tmp_path):
    """Run a command within both fences; returns how it ended and where it wanted to go."""
    notes = tmp_path / "notes"
    notes.touch()
    (tmp_path / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    program = [*(NAMESPACE if namespaces() else ()), sys.executable, str(ROOT / "main.py")]
    fence = {"PYTHONPATH": str(tmp_path), "NETWORK_NOTES": str(notes), "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": ""}
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")

    def run(*arguments, proxy="http://127.0.0.1:9", **more):
        through = {name: proxy for name in proxies if proxy}
        ran = subprocess.run(
            [*program, *arguments],
            cwd=cli.folder,
            env=cli.environment({**fence, **FAST, **through, **more}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        return ran, notes.read_text(encoding="utf-8").splitlines()

    return run


@cache
def namespaces() -> bool:
    """Whether this system lets a user make a network of its own."""
    if shutil.which(NAMESPACE[0]) is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode == 0


def test_the_fence_sees_who_is_asked_where_weights_are_only_on_a_hub(fenced, tmp_path):
    run = ("benchmark", "--model", "qwen2.5-0.5b", "--samples", "2", "--repeats", "1")
    ran, asked = fenced(*run, proxy="", LLMOPT_WEIGHTS_CACHE=str(tmp_path / "empty"))
    assert ran.returncode == 6, ran.stderr
    assert "qwen2.5-0.5b-instruct-q4_k_m.gguf" in ran.stderr, "the file that can be carried in is named"
    assert asked, "the fence must see a hub being asked"
    assert all("huggingface.co" in where for where in asked), asked


def test_a_whole_study_needs_no_network(fenced, cli, gguf_bytes):
    (cli.folder / "model.gguf").write_bytes(gguf_bytes({"general.architecture": "llama"}))
    ran, asked = fenced(*STUDY, "--model", "./model.gguf", "--name", "s")
    assert ran.returncode == 0, ran.stderr
    assert (cli.folder / "optimization_results" / "s" / "report.html").is_file()
    assert asked == []
    cli.wait_until_clean()


def test_a_real_engine_and_a_local_file_need_no_network(fenced, cli, demo_model):
    ran, asked = fenced(*REAL, "--model", str(demo_model))
    assert ran.returncode == 0, ran.stderr
    found = json.loads((cli.folder / "optimization_results" / "real" / "result.json").read_text(encoding="utf-8"))
    assert found["sides"][0]["figures"]["error_rate"]["value"] == 0
    assert asked == []
    cli.wait_until_clean()


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--detailed"),
        ("init", "--auto-detect", "--no-measure"),
        ("list", "--type", "models"),
        ("list", "--type", "datasets"),
        ("engines",),
        ("estimate", "qwen2.5-7b"),
        ("models", "show", "qwen2.5-7b"),
    ],
    ids=" ".join,
)
def test_what_needs_no_weights_asks_nobody(fenced, arguments):
    ran, asked = fenced(*arguments)
    assert ran.returncode in (0, 4), ran.stderr
    assert asked == []


def test_the_second_fence_has_no_network_device():
    if not namespaces():
        pytest.skip("this system allows no user or network namespaces: the guard alone was tested")
    look = "print(open('/proc/net/dev').read())"
    seen = subprocess.run([*NAMESPACE, sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout
    assert [line.split(":")[0].strip() for line in seen.splitlines() if ":" in line] == ["lo"]


@pytest.mark.parametrize("page", ["offline.md", "offline.ko.md"])
def test_the_page_names_every_switch(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for name, value in TELEMETRY_OFF.items():
        row = next(line for line in text.splitlines() if line.startswith("| `") and f"`{name}`" in line)
        assert f"`{value}`" in row
