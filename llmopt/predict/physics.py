"""Time from work: moving bytes, computing, waiting, and the few constants that turn peaks into what engines reach.

Time per output token of a replica that decodes B sequences, each step being

    bytes / (bandwidth · share) + operations / (peak · share) + exchange + layers · layer + 2 · layers · wait
    + B · sequence + experts touched · layers / 60 · expert

while the prompts of the other B - 1 sequences, one of each in every ``output_tokens`` steps, hold it up by
``interference`` times their computing time. Moving and computing add up: on measured rows of 2026 engines that fitted
better than the larger of the two.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

from llmopt.predict.devices import DeviceSpec
from llmopt.predict.work import Work

__all__ = ["Constants", "answer_seconds", "output_token_seconds", "prompt_seconds", "step_seconds"]


_LAYERS_OF_A_LARGE_MODEL = 60
"""So that ``expert_s`` is the cost of one more expert in a step of a model of the usual depth."""


@dataclass(frozen=True)
class Constants:
    """What an engine reaches on a class of architectures; all positive, times in seconds."""

    bandwidth_share: float = 0.8
    compute_share: float = 0.5
    layer_s: float = 40e-6
    exchange_s: float = 5e-6
    interference: float = 1.5
    sequence_s: float = 10e-6
    expert_s: float = 4e-6

    def values(self) -> tuple[float, ...]:
        """In the order of ``names``."""
        return astuple(self)

    @staticmethod
    def names() -> tuple[str, ...]:
        """The fields in order."""
        return tuple(field.name for field in fields(Constants))


def step_seconds(work: Work, spec: DeviceSpec, constants: Constants) -> float:
    """One decode step of all running sequences."""
    moving = (work.weight_bytes + work.cache_bytes) / (spec.bandwidth * constants.bandwidth_share)
    serving = work.serving
    computing = (
        work.dense_flops / spec.flops_at(serving.arithmetic_bits)
        + work.expert_flops / spec.flops_at(serving.expert_arithmetic_bits)
        + work.attention_flops / spec.flops_at(16)
    ) / constants.compute_share
    exchange = work.exchange_bytes / spec.link_bandwidth if work.exchange_bytes and spec.link_bandwidth else 0.0
    waiting = work.layers * constants.layer_s + work.exchanges * constants.exchange_s
    grouped = work.experts_touched * work.layers / _LAYERS_OF_A_LARGE_MODEL * constants.expert_s
    hosting = serving.sequences * constants.sequence_s + grouped
    return moving + computing + exchange + waiting + hosting


def prompt_seconds(work: Work, spec: DeviceSpec, constants: Constants) -> float:
    """Computing one prompt, nothing else running."""
    serving = work.serving
    computing = (
        work.prompt_dense_flops / spec.flops_at(serving.arithmetic_bits)
        + work.prompt_expert_flops / spec.flops_at(serving.expert_arithmetic_bits)
        + work.prompt_attention_flops / spec.flops_at(16)
    )
    return computing / constants.compute_share / spec.prompt_speedup


def output_token_seconds(work: Work, spec: DeviceSpec, constants: Constants) -> float:
    """Time per output token in a steady closed loop, other requests' prompts included."""
    serving = work.serving
    others = (serving.sequences - 1) / max(1, serving.output_tokens)
    return step_seconds(work, spec, constants) + others * constants.interference * prompt_seconds(work, spec, constants)


def answer_seconds(work: Work, spec: DeviceSpec, constants: Constants) -> float:
    """Time one answer holds its place in a steady closed loop: its own prompt, then its tokens."""
    own = prompt_seconds(work, spec, constants)
    return own + work.serving.output_tokens * output_token_seconds(work, spec, constants)
