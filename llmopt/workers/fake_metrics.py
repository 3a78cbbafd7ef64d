"""Counters of the fake engine, told in the dialect of a real one."""

from __future__ import annotations

from dataclasses import dataclass

TEMPLATES = {
    "llamacpp": (
        ("llamacpp:requests_processing", "gauge", "running"),
        ("llamacpp:requests_deferred", "gauge", "waiting"),
        ("llamacpp:prompt_tokens_total", "counter", "prompt_tokens"),
        ("llamacpp:prompt_tokens_cached_total", "counter", "cached_tokens"),
        ("llamacpp:tokens_predicted_total", "counter", "generation_tokens"),
        ("llamacpp:n_decode_total", "counter", "steps"),
    ),
    "vllm": (
        ("vllm:num_requests_running", "gauge", "running"),
        ("vllm:num_requests_waiting", "gauge", "waiting"),
        ("vllm:kv_cache_usage_perc", "gauge", "kv_usage"),
        ("vllm:prompt_tokens_total", "counter", "prompt_tokens"),
        ("vllm:generation_tokens_total", "counter", "generation_tokens"),
        ("vllm:prefix_cache_hits_total", "counter", "cached_tokens"),
    ),
    "sglang": (
        ("sglang:num_running_reqs", "gauge", "running"),
        ("sglang:num_queue_reqs", "gauge", "waiting"),
        ("sglang:token_usage", "gauge", "kv_usage"),
        ("sglang:prompt_tokens_total", "counter", "prompt_tokens"),
        ("sglang:generation_tokens_total", "counter", "generation_tokens"),
        ("sglang:cached_tokens_total", "counter", "cached_tokens"),
    ),
}
DIALECTS = tuple(TEMPLATES)


@dataclass(kw_only=True)
class Counters:
    """What the engine did so far and does now."""

    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    steps: int = 0
    requests: int = 0
    kv_usage: float = 0.0


def render(counters: Counters, dialect: str, model: str) -> str:
    """The counters in the Prometheus text format of ``dialect``; all but llama.cpp's carry the model as a label."""
    label = "" if dialect == "llamacpp" else f'{{model_name="{model}"}}'
    lines = []
    for name, kind, field in TEMPLATES[dialect]:
        value = getattr(counters, field)
        lines += [f"# HELP {name} {field.replace('_', ' ')}", f"# TYPE {name} {kind}", f"{name}{label} {value}"]
    return "\n".join(lines) + "\n"
