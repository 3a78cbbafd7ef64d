"""How light the tool is: start-up against a bare interpreter, direct dependencies, size of an installation.

    python benchmarks/footprint.py [--runs 15] [--install] [--out FILE]

Start-up times are medians of interleaved runs, given as ratios to ``python -c pass`` of the same interpreter in the
same minute. ``--install`` builds a fresh environment from the package index and weighs it (no weights are fetched).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "bare": ["-c", "pass"],
    "--help": ["-m", "llmopt", "--help"],
    "list": ["-m", "llmopt", "list", "--type", "results"],
    "list models": ["-m", "llmopt", "list", "--type", "models"],
    "status": ["-m", "llmopt", "status"],
}
LIMITS = {"--help": 6.0, "list": 15.0, "list models": 15.0, "status": 15.0}


def time_once(arguments: list[str], folder: str) -> float:
    environment = {**os.environ, "LLMOPT_HOME": folder}
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, check=True)
    return time.perf_counter() - began


def start_up(runs: int) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for arguments in COMMANDS.values():
            time_once(arguments, folder)
        for _ in range(runs):
            for name, arguments in COMMANDS.items():
                times[name].append(time_once(arguments, folder))
    bare = statistics.median(times["bare"])
    return {
        name: {
            "median_ms": 1000 * statistics.median(values),
            "ratio": statistics.median(values) / bare,
            "ratio_low": sorted(values)[len(values) // 4] / bare,
            "ratio_high": sorted(values)[3 * len(values) // 4] / bare,
            "runs": len(values),
        }
        for name, values in times.items()
    }


def direct_dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[<>=;! ]", requirement)[0] for requirement in project["dependencies"]]


def installed_bytes() -> tuple[int, bool]:
    """Bytes of a fresh environment with the core installation, and whether a torch came with it."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = Path(folder) / "bin" / "pip"
        subprocess.run([pip, "install", "-q", str(ROOT)], check=True)
        files = [path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink()]
        return sum(path.stat().st_size for path in files), any(
            path.name == "torch" for path in Path(folder).rglob("torch")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    started, direct = start_up(chosen.runs), direct_dependencies()
    found: dict[str, Any] = {"start_up": started, "direct_dependencies": direct, "python": sys.version.split()[0]}
    for name, figures in started.items():
        limit = f" (limit {LIMITS[name]:g})" if name in LIMITS else ""
        spread = f"{figures['ratio_low']:.1f}–{figures['ratio_high']:.1f}"
        print(
            f"{name:12s} {figures['median_ms']:7.0f} ms  × {figures['ratio']:.1f} ({spread}, "
            f"n={figures['runs']}){limit}"
        )
    print(f"{len(direct)} direct dependencies (limit 15): {', '.join(direct)}")
    if chosen.install:
        size, torch = installed_bytes()
        found |= {"installed_bytes": size, "torch": torch}
        print(f"installed: {size / 1e6:.0f} MB (limit 550), torch: {'yes' if torch else 'no'}")
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
