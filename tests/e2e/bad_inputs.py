"""The table of bad inputs: what is typed, what lies in the workspace, and how it must end. One place for test and page.

``python -m tests.e2e.bad_inputs`` writes docs/bad-input.md and its Korean twin from what the commands really say;
tests/e2e/test_bad_input.py checks that they still say it.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Inline, Ran

TARGET = ROOT / "docs"
LANGUAGES = ("en", "ko")


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One bad input. ``names`` is what the sentence must name in both languages, whatever its words are."""

    words: str
    code: int
    names: str
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command the row belongs to; what never reaches one belongs to the program itself."""
        first = shlex.split(self.words)[0]
        return "" if first.startswith("-") or first == "optimise" else first


def bad(words: str, code: int, names: str, *, env: Mapping[str, str] | None = None, **files: str | bytes) -> Row:
    """A row whose files are given by keyword, ``__`` standing for ``/`` and ``_DOT_`` for a dot."""
    kept = {name.replace("__", "/").replace("_DOT_", "."): content for name, content in files.items()}
    return Row(words=words, code=code, names=names, files=kept, env=env or {})


CLOSED = {
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "0",
}
"""No hub and no package index: what a machine without a network sees."""
TUNE = "optimize --dry-run --dataset korean_math_easy"
MODELS = '{"schema_version": 1, "models": {"ours": {"model_path": "a/b", %s}}}'
ITEMS = '{"question": "1+1=", "answer": "2"}\n{"question": "2+2=", "answer": "4"}\n'

ROWS: tuple[Row, ...] = (
    # the program itself
    bad("optimise", 2, "optimize"),
    bad("--lang fr status", 2, "--lang"),
    bad("--verbose", 2, "--verbose"),
    # init
    bad("init --forse", 2, "--force"),
    bad("init now", 2, "now"),
    bad("init --lang fr", 2, "ko, en"),
    bad("init", 3, "--force", config__settings_DOT_json="{}"),
    bad("init --force", 3, "llm_config.json", llm_config_DOT_json='{\n  "models": [\n}'),
    bad("init --force", 3, "llm_config.json", llm_config_DOT_json=b"\xff\xfe\x00\x01"),
    bad("init --no-measure", 7, "config", config="a file where the folder should be"),
    # status
    bad("status --detail", 2, "--detailed"),
    bad("status all", 2, "all"),
    bad("status --json=yes", 2, "--json"),
    bad("status --detailed", 3, "streams", config__settings_DOT_json='{\n  "stream": 3\n}'),
    # optimize
    bad(f"{TUNE} --trails 3", 2, "--trials"),
    bad("optimize --model qwen2.5-7", 2, "qwen2.5-7b"),
    bad("optimize --model", 2, "--model"),
    bad("optimize --model ./nowhere.gguf --dataset korean_math_easy", 2, "nowhere.gguf"),
    bad(
        "optimize --model ./torn.gguf --dataset korean_math_easy", 6, "torn.gguf", torn_DOT_gguf=b"GGUF" + b"\xff" * 64
    ),
    bad("optimize --model smollm2-135m --dataset korean_math_easy", 6, "weights", env=CLOSED),
    bad("optimize --dataset korean_maths", 3, "korean_math"),
    bad("optimize --dry-run --dataset nowhere.jsonl", 3, "nowhere.jsonl"),
    bad("optimize --dry-run --dataset empty.jsonl", 3, "empty.jsonl", empty_DOT_jsonl=""),
    bad("optimize --dry-run --dataset odd.csv", 3, "question", odd_DOT_csv="a,b\n1,2\n"),
    bad("optimize --dry-run --dataset torn.jsonl", 3, "2", torn_DOT_jsonl='{"question": "1+1="}\n{"question\n'),
    bad("optimize --dry-run --dataset one.jsonl", 3, "one", one_DOT_jsonl=ITEMS.splitlines()[0]),
    bad("optimize --dry-run --dataset a.jsonl --column question", 2, "question=", a_DOT_jsonl=ITEMS),
    bad("optimize --dry-run --dataset a.jsonl --column question=text", 3, "text", a_DOT_jsonl=ITEMS),
    bad("optimize --dry-run --dataset a.jsonl --encoding klingon", 3, "klingon", a_DOT_jsonl=ITEMS),
    bad("optimize --dry-run --dataset a.jsonl --examples none.jsonl", 3, "none.jsonl", a_DOT_jsonl=ITEMS),
    bad("optimize --dataset korean_math_easy --engine vlm", 2, "vllm"),
    bad("optimize --dataset korean_math_easy --engine vllm", 5, "vllm", env={"LLMOPT_VLLM_COMMAND": "/nowhere/vllm"}),
    bad(f"{TUNE} --evaluator nobody", 2, "nobody"),
    bad(f"{TUNE} --trials 0", 2, "--trials"),
    bad(f"{TUNE} --trials many", 2, "--trials"),
    bad(f"{TUNE} --timeout -5", 2, "-5"),
    bad(f"{TUNE} --timeout nan", 2, "nan"),
    bad(f"{TUNE} --budget soon", 2, "soon"),
    bad(f"{TUNE} --timeout 5 --budget 5m", 2, "--budget"),
    bad(f"{TUNE} --method annealing", 2, "annealing"),
    bad(f"{TUNE} --strategy best", 2, "accuracy, creativity, speed"),
    bad(f"{TUNE} --objective beauty", 2, "beauty"),
    bad(f"{TUNE} --strategy speed --objective memory", 2, "--objective"),
    bad(f"{TUNE} --constraint 'ttft_p95 fast'", 2, "ttft_p95 fast"),
    bad(f"{TUNE} --constraint 'ttfb<3ms'", 2, "ttft"),
    bad(f"{TUNE} --constraint 'memory<2ms'", 2, "gb"),
    bad(f"{TUNE} --constraint 'memory<1GB' --constraint 'memory>2GB'", 2, "memory<1GB"),
    bad(f"{TUNE} --samples 1", 2, "--samples"),
    bad(f"{TUNE} --streams 0", 2, "--streams"),
    bad(f"{TUNE} --streams 2 --rate 1", 2, "--rate"),
    bad(f"{TUNE} --rate 0", 2, "--rate"),
    bad(f"{TUNE} --rate 1 --arrival monthly", 2, "constant, poisson, gamma"),
    bad(f"{TUNE} --burstiness 2", 2, "--burstiness"),
    bad(f"{TUNE} --rate 1 --arrival gamma --burstiness 0", 2, "--burstiness"),
    bad(f"{TUNE} --rate 1 --ramp 3", 2, "--ramp"),
    bad(f"{TUNE} --shared-prefix much", 2, "--shared-prefix"),
    bad(f"{TUNE} --max-tokens 0", 2, "--max-tokens"),
    bad(f"{TUNE} --seeds 0", 2, "--seeds"),
    bad(f"{TUNE} --seed -1", 2, "--seed"),
    bad(f"{TUNE} --price-per-hour -2", 2, "--price-per-hour"),
    bad(f"{TUNE} --name ../up", 2, "../up"),
    bad(f"{TUNE} --export report.docx", 2, "html, md, csv, json"),
    bad("optimize --engine openai --dataset korean_math_easy --url ftp://there", 3, "ftp://there"),
    bad("optimize --resume", 2, "llmopt optimize"),
    bad("optimize --resume nowhere", 3, "nowhere"),
    bad("optimize --resume x --trials 4", 2, "--trials"),
    # settings, .env and environment, which every command reads
    bad(TUNE, 3, "streams", config__settings_DOT_json='{\n  "stream": 3\n}'),
    bad(TUNE, 3, "settings.json", config__settings_DOT_json="{"),
    bad(TUNE, 3, "settings.json", config__settings_DOT_json="[1, 2]"),
    bad(TUNE, 3, "streams", config__settings_DOT_json='{"streams": "four"}'),
    bad(TUNE, 3, "settings.json", config__settings_DOT_json="{}".encode("utf-16")),
    bad(TUNE, 3, "LLMOPT_TRIALS", env={"LLMOPT_TRIALS": "lots"}),
    bad(TUNE, 3, "seed", _DOT_env="LLMOPT_SEED=lucky\n"),
    bad(TUNE, 3, ".env", _DOT_env=b"LLMOPT_MODEL=\xff\xfe\n"),
    bad("list --type models", 3, "models.json", config__models_DOT_json='{\n  "x": \n}'),
    bad("list --type models", 3, "dtype", config__models_DOT_json=MODELS % '"dtpe": "float16"'),
    bad("list --type models", 3, "float7", config__models_DOT_json=MODELS % '"dtype": "float7"'),
    bad(TUNE, 7, "llmopt.db", optimization_results__llmopt_DOT_db=b"this is no database" * 100),
    # benchmark
    bad("benchmark --dry-run --config x --model y", 2, "--config"),
    bad("benchmark --dry-run --config nowhere", 3, "nowhere"),
    bad("benchmark --dry-run --set threads", 2, "threads"),
    bad("benchmark --dry-run --set slots=many", 2, "slots"),
    bad("benchmark --dry-run --set colour=red", 2, "colour"),
    bad("benchmark --dry-run --precision 0%", 2, "0%"),
    bad("benchmark --dry-run --precision 5% --most-repeats 0", 2, "--most-repeats"),
    bad("benchmark --dry-run --repeats 0", 2, "--repeats"),
    bad("benchmark --dry-run --sweep-levels 3", 2, "--sweep"),
    bad("benchmark --dry-run --sweep --sweep-levels 0", 2, "--sweep-levels"),
    bad("benchmark --dry-run --sweep --precision 5%", 2, "--precision"),
    bad("benchmark --dry-run --slo fast", 2, "fast"),
    bad("benchmark --dry-run --choices maybe", 2, "generated, logprobs"),
    bad("benchmark --dry-run --choices logprobs", 2, "--quality-only"),
    bad("benchmark --dry-run --samples ten", 2, "--samples"),
    bad("benchmark --dry-run --bogus", 2, "--bogus"),
    # compare
    bad("compare --dry-run", 2, "--models A B"),
    bad("compare --dry-run --models qwen2.5-7b", 2, "--models A B"),
    bad("compare --dry-run qwen2.5-7b@threads llama3-8b", 2, "threads"),
    bad("compare --dry-run qwen2.5-7b llama3-9b", 2, "llama3-8b"),
    bad("compare --dry-run --baseline nowhere.json qwen2.5-7b", 3, "nowhere.json"),
    bad("compare --dry-run --baseline r.json qwen2.5-7b", 3, "r.json", r_DOT_json="{"),
    bad("compare --dry-run qwen2.5-7b llama3-8b --fail-if-worse lots", 2, "lots"),
    bad("compare --dry-run qwen2.5-7b llama3-8b --fail-if-worse 5%", 2, "--baseline"),
    bad("compare --dry-run qwen2.5-7b llama3-8b --most-repeats 4", 2, "--most-repeats"),
    bad("compare --dry-run qwen2.5-7b llama3-8b --repeats 1", 2, "--repeats"),
    # calibrate
    bad("calibrate --dry-run --pairs 0", 2, "--pairs"),
    bad("calibrate --dry-run --pairs some", 2, "--pairs"),
    bad("calibrate --model qwen2.5-7", 2, "qwen2.5-7b"),
    # estimate
    bad("estimate qwen2.5-7", 2, "qwen2.5-7b"),
    bad("estimate qwen2.5-7b --gpu h1000", 2, "h100"),
    bad("estimate qwen2.5-7b --streams 0", 2, "streams"),
    bad("estimate qwen2.5-7b --context 10", 2, "--context"),
    bad("estimate qwen2.5-7b --answer-tokens 0", 2, "--answer-tokens"),
    bad("estimate qwen2.5-7b --engine vlm", 2, "vllm"),
    # serve
    bad("serve", 2, "RESULT"),
    bad("serve nowhere", 3, "nowhere"),
    bad("serve nowhere --port 99999", 2, "99999"),
    bad("serve nowhere --restarts -1", 2, "-1"),
    bad("serve nowhere --host example.com", 2, "example.com"),
    bad("serve r.json", 3, "r.json", r_DOT_json='{"schema_version": 1}'),
    # report
    bad("report", 2, "RESULT"),
    bad("report nowhere", 3, "nowhere"),
    bad("report r.json", 3, "r.json", r_DOT_json="not json"),
    bad("report r.json", 3, "r.json", r_DOT_json='{"schema_version": 99}'),
    bad("report r.json --export picture.png", 2, "html, md, csv, json", r_DOT_json="{}"),
    # list
    bad("list --type planets", 2, "planets"),
    bad("list --limit 0", 2, "--limit"),
    bad("list --fits", 2, "--type models"),
    bad("list results", 2, "results"),
    bad("list", 7, "llmopt.db", optimization_results__llmopt_DOT_db=b"this is no database" * 100),
    # engines
    bad("engines instal", 2, "install"),
    bad("engines doctor vlm", 2, "vllm"),
    bad("engines install", 2, "ENGINE"),
    bad("engines install llamacpp", 2, "llamacpp"),
    # models
    bad("models shew", 2, "show"),
    bad("models add ours", 2, "PATH"),
    bad("models add ours team/ours --type vlm", 2, "vllm"),
    bad("models add ours team/ours --dtype float7", 2, "float16"),
    bad("models add ours team/ours --load-in-4bit --load-in-8bit", 3, "load_in_4bit"),
    bad("models add ours team/ours --temperature -1", 3, "temperature"),
    bad("models add ours team/ours --top-p 2", 3, "top_p"),
    bad("models add ours team/ours --sha256 abc", 3, "sha256"),
    bad("models add ours ./missing.gguf", 2, "missing.gguf"),
    bad("models add ours ./torn.gguf", 6, "torn.gguf", torn_DOT_gguf=b"GGUF" + b"\xff" * 64),
    bad("models add ours team/ours", 2, "--replace", config__models_DOT_json=MODELS % '"dtype": "auto"'),
    bad("models show qwen2.5-7", 2, "qwen2.5-7b"),
    bad("models remove nobody", 3, "nobody"),
    bad("models remove qwen2.5-7b", 2, "qwen2.5-7b"),
    # clean
    bad("clean", 2, "--all"),
    bad("clean --cash", 2, "--cache"),
    bad("clean --all", 2, "--yes"),
    # explain
    bad("explain", 2, "RESULT"),
    bad("explain nowhere", 3, "nowhere"),
    bad("explain r.json", 3, "r.json", r_DOT_json="{"),
    # rescore
    bad("rescore", 3, "optimize"),
    bad("rescore nowhere --evaluator nobody", 3, "llmopt.db"),
    # export
    bad("export study", 2, "STORAGE"),
    bad("export nowhere sqlite:///x.db", 3, "llmopt.db"),
    # completion
    bad("completion", 2, "SHELL"),
    bad("completion tcsh", 2, "bash, zsh, fish"),
)


def said(row: Row, language: str) -> Ran:
    """How ``row`` ends, in a workspace of its own; paths of that workspace are shown as ``.``."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        home, runtime = Path(folder, "home"), Path(folder, "run")
        home.mkdir()
        runtime.mkdir()
        for name, content in row.files.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        ran = Inline(home, runtime, patch).run(*shlex.split(row.words), lang=language, env=row.env)
        patch.chdir(ROOT)

    def shown(text: str) -> str:
        text = text.replace(str(home), ".").replace(str(runtime), "~/.cache").strip()
        return re.sub(r"\[Errno \d+\] ", "", text)

    return Ran(ran.code, shown(ran.out), shown(ran.err))


WORDS = {
    "en": {
        "title": "What is said to bad input",
        "other": "[한국어](bad-input.ko.md)",
        "intro": (
            "Every row is run in both languages by `tests/e2e/test_bad_input.py`, which also compares this page with what"
            " is said; `python -m tests.e2e.bad_inputs` writes it anew. No row ends in a traceback. `.` is the workspace."
        ),
        "codes": (
            "Exit codes: 2 usage, 3 data or settings, 4 does not fit, 5 engine, 6 network or weights, 7 storage"
            " (0 is done, 1 a bug, 8 a failed regression gate, 130 interrupted)."
        ),
        "program": "the program",
        "heads": "| typed | in the workspace | code | said |",
        "bytes": "{count} bytes",
    },
    "ko": {
        "title": "잘못된 입력에 하는 말",
        "other": "[English](bad-input.md)",
        "intro": (
            "모든 줄은 `tests/e2e/test_bad_input.py`가 두 언어로 실행하고 이 문서와 비교합니다. 다시 쓰기:"
            " `python -m tests.e2e.bad_inputs`. 어느 줄도 추적(traceback)으로 끝나지 않습니다. `.`은 작업 폴더입니다."
        ),
        "codes": (
            "종료 코드: 2 사용법, 3 데이터나 설정, 4 메모리 부족, 5 엔진, 6 네트워크나 가중치, 7 저장"
            " (0 끝남, 1 프로그램 결함, 8 회귀 검사 실패, 130 중단)."
        ),
        "program": "프로그램",
        "heads": "| 입력 | 작업 폴더 | 코드 | 출력 |",
        "bytes": "{count}바이트",
    },
}
SHOWN = 60


def page(language: str, ended: Mapping[Row, Ran]) -> str:
    """The whole page in one language, from how the rows ended."""
    words = WORDS[language]
    parts = [f"# {words['title']}", words["other"], words["intro"], words["codes"]]
    for command in dict.fromkeys(row.command for row in ROWS):
        rows = [row for row in ROWS if row.command == command]
        lines = [_line(row, ended[row], language) for row in rows]
        heading = f"## `llmopt {command}`" if command else f"## {words['program']}"
        parts.append("\n".join([heading, "", words["heads"], "| --- | --- | --- | --- |", *lines]))
    return "\n\n".join(parts) + "\n"


def _line(row: Row, ran: Ran, language: str) -> str:
    given = [f"`{name}`: {_content(content, language)}" for name, content in row.files.items()]
    given += [f"`{name}={value}`" for name, value in row.env.items() if row.env is not CLOSED]
    given += [{"en": "no network", "ko": "네트워크 없음"}[language]] if row.env is CLOSED else []
    cells = [f"`llmopt {row.words}`", "<br>".join(given), str(row.code), ran.err.replace("\n", "<br>")]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _content(content: str | bytes, language: str) -> str:
    if isinstance(content, bytes):
        return WORDS[language]["bytes"].format(count=len(content))
    text = " ".join(content.split())
    return (
        f"`{text if len(text) <= SHOWN else text[:SHOWN] + '…'}`" if text else WORDS[language]["bytes"].format(count=0)
    )


def path_of(language: str) -> Path:
    """Where the page of a language lies."""
    return TARGET / ("bad-input.md" if language == "en" else f"bad-input.{language}.md")


if __name__ == "__main__":
    for each in LANGUAGES:
        path_of(each).write_text(page(each, {row: said(row, each) for row in ROWS}), encoding="utf-8")
