"""Which layer keeps what: full attention, a sliding window, a recurrent state or nothing, read from a model's settings.

One letter a layer: ``F`` full attention, ``S`` sliding window (or chunk), ``R`` constant recurrent state, ``B`` both
attention and state, ``N`` no cache of its own (feed-forward only, or sharing another layer's cache), ``?`` a kind
this version does not know.
"""

from __future__ import annotations

from llmopt.models.fields import Fields

__all__ = ["layer_kinds", "pattern_kinds", "recurrent_inner", "state_elements"]

_KIND_OF_TYPE = {
    "full_attention": "F",
    "attention": "F",
    "global_attention": "F",
    "deepseek_sparse_attention": "F",
    "sliding_attention": "S",
    "chunked_attention": "S",
    "local_attention": "S",
    "linear_attention": "R",
    "mamba": "R",
    "mamba2": "R",
    "conv": "R",
    "recurrent": "R",
    "hybrid": "B",
    "mlp": "N",
    "moe": "N",
}
_KIND_OF_SIGN = {"M": "R", "*": "F", "-": "N", "E": "N"}
"""Nemotron-H's pattern signs: Mamba, attention, feed-forward, experts."""
_PATTERN_OF_FAMILY = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3_text": 6,
    "gemma3n": 5,
    "gemma3n_text": 5,
    "cohere2": 4,
    "gpt_oss": 2,
    "olmo3": 4,
}
"""Every n-th layer is full where a family's code says so and its config.json need not."""
_ALL_RECURRENT = {"mamba", "mamba2", "falcon_mamba"}
_CHUNKED_PERIOD = 4
"""Llama 4: three chunked layers, then one without rotary positions that sees everything."""


def pattern_kinds(layers: int, period: int) -> str:
    """``period - 1`` sliding layers, then a full one, over and over; period 1 is all full, 0 all sliding."""
    return "".join("F" if period and (index + 1) % period == 0 else "S" for index in range(layers))


def layer_kinds(config: Fields, layers: int) -> str:
    """The letter of each layer as ``config`` (the merged config.json) states it."""
    kinds = _listed(config, layers) or _hybrid(config, layers) or _windowed(config, layers)
    shared = config.integer("num_kv_shared_layers", low=0, high=layers) or 0
    return kinds[: layers - shared] + "N" * shared


def _listed(config: Fields, layers: int) -> str | None:
    """From an explicit list of layers."""
    for name in ("layer_types", "layers_block_type"):
        types = config.texts(name)
        if types is not None and len(types) >= layers:
            return "".join(_KIND_OF_TYPE.get(kind, "?") for kind in types[:layers])
    signs = config.text("hybrid_override_pattern")
    if signs is not None and len(signs) >= layers and set(signs) <= set(_KIND_OF_SIGN):
        return "".join(_KIND_OF_SIGN[sign] for sign in signs[:layers])
    sliding = config.integers("hybrid_layer_pattern")
    if sliding is not None and len(sliding) >= layers:
        return "".join("S" if flag else "F" for flag in sliding[:layers])
    return None


def _hybrid(config: Fields, layers: int) -> str | None:
    """From the places of the few attention layers among recurrent ones."""
    if config.text("model_type") in _ALL_RECURRENT:
        return "R" * layers
    if config.text("model_type") == "falcon_h1":
        return "B" * layers
    full: set[int] | None = None
    kda = config.inner("linear_attn_config")
    if kda is not None and kda.integers("full_attn_layers") is not None:
        full = {index - 1 for index in kda.integers("full_attn_layers") or ()}
    for name in ("attn_layer_indices", "full_attn_idxs"):
        if config.integers(name) is not None:
            full = set(config.integers(name) or ())
    period = config.integer("attn_layer_period")
    if period is not None:
        offset = config.integer("attn_layer_offset", low=0) or 0
        full = set(range(offset, layers, period))
    interval = config.integer("full_attention_interval")
    if interval is not None:
        full = set(range(interval - 1, layers, interval))
    return None if full is None else "".join("F" if index in full else "R" for index in range(layers))


def _windowed(config: Fields, layers: int) -> str:
    """From a window and the rule which layers it holds for."""
    if config.integer("attention_chunk_size") is not None and config.integer("sliding_window") is None:
        return pattern_kinds(layers, _CHUNKED_PERIOD)
    if config.integer("sliding_window") is None or config.flag("use_sliding_window") is False:
        return "F" * layers
    text = config.text("sliding_window_pattern")
    if text is not None:  # EXAONE 4 writes LLLG: local, local, local, global
        if not text or set(text) - {"L", "G"}:
            raise config.bad("sliding_window_pattern")
        return "".join("S" if text[index % len(text)] == "L" else "F" for index in range(layers))
    period = config.integer("sliding_window_pattern", "_sliding_window_pattern")
    period = period or _PATTERN_OF_FAMILY.get(config.text("model_type") or "")
    if period is not None:
        return pattern_kinds(layers, period)
    first_windowed = config.integer("max_window_layers", low=0) if config.flag("use_sliding_window") else None
    first_windowed = min(first_windowed or 0, layers)
    return "F" * first_windowed + "S" * (layers - first_windowed)


def state_elements(config: Fields) -> tuple[int, int] | None:
    """Elements one sequence keeps in one recurrent layer: (convolution, state); None where the family is not known.

    Mamba-2: (k-1)·(inner + 2·groups·state) and inner·state; Mamba-1 has no groups; gated delta networks keep a
    key × value matrix a head; LFM2 keeps the convolution only.
    """
    kda = config.inner("linear_attn_config")
    if kda is not None:
        heads, width, kernel = kda.integer("num_heads"), kda.integer("head_dim"), kda.integer("short_conv_kernel_size")
        return ((kernel - 1) * 3 * heads * width, heads * width * width) if heads and width and kernel else None
    value_heads, value_dim = config.integer("linear_num_value_heads"), config.integer("linear_value_head_dim")
    key_heads, key_dim = config.integer("linear_num_key_heads"), config.integer("linear_key_head_dim")
    if value_heads and value_dim and key_heads and key_dim:
        kernel = config.integer("linear_conv_kernel_dim") or 4
        return (kernel - 1) * (2 * key_heads * key_dim + value_heads * value_dim), value_heads * key_dim * value_dim
    hidden = config.integer("hidden_size")
    if config.integer("conv_L_cache") is not None and hidden:
        return ((config.integer("conv_L_cache") or 1) - 1) * hidden, 0
    return _mamba_elements(config, hidden)


def recurrent_inner(config: Fields) -> int | None:
    """Width of a recurrent layer's inner stream, which its input and output projections share; None if not known."""
    heads, width = config.integer("linear_num_value_heads"), config.integer("linear_value_head_dim")
    if heads and width:
        return heads * width
    return _mamba_inner(config, config.integer("hidden_size"))


def _mamba_inner(config: Fields, hidden: int | None) -> int | None:
    heads = config.integer("mamba_n_heads", "mamba_num_heads")
    width = config.integer("mamba_d_head", "mamba_head_dim")
    expand = config.integer("mamba_expand", "expand")
    inner = config.integer("mamba_d_ssm") or (heads * width if heads and width else None)
    return inner or (expand * hidden if expand and hidden else None)


def _mamba_elements(config: Fields, hidden: int | None) -> tuple[int, int] | None:
    state = config.integer("mamba_d_state", "ssm_state_size", "state_size")
    kernel = config.integer("mamba_d_conv", "conv_kernel")
    inner = _mamba_inner(config, hidden)
    if not state or not kernel or not inner:
        return None
    many_heads = config.integer("mamba_n_heads", "mamba_num_heads") is not None
    groups = (config.integer("mamba_n_groups", "n_groups") or 1) if many_heads else 0
    return (kernel - 1) * (inner + 2 * groups * state), inner * state
