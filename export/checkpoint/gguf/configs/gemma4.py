"""The settings of Gemma 4, whose layers without a window have heads and positions of their own."""

from __future__ import annotations

from typing import Any

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.configs.attention import HEADS_OF_KEYS
from triform.export.checkpoint.gguf.configs.variants import WINDOW
from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.numbers import values_of
from triform.export.checkpoint.gguf.rope import FREQUENCIES
from triform.export.checkpoint.gguf.settings import Settings
from triform.runtime.errors import ExportError

_FULL, _LOCAL = "full_attention", "sliding_attention"
# Frequencies divided by this are of no use.
_UNUSED = 1e30


def gemma4(file: GgufFile, _: Architecture, settings: Settings) -> dict[str, Any]:
    """Heads, positions, windows, widths and experts.

    Raises:
        ExportError: a key is missing, or has a value that is not supported.
    """
    layers = int(settings.need("block_count"))
    pattern = settings.get("attention.sliding_window_pattern")
    if not isinstance(pattern, list) or len(pattern) != layers:
        raise ExportError(f"{file.path.name} does not say which layers have a sliding window")
    kinds = [_LOCAL if local else _FULL for local in pattern]
    embedding = file.tensors.get("per_layer_token_embd.weight")
    return {
        "layer_types": kinds,
        "sliding_window": int(settings.need(WINDOW)),
        **_heads(settings, kinds),
        **_widths(file, settings, layers),
        **_experts(settings),
        "attention_k_eq_v": _keys_are_values(file, settings, kinds),
        "rope_parameters": _positions(file, settings),
        **({"vocab_size_per_layer_input": embedding.shape[0]} if embedding is not None else {}),
    }


def _heads(settings: Settings, kinds: list[str]) -> dict[str, Any]:
    size, local = int(settings.need("attention.key_length")), int(settings.need("attention.key_length_swa"))
    settings.expect("attention.value_length", size)
    settings.expect("attention.value_length_swa", local)
    counts = settings.get(HEADS_OF_KEYS)
    counts = counts if isinstance(counts, list) else [counts] * len(kinds)
    by_kind = {
        kind: int(settings.check_same(HEADS_OF_KEYS, [n for n, own in zip(counts, kinds, strict=True) if own == kind]))
        for kind in (_LOCAL, _FULL)
    }
    own = {"head_dim": size, "num_key_value_heads": by_kind[_FULL]}
    return {
        "head_dim": local,
        "num_key_value_heads": by_kind[_LOCAL],
        "per_layer_config": {layer: own for layer, kind in enumerate(kinds) if kind == _FULL},
    }


def _widths(file: GgufFile, settings: Settings, layers: int) -> dict[str, Any]:
    """The width of the MLP, which may be twice as wide in layers that share keys and values."""
    own = layers - int(settings.need("attention.shared_kv_layers"))
    widths = settings.get("feed_forward_length")
    widths = widths if isinstance(widths, list) else [widths] * layers
    width, double = int(widths[0]), widths[-1] != widths[0]
    if widths != [width] * own + [width * (2 if double else 1)] * (layers - own):
        raise ExportError(f"{file.path.name} has a {settings.architecture}.feed_forward_length that is not supported")
    return {"intermediate_size": width, "use_double_wide_mlp": double}


def _experts(settings: Settings) -> dict[str, Any]:
    count = int(settings.get("expert_count") or 0)
    used, width = settings.get("expert_used_count"), settings.get("expert_feed_forward_length")
    if not count:
        return {}
    return {"enable_moe_block": True, "num_experts": count, "top_k_experts": used, "moe_intermediate_size": width}


def _keys_are_values(file: GgufFile, settings: Settings, kinds: list[str]) -> bool:
    """Whether layers without a window have no values but their keys."""
    own = len(kinds) - int(settings.need("attention.shared_kv_layers"))
    found = {f"blk.{layer}.attn_v.weight" in file.tensors for layer, kind in enumerate(kinds[:own]) if kind == _FULL}
    if len(found) > 1:
        raise ExportError(f"{file.path.name} has values in some of the layers without a window only")
    return found == {False}


def _positions(file: GgufFile, settings: Settings) -> dict[str, Any]:
    settings.expect("rope.dimension_count", settings.need("attention.key_length"))
    settings.expect("rope.dimension_count_swa", settings.need("attention.key_length_swa"))
    divisors = file.tensors.get(FREQUENCIES)
    if divisors is None:
        raise ExportError(f"{file.path.name} has no {FREQUENCIES}")
    values = values_of(divisors)
    used = int((values == 1).sum())
    if not ((values[:used] == 1).all() and (values[used:] >= _UNUSED * 0.99).all()):
        raise ExportError(f"{file.path.name} has numbers in {FREQUENCIES} that are not supported")
    return {
        _FULL: {
            "rope_type": "proportional",
            "partial_rotary_factor": used / len(values),
            "rope_theta": float(settings.need("rope.freq_base")),
        },
        _LOCAL: {"rope_type": "default", "rope_theta": float(settings.need("rope.freq_base_swa"))},
    }
