"""What a shell offers after a pressed Tab: names of models, datasets, engines and studies; never an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from llmopt.errors import LlmoptError
from llmopt.paths import Workspace

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

__all__ = ["COMPLETIONS", "complete_models", "complete_own_models"]


def _completion(names: Callable[[Workspace], Iterable[str]], *, files: bool = False) -> Any:
    """A click completion over ``names``; a name that looks like a path is left to the shell where files may be."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        del ctx, param
        try:
            known = list(names(Workspace.here()))
        except (LlmoptError, OSError):  # a broken file is the command's to report, not the Tab key's
            known = []
        found = [CompletionItem(name) for name in known if name.startswith(incomplete)]
        return found if found or not files else [CompletionItem(incomplete, type="file")]

    return complete


def _models(workspace: Workspace) -> Iterable[str]:
    from llmopt.models.catalogue import model_names

    return model_names(workspace)


def _own_models(workspace: Workspace) -> Iterable[str]:
    from llmopt.config.models import ModelConfigManager

    return ModelConfigManager(workspace.models_file).list_configs()


def _datasets(workspace: Workspace) -> Iterable[str]:
    from llmopt.workload.datasets import dataset_names

    del workspace
    return dataset_names()


def _engines(workspace: Workspace) -> Iterable[str]:
    from llmopt.engines.registry import engine_names

    del workspace
    return engine_names()


def _studies(workspace: Workspace) -> Iterable[str]:
    if not workspace.database.exists():
        return ()
    from llmopt.store.database import Store

    with Store.open(workspace.database, read_only=True) as store:
        return [study.name for study in store.studies()]


complete_models = _completion(_models, files=True)
complete_own_models = _completion(_own_models)
COMPLETIONS = {
    "--model": complete_models,
    "--models": complete_models,
    "--dataset": _completion(_datasets, files=True),
    "--engine": _completion(_engines),
    "--resume": _completion(_studies),
    "--config": _completion(_studies, files=True),
    "--baseline": _completion(_studies, files=True),
}
"""Option → its completion; ``cli.options.option`` puts them on."""
