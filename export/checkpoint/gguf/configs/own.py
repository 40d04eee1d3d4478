"""The settings of architectures that have more than heads, positions and windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.configs.attention import HEADS_OF_KEYS, plain_attention
from triform.export.checkpoint.gguf.configs.gemma4 import gemma4
from triform.export.checkpoint.gguf.configs.latent import deepseek, latent_attention
from triform.export.checkpoint.gguf.configs.variants import WINDOW
from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.placement import NEXT_TOKENS, further_layers
from triform.export.checkpoint.gguf.rope import rope_parameters
from triform.export.checkpoint.gguf.settings import Settings
from triform.runtime.errors import ExportError

_FINETUNED = "rope.scaling.finetuned"
# Layers with attention are the last of so many, for a file that does not say.
_INTERVAL = 4
# Every third layer reads the whole text, in a file that does not say.
_WHOLE_LAYERS = 3


def _delta_rules(file: GgufFile, architecture: Architecture, settings: Settings) -> dict[str, Any]:
    """Layers of gated delta rules and of attention."""
    values = plain_attention(file, architecture, settings)
    inner, heads = int(settings.need("ssm.inner_size")), int(settings.need("ssm.time_step_rank"))
    _check_divides(file, "ssm.time_step_rank", heads, inner)
    _check_divides(file, "ssm.group_count", int(settings.need("ssm.group_count")), heads)
    # Positions of texts are the same in all sections.
    settings.get("rope.dimension_sections")
    layers = _own_layers(file, architecture, settings)
    interval = int(settings.get("full_attention_interval", _INTERVAL))
    rules = settings.get("attention.recurrent_layers") or [(layer + 1) % interval != 0 for layer in range(layers)]
    kinds = ["linear_attention" if rule else "full_attention" for rule in rules[:layers]]
    return {**values, "num_hidden_layers": layers, "layer_types": kinds, "linear_value_head_dim": inner // heads}


def _own_layers(file: GgufFile, architecture: Architecture, settings: Settings) -> int:
    """The number of layers without those that only guess a second token."""
    settings.get(NEXT_TOKENS)
    further = further_layers(file, architecture)
    for layer in further:
        if f"blk.{layer}.nextn.eh_proj.weight" not in file.tensors:
            raise ExportError(
                f"{file.path.name} has {settings.architecture}.{NEXT_TOKENS} = {len(further)}, but lacks "
                f"blk.{layer}.nextn.eh_proj.weight"
            )
    return int(settings.need("block_count")) - len(further)


def _check_divides(file: GgufFile, key: str, divisor: int, number: int) -> None:
    if divisor <= 0 or number % divisor:
        raise ExportError(f"{file.path.name} has {file.architecture}.{key} = {divisor}, which does not divide {number}")


def _granite_hybrid(file: GgufFile, architecture: Architecture, settings: Settings) -> dict[str, Any]:
    """Layers of Mamba-2 and of attention, which knows no positions unless the file says so."""
    width, inner = int(settings.need("embedding_length")), int(settings.need("ssm.inner_size"))
    heads = int(settings.need("ssm.time_step_rank"))
    _check_divides(file, "embedding_length", width, inner)
    _check_divides(file, "ssm.time_step_rank", heads, inner)
    turned = settings.get(_FINETUNED, True)
    return {
        **plain_attention(file, architecture, settings),
        "mamba_expand": inner // width,
        "mamba_d_head": inner // heads,
        "position_embedding_type": "rope" if turned else None,
        "attention_bias": any(name.endswith(".attn_q.bias") for name in file.tensors),
        "mamba_conv_bias": any(name.endswith(".ssm_conv1d.bias") for name in file.tensors),
        "mamba_proj_bias": any(name.endswith(".ssm_in.bias") for name in file.tensors),
    }


def _gemma3n(file: GgufFile, architecture: Architecture, settings: Settings) -> dict[str, Any]:
    """Inputs for each layer, and activations of which only the largest are kept."""
    tensors = {name: file.tensors.get(name) for name in ("per_layer_token_embd.weight", "blk.0.laurel_l.weight")}
    for name, tensor in tensors.items():
        if tensor is None:
            raise ExportError(f"{file.path.name} has no {name}")
    rows = [tensor.shape[0] for tensor in tensors.values() if tensor is not None]
    scales = settings.get("activation_sparsity_scale")
    if not isinstance(scales, list):
        raise ExportError(f"{file.path.name} has no {file.architecture}.activation_sparsity_scale for each layer")
    return {
        **plain_attention(file, architecture, settings),
        "vocab_size_per_layer_input": rows[0],
        "laurel_rank": rows[1],
        # The file has how many standard deviations above the mean the smallest is that is kept.
        "activation_sparsity_pattern": [0.5 * (1 + math.erf(scale / math.sqrt(2))) for scale in scales],
    }


def _bloom(file: GgufFile, architecture: Architecture, settings: Settings) -> dict[str, Any]:
    settings.expect("feed_forward_length", 4 * int(settings.need("embedding_length")))
    return plain_attention(file, architecture, settings)


def _dbrx(file: GgufFile, _: Architecture, settings: Settings) -> dict[str, Any]:
    """The two parts of its config."""
    del file
    attention = {
        "kv_n_heads": int(settings.need(HEADS_OF_KEYS)),
        "rope_theta": float(settings.need("rope.freq_base")),
        "clip_qkv": settings.get("attention.clamp_kqv"),
    }
    experts = {
        "hidden_size": int(settings.need("embedding_length")),
        "ffn_hidden_size": int(settings.need("feed_forward_length")),
        "moe_num_experts": int(settings.need("expert_count")),
        "moe_top_k": int(settings.need("expert_used_count")),
    }
    return {"attn_config": attention, "ffn_config": experts}


def _modern_bert(file: GgufFile, architecture: Architecture, settings: Settings) -> dict[str, Any]:
    """Layers with windows on both sides, but for the first of each few."""
    width, heads = int(settings.need("embedding_length")), int(settings.need("attention.head_count"))
    rope = rope_parameters(file, settings, width // heads)
    window, layers = settings.same(WINDOW), int(settings.need("block_count"))
    # Converters write both; a file in which they differ would be read in one of two ways.
    settings.expect("attention.layer_norm_rms_epsilon", settings.need("attention.layer_norm_epsilon"))
    pattern = settings.get("attention.sliding_window_pattern", _WHOLE_LAYERS)
    if not isinstance(pattern, list):
        pattern = [bool(pattern) and layer % pattern != 0 for layer in range(layers)]
    theta = settings.same("rope.freq_base_swa") or rope["rope_theta"]
    for name in ("classifier.pooling_type", "classifier.output_labels"):
        settings.get(name)
    return {
        "local_attention": window,
        "layer_types": ["sliding_attention" if window and local else "full_attention" for local in pattern[:layers]],
        "rope_parameters": {
            "full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": float(theta)}
        },
        "hidden_activation": settings.get("hidden_activation", "gelu"),
        "attention_bias": False, "mlp_bias": False, "norm_bias": False,
    }  # fmt: skip


def _t5(file: GgufFile, _: Architecture, settings: Settings) -> dict[str, Any]:
    """Distances in place of positions, and two stacks of layers."""
    epsilon = settings.need("attention.layer_norm_rms_epsilon")
    settings.expect("attention.layer_norm_epsilon", epsilon)
    settings.expect("attention.value_length", settings.need("attention.key_length"))
    gated = "enc.blk.0.ffn_gate.weight" in file.tensors
    return {
        # Of the first version, which has no gates, the head is the embedding, and what it reads is scaled. The config
        # says both by this one setting.
        "tie_word_embeddings": not gated and "output.weight" not in file.tensors,
        "n_positions": int(settings.need("context_length")),
        "num_decoder_layers": int(settings.get("decoder_block_count") or settings.need("block_count")),
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "decoder_start_token_id": int(settings.get("decoder_start_token_id", 0)),
    }


OWN_SETTINGS: dict[str, Callable[[GgufFile, Architecture, Settings], dict[str, Any]]] = {
    "qwen35": _delta_rules,
    "qwen35moe": _delta_rules,
    "qwen3next": _delta_rules,
    "granitehybrid": _granite_hybrid,
    "minicpm3": latent_attention,
    "deepseek2": deepseek,
    "gemma3n": _gemma3n,
    "gemma4": gemma4,
    "bloom": _bloom,
    "dbrx": _dbrx,
    "modern-bert": _modern_bert,
    "t5": _t5,
}
