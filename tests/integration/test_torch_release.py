"""A real torch model in this process: five hundred guarded loads and releases, memory back every time.

Runs where torch is installed: ``python -m pytest -m heavy tests/integration/test_torch_release.py``.
"""

from __future__ import annotations

import gc
import os

import pytest

from llmopt.hardware.guard import MemoryNotReturned, ResourceManager
from llmopt.hardware.tree import tree_memory

pytestmark = pytest.mark.heavy
torch = pytest.importorskip("torch")

MIB = 1 << 20
CYCLES = 500
PLACES = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


def load(place: str, mebibytes: int = 64):
    """A module of about this size, used once so that every buffer is really taken."""
    width = int((mebibytes * MIB / 4 / 4) ** 0.5)
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(4))).to(place)
    with torch.no_grad():
        model(torch.ones(8, width, device=place))
    return model


def own_bytes() -> int:
    return tree_memory([os.getpid()]).anonymous_bytes


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("place", PLACES)
def test_five_hundred_cycles_return_to_the_baseline(place: str) -> None:
    manager = ResourceManager()
    load(place)
    with manager.memory_guard("first", required_gb=0.25):  # libraries and thread pools settle once
        load(place)
    baseline = own_bytes()
    kept = []
    for cycle in range(CYCLES):
        with manager.memory_guard(f"cycle {cycle}", required_gb=0.25, strict=True) as guard:
            model = guard.register(load(place))
            if cycle % 10 == 0:
                kept.append(model)  # a caller that forgets to let go: the storage goes all the same
        assert guard.report.verified
    assert len(manager.releases) == CYCLES + 1
    assert own_bytes() - baseline < 48 * MIB
    if place != "cpu":
        assert torch.cuda.memory_allocated(place) < 4 * MIB
        assert torch.cuda.memory_reserved(place) < 64 * MIB
    assert all(parameter.device.type == "meta" for model in kept for parameter in model.parameters())


@pytest.mark.parametrize("place", PLACES)
def test_a_model_that_fails_while_loading_is_let_go(place: str) -> None:
    def fails() -> None:
        model = load(place, 256)
        raise RuntimeError(f"half way with {sum(p.numel() for p in model.parameters())}")

    manager = ResourceManager()
    with manager.memory_guard("settle"):
        pass
    baseline = own_bytes()
    with pytest.raises(RuntimeError, match="half way"), manager.memory_guard("fails", required_gb=0.5, strict=True):
        fails()
    assert manager.releases[-1].verified
    assert own_bytes() - baseline < 64 * MIB


def test_an_unregistered_model_that_stays_is_named() -> None:
    manager = ResourceManager(within_s=0)
    keeper = {}

    def hide() -> None:
        with manager.memory_guard("leaky", required_gb=0.25, strict=True):
            keeper["the_culprit"] = load("cpu", 512)

    with pytest.raises(MemoryNotReturned) as caught:
        hide()
    held = caught.value.report.held
    assert held[0].place == "cpu"
    assert sum(each.total_bytes for each in held) >= 500 * MIB
    keeper.clear()
    gc.collect()
    manager.cleanup_all_devices()
