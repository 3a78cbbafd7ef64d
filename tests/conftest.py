"""Fixtures several test folders share. Weights are fetched once into the user's cache, never into the clone."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmopt.models.catalogue import find_model
from llmopt.models.weights import ensure_weights
from llmopt.paths import Workspace


def _weights(name: str) -> Path:
    workspace = Workspace.here()
    return ensure_weights(find_model(name, workspace), workspace=workspace)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The smallest real model (SmolLM2-135M, a GGUF file of 98 MB)."""
    return _weights("smollm2-135m")


@pytest.fixture(scope="session")
def demo_model_05b() -> Path:
    """The default demo model (Qwen2.5-Coder-0.5B, a GGUF file of 491 MB)."""
    return _weights("qwen2.5-coder-0.5b")
