"""``llmopt serve``: run the configuration that won, watch it, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmopt.cli.lines import fitted
from llmopt.cli.options import Output, debug_option, json_option, lang_option, option
from llmopt.messages import t

if TYPE_CHECKING:
    from llmopt.study.events import Event

__all__ = ["command"]

PORT, RESTARTS = 8080, 3


@click.command("serve", help=t("cli.serve.long"), short_help=t("cli.serve.short"))
@click.argument("result")
@option("--port", key="serve.port", type=int, default=PORT, show_default=True)
@option("--host", key="serve.host", default="127.0.0.1", show_default=True)
@option("--key-file", key="serve.key_file", type=click.Path(path_type=Path), default=None)
@option("--restarts", key="serve.restarts", type=int, default=RESTARTS, show_default=True)
@json_option
@debug_option
@lang_option
def command(*, as_json: bool, debug: bool, **given: Any) -> int:
    """Serve until Ctrl-C, which is how it is meant to end."""
    from llmopt.config.settings import load_settings
    from llmopt.logs import configure_logging
    from llmopt.measure.client import run
    from llmopt.paths import Workspace
    from llmopt.study.serving import ServeRequest, prepare_serving, serve

    output, workspace = Output(as_json=as_json), Workspace.here()
    request = ServeRequest(**given)
    settings = load_settings(workspace)
    configure_logging(workspace.logs, debug=debug)

    def told(event: Event) -> None:
        if as_json:
            output.line({"event": event.kind, **event.data})
        else:
            _say(output, event)

    served = prepare_serving(request, workspace, settings, told)
    try:
        run(serve(served, request, workspace=workspace, listener=told))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0
    return 0


def _say(output: Output, event: Event) -> None:
    data = event.data
    if event.kind == "note":
        output.say(fitted(t(data["key"], **data["values"])))
    elif event.kind == "memory":
        output.say(fitted(t("serve.level", **data)))
    elif event.kind == "serving":
        output.say(t("serve.ready", model=data["model"], url=data["url"]))
        keyed = data["key_file"] is not None
        output.say(fitted(t("serve.key", path=data["key_file"]) if keyed else t("serve.no_key")))
        if data["request"]:
            output.say(fitted(t("serve.request", settings=json.dumps(data["request"], ensure_ascii=False))))
        output.say(t("serve.try", command=_trial(data)))
        output.say(t("serve.same", command=data["command"]))
        output.say(fitted(t("serve.log", path=data["log"])))
        output.say(t("serve.stop"))


def _trial(data: Any) -> str:
    """A request to copy into another terminal; the key is read from its file and stands in no command line."""
    sampling = {name: value for name, value in data["request"].items() if name in {"temperature", "top_p"}}
    body = {"model": data["model"], "messages": [{"role": "user", "content": "1+1="}], "max_tokens": 16, **sampling}
    key = f'-H "Authorization: Bearer $(cat {data["key_file"]})" ' if data["key_file"] else ""
    content = json.dumps(body, ensure_ascii=False)
    return f"curl -s {key}-H 'Content-Type: application/json' -d '{content}' {data['url']}/chat/completions"
