"""Engines older than their last known hole are told apart from newer ones."""

from __future__ import annotations

import pytest

from llmopt.engines.registry import engine_names, get_engine
from llmopt.engines.safety import MINIMUM_SAFE, safety
from llmopt.records import Installation


@pytest.mark.parametrize(
    ("engine", "version", "safe"),
    [
        ("vllm", "0.17.1", False), ("vllm", "0.18.0", True), ("vllm", "0.32.0+cpu", True), ("vllm", "1.0", True),
        ("sglang", "0.5.9", False), ("sglang", "0.5.23", True), ("llamacpp", "b8907", False), ("llamacpp", "b8908", True),
        ("llamacpp", "2026.10.11549", True), ("llamacpp", "2025.6.5000", False), ("llamacpp", "unknown", None),
    ],
)  # fmt: skip
def test_a_version_is_judged(engine: str, version: str, safe: bool | None) -> None:
    found = safety(Installation(engine=engine, available=True, version=version))
    assert found.safe is safe
    assert found.advisories
    assert all(name.startswith("CVE-") for name in found.advisories)


def test_what_is_not_here_or_has_no_known_hole_is_not_judged() -> None:
    assert safety(Installation(engine="vllm", available=False)) is None
    assert safety(Installation(engine="fake", available=True, version="1")) is None


def test_every_name_is_an_engine_and_the_one_that_comes_with_us_is_safe() -> None:
    assert set(MINIMUM_SAFE) <= set(engine_names())
    ours = safety(get_engine("llamacpp").installation())
    assert ours is None or ours.safe
