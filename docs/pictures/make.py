"""Make the pictures of docs/pictures/ from runs: a screen of every command, and every kind of report.

    python docs/pictures/make.py run FOLDER       the runs, on the scripted engine (some minutes)
    python docs/pictures/make.py screens FOLDER   screens of every command, 80 columns, both languages
    python docs/pictures/make.py reports FOLDER   the HTML reports in a browser (chromium; Pillow makes the files small)
    python docs/pictures/make.py pages            README.md and README.ko.md, which show them

FOLDER holds the workspaces of the runs, one a language; begin with an empty one. A line of a screen that is wider than 80 cells is told (a command to copy is).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import screen  # noqa: E402 - beside this script

from llmopt.cli.app import COMMANDS  # noqa: E402

LANGUAGES = ("en", "ko")
TASK = "--dry-run --dataset korean_math_easy"
RUNS = {
    "optimize": f"optimize {TASK} --samples 8 --trials 8 --name tuned",
    "benchmark": f"benchmark {TASK} --samples 16 --repeats 4 --price-per-hour 0.2 --name one",
    "sweep": f"benchmark {TASK} --samples 8 --sweep --sweep-levels 4 --sweep-seconds 4 --slo 'ttft<2s' --name swept",
    "compare": "compare smollm2-135m smollm2-135m@prompt_form=examples --dry-run --dataset korean_math_easy "
    "--samples 16 --name two",
    "calibrate": f"calibrate {TASK} --samples 4 --pairs 2",
}
"""Run once for their results; their screens are taken on the way."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A screen: its file's name, the command line, and when to take it or to stop the command."""

    name: str
    line: str
    until: str = ""
    """Ctrl-C once this is on the screen."""
    before: tuple[str, ...] = field(default_factory=tuple)
    """Commands that prepare it, not shown."""
    head: int = 0
    """Show so many lines at most."""


SHOTS = (
    Shot(name="init", line="init --auto-detect"),
    Shot(name="status", line="status"),
    Shot(name="status-detailed", line="status --detailed", head=70),
    Shot(name="estimate", line="estimate qwen2.5-7b --gpu h100"),
    Shot(name="serve", line="serve demo --port 8099", until="Ctrl-C"),
    Shot(name="report", line="report demo --export html"),
    Shot(name="list-results", line="list"),
    Shot(name="list-models", line="list --type models --limit 12"),
    Shot(name="list-datasets", line="list --type datasets"),
    Shot(name="list-errors", line="list --type errors", before=("benchmark --model ./none.gguf",)),
    Shot(name="engines", line="engines"),
    Shot(name="engines-doctor", line="engines doctor llamacpp vllm"),
    Shot(name="models", line="models show smollm2-135m"),
    Shot(name="clean", line="clean --all", until="[y/N]"),
    Shot(name="explain", line="explain tuned"),
    Shot(name="rescore", line="rescore one"),
    Shot(name="export", line="export tuned sqlite:///tuned.db"),
    Shot(name="completion", line="completion bash", head=30),
)
REPORTS = {"optimize": "demo", "benchmark": "swept", "compare": "two"}
"""Kind of report → the study it is made of (``demo`` is the published one, docs/measurements/demo-run)."""
LOOKS = (("en", "light"), ("ko", "dark"), ("en", "dark"), ("ko", "light"))
TALLEST = 6000
README_TALL = 1500
PANEL_LINES = 14
"""The live panel is taken when it has so many lines."""


def environment(folder: Path, language: str) -> dict[str, str]:
    """Ours, with everything kept below ``folder``; paths on the pictures are short."""
    runtime = folder / ".runtime"
    runtime.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMOPT_") or "WEIGHTS" in name}
    return {
        **kept,
        "LLMOPT_HOME": str(folder),
        "LLMOPT_LANG": language,
        "LLMOPT_LOCK_FILE": str(runtime / "lock"),
        "XDG_STATE_HOME": str(runtime),
        "LANG": "C.UTF-8",
        "LLMOPT_FAKE_TIME_SCALE": "0.1",
    }


def take(shot: Shot, folder: Path, language: str) -> None:
    """One screen, as an SVG file."""
    env = environment(folder, language)
    program = [sys.executable, str(ROOT / "main.py")]
    for line in shot.before:
        subprocess.run([*program, *shlex.split(line)], cwd=folder, env=env, check=False, capture_output=True)
    if shot.name == "init":
        shutil.rmtree(folder / "config", ignore_errors=True)
    stop = (lambda now: any(shot.until in line for line in now.text())) if shot.until else None
    lines, _, code = screen.run([*program, *shlex.split(shot.line)], folder=folder, env=env, stop_when=stop)
    shown = [*lines[: shot.head], "…"] if 0 < shot.head < len(lines) else lines
    save(shot.name, shot.line, language, shown, folder)
    if code not in (0, 130, 5):
        print(f"{shot.name} ({language}): exit code {code}")


def save(name: str, line: str, language: str, lines: list[str], folder: Path) -> None:
    """Write a screen; tell where it is too wide."""
    shown = [shortened(one, folder) for one in lines]
    wide = [one for one in shown if screen.cell_len(one) > screen.COLUMNS]
    for one in wide:
        print(f"{name} ({language}): {screen.cell_len(one)} cells: {one[:60]}…")
    # what is longer than the terminal is wrapped by it
    wrapped = [part for one in shown for part in screen.pieces(one)]
    (HERE / f"{name}.{language}.svg").write_text(screen.svg(f"llmopt {line}", f"llmopt {line}", wrapped), "utf-8")


def shortened(line: str, folder: Path) -> str:
    """A line without the folders of the machine it was taken on."""
    for path, name in ((folder, "~/work"), (ROOT, "~/llmopt"), (Path(sys.prefix), "~/venv"), (Path.home(), "~")):
        line = line.replace(str(path), name)
    return line


def runs(folder: Path, only: list[str], languages: list[str]) -> None:
    """The long runs in a workspace a language, each with a screen at its end, and optimize's with one on the way."""
    program = [sys.executable, str(ROOT / "main.py")]
    for language in languages:
        home = workspace(folder, language)
        for name in only or list(RUNS):
            seen = (lambda now: len(now.text()) > PANEL_LINES) if name == "optimize" else None
            lines, panel, code = screen.run(
                [*program, *shlex.split(RUNS[name])],
                folder=home,
                env=environment(home, language),
                snapshot_when=seen,
                patience_s=600,
            )
            print(f"{name} ({language}): exit code {code}")
            if panel:
                save("optimize-running", RUNS[name], language, panel, home)
            save(name, RUNS[name], language, lines, home)


def workspace(folder: Path, language: str) -> Path:
    """The workspace of a language's runs, with the published demo run in it."""
    home = folder / language
    home.mkdir(parents=True, exist_ok=True)
    demo = home / "optimization_results" / "demo"
    if not demo.exists():
        shutil.copytree(ROOT / "docs" / "measurements" / "demo-run", demo)
    return home


# ── reports ────────────────────────────────────────────────────────────────────────────────────────────────────────


def reports(folder: Path, only: list[str], chromium: str) -> None:
    """Every kind of report in every look, as the browser draws it."""
    for kind, study in REPORTS.items():
        if only and kind not in only:
            continue
        home = workspace(folder, "en") / "optimization_results" / study
        with tempfile.TemporaryDirectory() as made:
            page = Path(made) / "report.html"
            subprocess.run(
                [sys.executable, str(ROOT / "main.py"), "report", str(home / "result.json"), "--export", str(page)],
                env=environment(folder, "en"),
                check=True,
                capture_output=True,
            )
            page.write_text(shortened(page.read_text(encoding="utf-8"), folder), encoding="utf-8")
            for language, theme in LOOKS:
                shoot(page, HERE / f"report-{kind}.{language}.{theme}.png", language, theme, chromium)
            for language in LANGUAGES if study == "demo" else ():
                shoot(page, HERE / f"demo-run.{language}.png", language, "light", chromium, tallest=README_TALL)


def shoot(page: Path, target: Path, language: str, theme: str, chromium: str, *, tallest: int = TALLEST) -> None:
    """One look of a page, whole or its first ``tallest`` pixels, in few colours."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'(name="(?:lang|theme)"[^>]*?) checked', r"\1", text)
    for name in (f"lang-{language}", f"theme-{theme}"):
        text = text.replace(f'id="{name}"', f'id="{name}" checked')
    measure = "<script>setTimeout(()=>{document.title='h='+document.documentElement.scrollHeight},4000)</script></body>"
    looked = page.with_name(f"{language}-{theme}.html")
    looked.write_text(text.replace("</body>", measure), encoding="utf-8")
    base = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=8000"]
    dom = subprocess.run(
        [*base, "--window-size=1000,2000", "--dump-dom", looked.as_uri()], capture_output=True, text=True, check=True
    ).stdout
    height = min(tallest, int(re.findall(r"<title>h=(\d+)", dom)[0]))
    shot = page.with_name("shot.png")
    subprocess.run(
        [*base, f"--window-size=1000,{height}", f"--screenshot={shot}", looked.as_uri()],
        capture_output=True,
        check=True,
    )
    from PIL import Image

    with Image.open(shot) as image:
        image.convert("RGB").quantize(48).save(target, optimize=True)
    print(f"{target.name}: {height} pixels, {target.stat().st_size // 1024} kB")


# ── the pages that show them ───────────────────────────────────────────────────────────────────────────────────────

WORDS = {
    "en": {
        "title": "Pictures",
        "other": "[한국어](README.ko.md)",
        "intro": "Terminal screens of 80 columns and the HTML reports, as [make.py](make.py) takes them. What says\n"
        "`--dry-run` ran on the scripted engine, in place of a model; `report`, `explain`, `serve` and the HTML report of\n"
        "`optimize` show the [published demo run](../measurements/demo-run.md) on real llama.cpp.",
        "screens": "Screens",
        "reports": "Reports",
        "running": "While it runs",
    },
    "ko": {
        "title": "그림",
        "other": "[English](README.md)",
        "intro": "80칸 터미널 화면과 HTML 보고서의 그림이며, [make.py](make.py)가 실행해 만듭니다.\n"
        "`--dry-run`이 적힌 것은 모델 대신 각본 엔진으로 돌린 것이고, `report`, `explain`, `serve`, `optimize`의 HTML 보고서는\n"
        "실제 llama.cpp로 돌린 [공개한 데모 실행](../measurements/demo-run.md)의 것입니다.",
        "screens": "화면",
        "reports": "보고서",
        "running": "실행 중",
    },
}


def screen_names() -> list[tuple[str, str]]:
    """(file's name, command line) of every screen, in the order of the command table."""
    lines = {"optimize-running": RUNS["optimize"], **RUNS, **{shot.name: shot.line for shot in SHOTS}}
    order = list(COMMANDS)
    return sorted(lines.items(), key=lambda pair: order.index(pair[1].split()[0]))


def pages() -> dict[str, str]:
    """File name → text of the pages that show every picture of a language that is here."""
    made = {}
    for language, words in WORDS.items():
        parts = [f"# {words['title']}", words["other"], words["intro"]]
        taken = [(name, line) for name, line in screen_names() if (HERE / f"{name}.{language}.svg").exists()]
        parts += [f"## {words['screens']}"] if taken else []
        for name, line in taken:
            extra = f" — {words['running']}" if name.endswith("-running") else ""
            parts += [f"### `llmopt {line}`{extra}", f"![llmopt {line}]({name}.{language}.svg)"]
        parts.append(f"## {words['reports']}")
        for kind in REPORTS:
            shots = [f"report-{kind}.{language}.{theme}.png" for theme in ("light", "dark")]
            shots = [name for name in shots if (HERE / name).exists()]
            parts += [f"### `{kind}`", *(f"![{name}]({name})" for name in shots)] if shots else []
        suffix = "" if language == "en" else f".{language}"
        made[f"README{suffix}.md"] = "\n\n".join(parts) + "\n"
    return made


def main() -> None:
    """What the first word says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "screens", "reports", "pages"])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--lang", nargs="*", default=list(LANGUAGES))
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    given = parser.parse_args()
    if given.what == "pages":
        for name, text in pages().items():
            (HERE / name).write_text(text, encoding="utf-8")
        return None
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if given.what == "run":
        return runs(folder, given.only, given.lang)
    if given.what == "reports":
        return reports(folder, given.only, given.chromium)
    for language in given.lang:
        for shot in SHOTS:
            if not given.only or shot.name in given.only:
                take(shot, workspace(folder, language), language)
    return None


if __name__ == "__main__":
    main()
