"""The settings of attention that most architectures share: heads, positions, windows and scales."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.configs.variants import TEMPERATURE, WINDOW
from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.rope import rope_parameters
from triform.export.checkpoint.gguf.settings import Settings

HEADS_OF_KEYS = "attention.head_count_kv"
# Gemma's whose scores are scaled by the width of the model rather than the size of heads: the largest, by its layers;
# of EmbeddingGemma none.
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62, "gemma-embedding": None}
# Of llama.cpp, for a file of Gemma 2 that does not say.
_GEMMA2_WINDOW = 4096


def plain_attention(file: GgufFile, architecture: Architecture, settings: Settings) -> dict[str, Any]:
    """Heads, positions, windows and scales.

    Raises:
        ExportError: a key is missing, or has a value that is not supported.
    """
    width, heads = int(settings.need("embedding_length")), int(settings.need("attention.head_count"))
    head_dim = int(settings.same("attention.key_length", width // heads))
    settings.expect("attention.value_length", head_dim)
    named = {*architecture.sizes.values(), *architecture.options.values()}
    if HEADS_OF_KEYS not in named and not architecture.without_attention:
        settings.expect(HEADS_OF_KEYS, heads)
    values = _layers_with_attention(settings, architecture.without_attention) if architecture.without_attention else {}
    if not architecture.rotary:
        settings.expect("attention.key_length", width // heads)
        return values
    rope = rope_parameters(file, settings, head_dim, given=architecture.whole_rotation)
    if rope["rope_type"] == "yarn":
        rope |= architecture.rope
    if architecture.model_type == "ministral3":
        rope["llama_4_scaling_beta"] = float(settings.need(TEMPERATURE))
    values |= {**_head_size(architecture, settings, head_dim, width // heads), "rope_parameters": rope}
    if rope["rope_type"] == "longrope":
        # A config's own value, if its class has one, would take the place of the one in the rope parameters.
        values["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
    if architecture.pattern:
        values |= _windows(architecture, settings, rope)
    if file.architecture in _SCALED_BY_WIDTH:
        by_width = settings.need("block_count") == _SCALED_BY_WIDTH[file.architecture]
        values["query_pre_attn_scalar"] = width // heads if by_width else head_dim
    if "attention_multiplier" in architecture.options and not settings.same("attention.scale"):
        values["attention_multiplier"] = head_dim**-0.5
    return values


def without_attention(file: GgufFile, architecture: Architecture, settings: Settings) -> dict[str, Any]:
    """Sizes of states in a model without attention, whose layers are twice as wide inside.

    Raises:
        ExportError: a key is missing, or has a value that is not supported.
    """
    settings.expect("attention.head_count", 0)
    inner = 2 * int(settings.need("embedding_length"))
    settings.expect("ssm.inner_size", inner)
    heads = architecture.sizes.get("num_heads")
    return {"expand": 2, **({"head_dim": inner // int(settings.need(heads))} if heads else {})}


def _head_size(architecture: Architecture, settings: Settings, size: int, usual: int) -> dict[str, int]:
    """The config's size of a head; nothing for a class that computes it as the usual one."""
    if not isinstance(getattr(CONFIG_MAPPING[architecture.model_type], "head_dim", None), property):
        return {"head_dim": size}
    settings.expect("attention.key_length", usual)
    return {}


def _layers_with_attention(settings: Settings, others: str) -> dict[str, Any]:
    """The type of each layer; one without keys and values is of the type `others`."""
    heads = settings.get(HEADS_OF_KEYS)
    heads = heads if isinstance(heads, list) else [heads] * int(settings.need("block_count"))
    settings.check_same(HEADS_OF_KEYS, [count for count in heads if count])
    kinds = ["full_attention" if count else others for count in heads]
    return {"layer_types": kinds, "num_key_value_heads": max(heads)}


def _windows(architecture: Architecture, settings: Settings, rope: dict[str, Any]) -> dict[str, Any]:
    layers = int(settings.need("block_count"))
    window = settings.same(WINDOW, _GEMMA2_WINDOW if architecture.model_type == "gemma2" else None)
    pattern = settings.get("attention.sliding_window_pattern", architecture.pattern)
    if not isinstance(pattern, list):
        # As llama.cpp reads a number: 0 is windows everywhere.
        pattern = [not pattern or layer % pattern < pattern - 1 for layer in range(layers)]
    kinds = ["sliding_attention" if window and local else "full_attention" for local in pattern[:layers]]
    values: dict[str, Any] = {"sliding_window": window or None, "layer_types": kinds}
    if architecture.local_theta is None:
        settings.expect("rope.freq_base_swa", rope["rope_theta"])
        return values
    theta = settings.same("rope.freq_base_swa") or architecture.local_theta or rope["rope_theta"]
    local = {"rope_type": "default", "rope_theta": float(theta)}
    return {**values, "rope_parameters": {"full_attention": rope, "sliding_attention": local}}
