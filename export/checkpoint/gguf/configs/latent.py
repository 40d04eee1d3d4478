"""The settings of latent attention, whose keys and values are made from a vector that is smaller than both."""

from __future__ import annotations

from typing import Any

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.configs.attention import HEADS_OF_KEYS
from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.rope import rope_parameters
from triform.export.checkpoint.gguf.settings import Settings
from triform.runtime.errors import ExportError

_KEY, _VALUE = "attention.key_length", "attention.value_length"
# Models with more experts choose them in groups; older files do not say so.
_MOST_WITHOUT_GROUPS = 64


def latent_attention(file: GgufFile, _: Architecture, settings: Settings) -> dict[str, Any]:
    """Sizes of heads and positions.

    A file has keys and values as they are, or as llama.cpp multiplies by them: one head of the small vector.

    Raises:
        ExportError: a key is missing, or has a value that is not supported.
    """
    width, heads = int(settings.need("embedding_length")), int(settings.need("attention.head_count"))
    turned, small = int(settings.need("rope.dimension_count")), int(settings.need("attention.kv_lora_rank"))
    if settings.get(f"{_KEY}_mla") is None:
        size, value = int(settings.need(_KEY)), int(settings.same(_VALUE, width // heads))
        settings.expect(HEADS_OF_KEYS, heads)
    else:
        size, value = int(settings.need(f"{_KEY}_mla")), int(settings.need(f"{_VALUE}_mla"))
        settings.expect(_KEY, small + turned)
        settings.expect(_VALUE, small)
        settings.expect(HEADS_OF_KEYS, 1)
    if size <= turned:
        raise ExportError(f"{file.path.name} has keys of {size} dimensions, {turned} of which are rotated")
    rank = settings.same("attention.q_lora_rank")
    return {
        "num_key_value_heads": heads,
        "q_lora_rank": int(rank) if rank else None,
        "qk_nope_head_dim": size - turned,
        "qk_rope_head_dim": turned,
        "v_head_dim": value,
        # Factors of MiniCPM3 are for the length that the file names.
        "rope_parameters": rope_parameters(file, settings, turned, original=int(settings.need("context_length"))),
    }


def deepseek(file: GgufFile, architecture: Architecture, settings: Settings) -> dict[str, Any]:
    """Latent attention, and experts that are chosen in groups.

    Raises:
        ExportError: a key is missing, or has a value that is not supported.
    """
    values = latent_attention(file, architecture, settings)
    experts = int(settings.need("expert_count"))
    groups = settings.same("expert_group_count")
    if groups is None and experts > _MOST_WITHOUT_GROUPS:
        raise ExportError(
            f"{file.path.name} does not say in which groups its {experts} experts are chosen; take a newer file "
            "of the model, which has deepseek2.expert_group_count"
        )
    groups = int(groups or 1)
    values |= {
        "n_group": groups,
        "topk_group": int(settings.need("expert_group_used_count")) if groups > 1 else 1,
        # In a file, 0 means 1.
        "routed_scaling_factor": float(settings.same("expert_weights_scale") or 1.0),
    }
    settings.get("expert_group_used_count")
    normal = bool(settings.same("expert_weights_norm", False))
    settings.get("expert_gating_func")
    if architecture.model_type == "deepseek_v3":
        return {**values, "norm_topk_prob": normal}
    settings.expect("expert_gating_func", 1)
    settings.expect("expert_weights_norm", False)
    return {**values, "topk_method": "group_limited_greedy" if groups > 1 else "greedy"}
