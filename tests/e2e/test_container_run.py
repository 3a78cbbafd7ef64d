"""A real engine in a real container: measured, and cleared away when the program is interrupted or killed.

Not part of the ordinary run: ``python -m pytest -m heavy tests/e2e/test_container_run.py`` where Docker answers and a
``llama-server`` is on PATH; the image is made of it and the libraries it needs. Half a minute.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "llmopt-test/llama-server:local"
TASK = ["--model", "smollm2-135m", "--engine", "llamacpp", "--dataset", "korean_math_easy", "--samples", "4"]

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


def docker(*arguments, **more):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, **more).stdout


def containers():
    """The containers of the program's runs."""
    return docker("ps", "--all", "--quiet", "--filter", "label=llmopt.run").split()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image of this machine's llama-server and the libraries that it and its own libraries need."""
    server = shutil.which("llama-server")
    if server is None or shutil.which("docker") is None:
        pytest.skip("needs Docker, and a llama-server on PATH")
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("Docker does not answer")
    folder = Path(server).resolve().parent
    own = [Path(server).resolve(), *folder.glob("*.so*")]
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    needed: set[str] = set()
    for file in own:
        told = subprocess.run(["ldd", str(file)], capture_output=True, text=True, env=env, check=False).stdout
        needed |= {path for path in re.findall(r"(/\S+)", told) if not path.startswith(str(folder))}
    path = tmp_path_factory.mktemp("image") / "image.tar"
    with tarfile.open(path, "w", dereference=True) as tar:
        for file in own:
            tar.add(file, f"app/{file.name}")
        for name in sorted(needed):
            tar.add(name, name.lstrip("/"))
    docker("import", "--change", "ENV LD_LIBRARY_PATH=/app", str(path), IMAGE)
    yield IMAGE
    docker("rmi", "--force", IMAGE)


@pytest.fixture
def env(image, tmp_path):
    return {**os.environ, "LLMOPT_HOME": str(tmp_path), "LLMOPT_LLAMACPP_IMAGE": image}


def test_its_processes_are_measured_as_without_a_container(env, tmp_path):
    argv = [sys.executable, str(ROOT / "main.py"), "benchmark", *TASK, "--repeats", "1", "--max-tokens", "16", "--json"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    peaks = re.findall(r'"memory_bytes": \{"value": ([0-9.]+)', json.dumps(result))
    assert peaks, "memory is measured"
    assert all(float(peak) > 200e6 for peak in peaks), "the server's memory, not that of the tool's client"
    assert containers() == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_it_when_the_program_ends(env, end):
    argv = [sys.executable, str(ROOT / "main.py"), "optimize", *TASK, "--trials", "3"]
    program = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: len(containers()) == 1, 60)
        program.send_signal(end)
        assert program.wait(30) == (130 if end == signal.SIGINT else -signal.SIGKILL)
        assert until(lambda: containers() == [], 10)
    finally:
        program.kill()
        program.wait()
