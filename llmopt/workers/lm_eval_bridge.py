"""A bridge to lm-evaluation-harness: its tasks' prompts out, its own scores of our answers back, as JSON lines.

Stand-alone: started by path with an interpreter that has ``lm_eval``, which never enters our own process. Reads one
request a line from standard input (``open``, ``score``) and answers each with one line on standard output; all that
lm_eval itself prints goes to standard error. Ends when standard input does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TextIO

GENERATION = "generate_until"
LIKELIHOOD = ("multiple_choice", "loglikelihood")
"""Tasks that are scored by how likely given continuations are."""
_PREFERRED = ("exact_match", "acc", "f1")


class Tasks:
    """The tasks opened so far, by name, with the request of every document."""

    def __init__(self) -> None:
        self._tasks: dict[str, Any] = {}
        self._requests: dict[str, Any] = {}

    def open(self, *, task: str, include: str | None = None, limit: int | None = None, **_: Any) -> dict[str, Any]:
        """Prompts of a task, or of all tasks of a group; a refusal where one of them needs what no server gives."""
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=include)
        if task not in manager.all_tasks:
            near = get_close_matches(task, manager.all_tasks, n=3, cutoff=0.5)
            return {"event": "refused", "reason": "unknown", "near": near}
        found = manager.load(task)["tasks"]
        for name, one in found.items():
            if one.OUTPUT_TYPE not in (GENERATION, *LIKELIHOOD):
                return {"event": "refused", "reason": "log_likelihood", "task": name, "type": one.OUTPUT_TYPE}
        items = [item for name, one in found.items() for item in self._items(name, one, limit)]
        return {"event": "opened", "items": items, "version": _version()}

    def _items(self, name: str, task: Any, limit: int | None) -> list[dict[str, Any]]:
        return (
            self._likelihoods(name, task, limit) if task.OUTPUT_TYPE in LIKELIHOOD else self._chats(name, task, limit)
        )

    def _likelihoods(self, name: str, task: Any, limit: int | None) -> list[dict[str, Any]]:
        """(context, continuation) pairs of every document, as plain text: the harness's own way for such tasks."""
        task.build_all_requests(
            limit=limit, apply_chat_template=False, fewshot_as_multiturn=False, chat_template=None, tokenizer_name=""
        )
        self._tasks[name] = task
        found: dict[str, dict[str, Any]] = {}
        for request in sorted(task.instances, key=lambda one: (one.doc_id, one.idx)):
            key = f"{name}/{request.doc_id}"
            self._requests[key] = request
            context, continuation = request.arguments[0], request.arguments[1]
            item = found.setdefault(
                key,
                {
                    "id": key,
                    "task": name,
                    "messages": [{"role": "user", "content": context}],
                    "target": _text(task.doc_to_target(request.doc)),
                    "max_tokens": None,
                    "stop": [],
                    "likelihood": [],
                },
            )
            item["likelihood"].append([context, continuation])
        return list(found.values())

    def _chats(self, name: str, task: Any, limit: int | None) -> list[dict[str, Any]]:
        task.build_all_requests(
            limit=limit,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            chat_template=_as_json,
            tokenizer_name="json",
        )
        self._tasks[name] = task
        items = []
        for request in task.instances:
            context, settings = request.arguments[0], request.arguments[1]
            key = f"{name}/{request.doc_id}"
            self._requests[key] = request
            items.append(
                {
                    "id": key,
                    "task": name,
                    "messages": json.loads(context),
                    "target": _text(task.doc_to_target(request.doc)),
                    "max_tokens": settings.get("max_gen_toks"),
                    "stop": settings.get("until") or [],
                }
            )
        return items

    def score(self, *, id: str, text: str, **_: Any) -> dict[str, Any]:  # noqa: A002 - the name in the protocol
        """lm_eval's own filters and metrics on one answer, as its first filter and preferred metric see it."""
        request = self._requests[id]
        task = self._tasks[request.task_name]
        for stop in request.arguments[1].get("until") or []:
            text = text.split(stop, 1)[0] if stop else text
        request.resps, request.filtered_resps = [text], {}
        for one in task._filters:  # noqa: SLF001 - lm_eval applies them to whole tasks only; we score answer by answer
            one.apply([request])
        name, kept = next(iter(request.filtered_resps.items()))
        metrics = task.process_results(request.doc, [kept])
        return _scored(request, metrics, name, _text(kept))

    def score_likelihoods(self, *, id: str, results: list[list[Any]], **_: Any) -> dict[str, Any]:  # noqa: A002
        """lm_eval's own metrics on the likelihoods of one document's continuations."""
        request = self._requests[id]
        found = [(float(log), bool(greedy)) for log, greedy in results]
        metrics = self._tasks[request.task_name].process_results(request.doc, found)
        best = max(range(len(found)), key=lambda place: found[place][0])
        return _scored(request, metrics, "likelihood", str(best))


def _scored(request: Any, metrics: dict[str, Any], name: str, extracted: str) -> dict[str, Any]:
    """One answer's value by the preferred metric that is a share."""
    chosen = next((m for m in (*_PREFERRED, *metrics) if _is_share(metrics.get(m))), None)
    if chosen is None:
        return {"event": "refused", "reason": "metric", "task": request.task_name, "metrics": sorted(metrics)}
    return {
        "event": "scored",
        "value": float(metrics[chosen]),
        "metric": chosen,
        "filter": name,
        "extracted": extracted,
    }


def _as_json(messages: list[dict[str, str]], **_: Any) -> str:
    """A chat template that keeps the messages as they are, for the engine to apply its own."""
    return json.dumps([dict(message) for message in messages], ensure_ascii=False)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return _text(value[0]) if value else ""
    return str(value)


def _version() -> str:
    from importlib.metadata import version

    return version("lm_eval")


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer each request line until there are no more; whatever one request raises is its answer."""
    tasks = Tasks()
    deeds: dict[str, Callable[..., dict[str, Any]]] = {
        "open": tasks.open,
        "score": tasks.score,
        "likelihoods": tasks.score_likelihoods,
    }
    for line in requests:
        request = json.loads(line)
        try:
            deed = deeds[request.pop("do")]
            answer = deed(**request)
        except Exception as problem:  # noqa: BLE001 - the boundary to lm_eval: a task's own code may raise anything
            lines = [one.strip() for one in str(problem).splitlines() if one.strip()]
            reason = f"{type(problem).__name__}: {lines[0] if lines else ''}"
            answer = {"event": "refused", "reason": "failed", "detail": reason[:400]}
        answers.write(json.dumps(answer, ensure_ascii=False) + "\n")
        answers.flush()


def main() -> None:
    """Keep standard output for the answers alone, whatever lm_eval prints."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
