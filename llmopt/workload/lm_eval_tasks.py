"""Tasks of lm-evaluation-harness through its own package, in a process of its own: ``lm_eval:TASK``.

Generation tasks run on every engine, put as the chat messages lm_eval itself would send and scored by lm_eval's own
filters and metrics. Tasks that need log-likelihoods are asked only where a running engine proves that it gives them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llmopt.errors import DataError
from llmopt.messages import t
from llmopt.records import Item
from llmopt.runtime.environment import TELEMETRY_OFF
from llmopt.workload.splits import assign_splits, draw

__all__ = ["LIKELIHOOD", "PREFIX", "Bridge", "bridge_to", "load_task", "named_task"]

PREFIX = "lm_eval:"
LIKELIHOOD = "likelihood"
"""In an item's meta: the (context, continuation) pairs whose log-likelihoods are its answer."""
INTERPRETER_VARIABLE = "LLMOPT_LM_EVAL_PYTHON"
"""Names a Python that has lm_eval, where ours has not."""

SWITCHES = {"PYTHONSAFEPATH": "1", "PYTHONIOENCODING": "utf-8", "TQDM_DISABLE": "1", **TELEMETRY_OFF}
_STOP_S = 10.0


class Bridge:
    """A running bridge process; answers one request at a time, ends with the last reference to it or with us."""

    def __init__(self, interpreter: str) -> None:
        script = Path(__file__).resolve().parents[1] / "workers" / "lm_eval_bridge.py"
        self._process = subprocess.Popen(
            [interpreter, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, **SWITCHES},
        )
        self._lock = threading.Lock()
        self._opened: set[tuple[str, str, int | None]] = set()
        self.close = weakref.finalize(self, _stop, self._process)

    def open(self, task: str, include: str, limit: int | None) -> list[dict[str, Any]]:
        """The documents of a task; raises DataError with the reason where it cannot be used."""
        answer = self._ask({"do": "open", "task": task, "include": include or None, "limit": limit})
        if answer["event"] == "refused":
            raise _refusal(task, answer)
        self._opened.add((task, include, limit))
        items: list[dict[str, Any]] = answer["items"]
        return items

    def score(self, source: Mapping[str, Any], text: str) -> dict[str, Any]:
        """lm_eval's score of one answer to the document that ``source`` (an item's meta) names."""
        task, include, limit = str(source["task"]), str(source["include"]), source["limit"]
        if (task, include, limit) not in self._opened:
            self.open(task, include, limit)
        answer = self._ask({"do": "score", "id": source["id"], "text": text})
        if answer["event"] == "refused":
            raise _refusal(task, answer)
        return answer

    def score_likelihoods(self, source: Mapping[str, Any], results: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """lm_eval's score of one document by the [log-likelihood, greedy] of each of its continuations."""
        task, include, limit = str(source["task"]), str(source["include"]), source["limit"]
        if (task, include, limit) not in self._opened:
            self.open(task, include, limit)
        answer = self._ask({"do": "likelihoods", "id": source["id"], "results": [list(one) for one in results]})
        if answer["event"] == "refused":
            raise _refusal(task, answer)
        return answer

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            line = ""
            with contextlib.suppress(OSError):
                assert self._process.stdin is not None
                assert self._process.stdout is not None
                self._process.stdin.write(json.dumps(request, ensure_ascii=False) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
        if not line:
            self.close()
            raise DataError("data.lm_eval_died", status=self._process.returncode)
        answer: dict[str, Any] = json.loads(line)
        return answer


def _stop(process: subprocess.Popen[str]) -> None:
    """Close its input, which ends it; a bridge that does not listen is killed."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


@cache
def bridge_to(interpreter: str) -> Bridge:
    """The one bridge of this process for an interpreter."""
    return Bridge(interpreter)


def interpreter_with_lm_eval() -> str:
    """Our own Python where lm_eval is installed, else the one ``LLMOPT_LM_EVAL_PYTHON`` names; raises DataError."""
    named = os.environ.get(INTERPRETER_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise DataError("data.lm_eval_python", variable=INTERPRETER_VARIABLE, path=named)
        return named
    if importlib.util.find_spec("lm_eval") is None:
        raise DataError("data.no_lm_eval", variable=INTERPRETER_VARIABLE)
    return sys.executable


def named_task(source: str) -> tuple[str, str] | None:
    """Task, and folder of local task files, of ``lm_eval:TASK``, ``…:FOLDER/TASK`` or ``…:FILE.yaml``; else None."""
    if not source.startswith(PREFIX):
        return None
    name = source.removeprefix(PREFIX)
    path = Path(name).expanduser()
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise DataError("data.no_file", path=path)
        return _task_of(path), str(path.resolve().parent)
    if len(path.parts) > 1 and path.parent.is_dir():
        return path.name, str(path.parent.resolve())
    return name, ""


def _task_of(path: Path) -> str:
    """The ``task:`` of a YAML file, without a YAML reader: it stands at the beginning of a line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("task:"):
            return line.removeprefix("task:").strip().strip("\"'")
    raise DataError("data.lm_eval_no_task", path=path)


def load_task(
    task: str, include: str, *, seed: int, size: int | None
) -> tuple[tuple[Item, ...], tuple[tuple[str, Mapping[str, Any]], ...]]:
    """The items of a task, drawn and split by hash, and the notes to show."""
    interpreter = interpreter_with_lm_eval()
    documents = bridge_to(interpreter).open(task, include, None)
    items = [_item(document, task, include, interpreter) for document in documents]
    wanted = min(len(items), size or len(items))
    drawn = [item for _, item in list(draw(((item.id, item) for item in items), wanted, seed))[:wanted]]
    drawn.sort(key=lambda item: item.id)
    limits = {document["max_tokens"] for document in documents}
    note = ("data.lm_eval_protocol", {"task": task, "max_tokens": max((n for n in limits if n), default="-")})
    return assign_splits(drawn, examples=False), (note,)


def _item(document: Mapping[str, Any], task: str, include: str, interpreter: str) -> Item:
    messages = document["messages"]
    return Item(
        id=document["id"],
        question=messages[-1]["content"],
        answers=(document["target"],) if document["target"] else (),
        kind="lm_eval",
        meta={
            "messages": messages,
            "max_tokens": document["max_tokens"],
            "stop": document["stop"],
            **({LIKELIHOOD: document[LIKELIHOOD]} if LIKELIHOOD in document else {}),
            "lm_eval": {"task": task, "include": include, "limit": None, "id": document["id"], "python": interpreter},
        },
    )


def _refusal(task: str, answer: Mapping[str, Any]) -> DataError:
    reason = answer["reason"]
    if reason == "unknown":
        return DataError("data.lm_eval_unknown", task=task, near=", ".join(answer["near"]) or t("data.none"))
    if reason == "log_likelihood":
        return DataError("data.lm_eval_log_likelihood", task=answer["task"], type=answer["type"])
    if reason == "metric":
        return DataError("data.lm_eval_metric", task=answer["task"], metrics=", ".join(answer["metrics"]))
    return DataError("data.lm_eval_failed", task=task, detail=str(answer["detail"]))
