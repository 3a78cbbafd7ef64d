"""Every figure on processes, memory, errors and storage, in full: pieces that can be interrupted and continued.

    python benchmarks/survive.py --out FOLDER                # all of it, about an hour and a half on two cores
    python benchmarks/survive.py --out FOLDER --only fuzz    # one piece; a name is also a prefix of several
    python benchmarks/survive.py --out FOLDER --list

Each piece is one run of a script beside this one and leaves FOLDER/NAME.json; a piece that is there already is not
run again. The piece ``torch`` needs an interpreter with torch and transformers, named by LLMOPT_TORCH_PYTHON. At the
end, and with ``--summary`` alone, FOLDER/summary.json tells which pieces held what the specification asks. Exit code 1
where one did not, or is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
AGAIN = 3
"""The exit code of a script that wants to be called again with the same arguments."""
STATE_PARTS = 10


def pieces() -> dict[str, list[str]]:
    """Name → script and arguments; ``{out}`` is the piece's file, ``{model}`` the smallest real model."""
    faults, real = "process_faults.py", ["--engine", "llamacpp", "--model", "{model}"]
    found = {"cycles-fake": [faults, "--cycles", "200", "--out", "{out}"]}
    found |= {f"kills-fake-{n}": [faults, "--kills", "50", "--seed", str(n), "--out", "{out}"] for n in range(4)}
    found |= {
        "thefts": [faults, "--thefts", "100", "--out", "{out}"],
        "cycles-llamacpp": [faults, *real, "--cycles", "30", "--out", "{out}"],
        "kills-llamacpp": [faults, *real, "--kills", "20", "--out", "{out}"],
        "resume-fake": ["kill_and_resume.py", "--engine", "fake", "--kills", "200", "--minutes", "4", "--out", "{out}"],
        "resume-llamacpp": ["kill_and_resume.py", "--kills", "20", "--out", "{out}"],
        "torch": ["gpu_memory.py", "--cycles", "500", "--seconds", "3600", "--out", "{out}.d"],
        "catalogue": ["failure_catalogue.py", "--out", "{out}"],
        "leaks": ["leak_watch.py", "--repeats", "2000", "--out", "{out}"],
        "fuzz": ["input_fuzz.py", "--files", "10000", "--headers", "2000", "--out", "{out}"],
    }
    for fault in ("disk_full", "read_only", "clock_jump", "locked", "power_loss"):
        found[f"storage-{fault}"] = ["storage_faults.py", "--full", "--only", fault, "--out", "{out}"]
    for part in range(STATE_PARTS):
        test = str(HERE.parent / "tests" / "integration" / "test_guardian_states.py")
        found[f"states-{part}"] = [
            "-m",
            "pytest",
            "-q",
            "-m",
            "long",
            "--timeout",
            "3600",
            "-k",
            f"TestLonger{part}",
            test,
        ]
    return found


def command(name: str, words: list[str], out: Path) -> list[str] | None:
    """The whole command of a piece; None where it cannot be run here."""
    python = sys.executable
    if name == "torch":
        python = os.environ.get("LLMOPT_TORCH_PYTHON", "")
        if not python:
            return None
    values = {"{out}": str(out), "{out}.d": str(out.with_suffix(".d")), "{model}": ""}
    if "{model}" in words:
        values["{model}"] = str(_model())
    words = [values.get(word, word) for word in words]
    return [python, *words] if words[0] == "-m" else [python, str(HERE / words[0]), *words[1:]]


def _model() -> Path:
    """The smallest real model, fetched where it is not here."""
    from llmopt.models.catalogue import find_model  # noqa: PLC0415 - only the real engine needs it
    from llmopt.models.weights import ensure_weights  # noqa: PLC0415
    from llmopt.paths import Workspace  # noqa: PLC0415

    workspace = Workspace.here()
    return ensure_weights(find_model("smollm2-135m", workspace), workspace=workspace)


def run(name: str, words: list[str], folder: Path, *, once: bool = False) -> dict[str, Any]:
    """Run one piece, again while it asks for it (not with ``once``: then its code stays None); what is known of it."""
    out = folder / f"{name}.json"
    whole = command(name, words, out)
    if whole is None:
        return {"piece": name, "code": None, "why": "LLMOPT_TORCH_PYTHON names no interpreter"}
    began_s, log = time.monotonic(), folder / f"{name}.log"
    code = AGAIN
    with log.open("a", encoding="utf-8") as said:
        while code == AGAIN:
            code = subprocess.run(whole, stdout=said, stderr=said, check=False).returncode
            if once and code == AGAIN:
                return {"piece": name, "code": None, "why": "not finished: call it again"}
    shown = " ".join(words).replace("{out}", f"OUT/{name}.json").replace("{model}", "MODEL.gguf")
    shown = shown.replace(str(HERE.parent) + os.sep, "")
    return {"piece": name, "code": code, "seconds": round(time.monotonic() - began_s), "command": shown}


def known(folder: Path) -> Iterator[dict[str, Any]]:
    """What earlier runs left of each piece."""
    for name in pieces():
        file = folder / f"{name}.done"
        yield json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"piece": name, "code": None}


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    packages = {name: metadata.version(name) for name in ("xllamacpp", "psutil", "hypothesis") if _here(name)}
    return {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count(), **packages}


def _here(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def main() -> int:
    """Run the chosen pieces and sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--once", action="store_true", help="leave what wants to go on to the next call")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {name: words for name, words in pieces().items() if name.startswith(options.only)}
    if options.list:
        print("\n".join(chosen))
        return 0
    for name, words in chosen.items() if not options.summary else ():
        done = folder / f"{name}.done"
        if not done.exists():
            found = run(name, words, folder, once=options.once)
            print(found, flush=True)
            if found["code"] is not None:
                done.write_text(json.dumps(found) + "\n", encoding="utf-8")
    rows = [row for row in known(folder) if row["piece"] in chosen]
    summary = {"machine": machine(), "pieces": rows, "not_held": [row["piece"] for row in rows if row["code"] != 0]}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary["not_held"]))
    return 1 if summary["not_held"] else 0


if __name__ == "__main__":
    sys.exit(main())
