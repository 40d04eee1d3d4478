"""Families whose layers are of several kinds, or whose files differ more from the model: their configs and keys."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

from gguf import MODEL_ARCH

SIZES = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "max_position_embeddings": 96, "rms_norm_eps": 1e-3,
}  # fmt: skip
_DENSE = {**SIZES, "intermediate_size": 80}
_LAYERS = ["linear_attention", "full_attention", "linear_attention"]
_RULES = {
    "head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 12,
    "linear_value_head_dim": 20, "linear_conv_kernel_dim": 3, "layer_types": _LAYERS,
}  # fmt: skip
_EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
_SHARED = {**_EXPERTS, "shared_expert_intermediate_size": 56}
_HYBRID = {
    **_DENSE, "attention_multiplier": 0.3, "embedding_multiplier": 2.0, "residual_multiplier": 0.7,
    "logits_scaling": 3.0, "shared_intermediate_size": 56, "mamba_n_heads": 6, "mamba_d_head": 16, "mamba_n_groups": 2,
    "mamba_d_state": 24, "mamba_d_conv": 3, "layer_types": _LAYERS, "position_embedding_type": None,
}  # fmt: skip
_LATENT = {
    **_DENSE, "num_key_value_heads": 6, "q_lora_rank": 20, "kv_lora_rank": 18, "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 4, "v_head_dim": 14,
}  # fmt: skip
_DEEPSEEK = {
    **_LATENT, "num_experts_per_tok": 2, "n_shared_experts": 2, "moe_intermediate_size": 40, "first_k_dense_replace": 1,
    "n_routed_experts": 6, "routed_scaling_factor": 1.5,
    "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8, "mscale": 0.7,
        "mscale_all_dim": 0.7,
    },
}  # fmt: skip
_GEMMA4 = {
    **_DENSE, "num_hidden_layers": 6, "head_dim": 8, "sliding_window": 7,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}  # fmt: skip
NEWER: dict[str, tuple[MODEL_ARCH, str, dict[str, Any]]] = {
    "qwen35": (MODEL_ARCH.QWEN35, "qwen3_5_text", {**_DENSE, **_RULES}),
    "qwen35moe": (MODEL_ARCH.QWEN35MOE, "qwen3_5_moe_text", {**SIZES, **_RULES, **_SHARED}),
    "qwen3next": (MODEL_ARCH.QWEN3NEXT, "qwen3_next", {**_DENSE, **_RULES, **_SHARED}),
    "granitehybrid": (MODEL_ARCH.GRANITE_HYBRID, "granitemoehybrid", {**_HYBRID, "num_local_experts": 0}),
    "granitehybrid-moe": (
        MODEL_ARCH.GRANITE_HYBRID, "granitemoehybrid", {**_HYBRID, "num_local_experts": 5, "num_experts_per_tok": 2}
    ),
    "minicpm3": (MODEL_ARCH.MINICPM3, "minicpm3", {**_LATENT, "v_head_dim": 8, "pad_token_id": None}),
    "deepseek2": (
        MODEL_ARCH.DEEPSEEK2, "deepseek_v2",
        {**_DEEPSEEK, "q_lora_rank": None, "topk_method": "group_limited_greedy", "n_group": 3, "topk_group": 2},
    ),
    "deepseek3": (
        MODEL_ARCH.DEEPSEEK2, "deepseek_v3", {**_DEEPSEEK, "norm_topk_prob": True, "n_group": 3, "topk_group": 2}
    ),
    "gemma3n": (
        MODEL_ARCH.GEMMA3N, "gemma3n_text",
        {
            **_DENSE, "num_hidden_layers": 5, "head_dim": 16, "sliding_window": 7, "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
            "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0, 0.0], "laurel_rank": 10,
            "hidden_size_per_layer_input": 12, "vocab_size_per_layer_input": 260,
        }
        | {"num_hidden_layers": 6, "num_kv_shared_layers": 3},
    ),
    "modern-bert": (
        MODEL_ARCH.MODERN_BERT, "modernbert",
        {
            "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 5, "num_attention_heads": 6,
            "max_position_embeddings": 96, "norm_eps": 1e-3, "local_attention": 8, "pad_token_id": 0,
            "bos_token_id": 0, "eos_token_id": 1, "cls_token_id": 0, "sep_token_id": 1,
        },
    ),
    "gemma-embedding": (
        MODEL_ARCH.GEMMA_EMBEDDING, "gemma3_text",
        {
            **_DENSE, "num_hidden_layers": 7, "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 16,
            "use_bidirectional_attention": True,
        },
    ),
    "gemma4": (
        MODEL_ARCH.GEMMA4, "gemma4_text",
        {
            **_GEMMA4, "per_layer_config": {layer: {"head_dim": 16} for layer in (1, 3, 5)}, "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 12, "vocab_size_per_layer_input": 260, "use_double_wide_mlp": True,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma4-moe": (
        MODEL_ARCH.GEMMA4, "gemma4_text",
        {
            **_GEMMA4, "per_layer_config": {layer: {"head_dim": 16, "num_key_value_heads": 3} for layer in (1, 3, 5)},
            "hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "enable_moe_block": True, "num_experts": 5,
            "top_k_experts": 2, "moe_intermediate_size": 40,
        },
    ),
    "apertus": (
        MODEL_ARCH.APERTUS, "apertus",
        {**_DENSE, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "pad_token_id": None},
    ),
    "bloom": (MODEL_ARCH.BLOOM, "bloom", {"hidden_size": 48, "n_layer": 3, "n_head": 6, "layer_norm_epsilon": 1e-3}),
    "dbrx": (
        MODEL_ARCH.DBRX, "dbrx",
        {
            "d_model": 48, "n_heads": 6, "n_layers": 3, "max_seq_len": 96,
            "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 2.0},
            "ffn_config": {"hidden_size": 48, "ffn_hidden_size": 40, "moe_num_experts": 5, "moe_top_k": 2},
        },
    ),
}  # fmt: skip


def _of_rules(config: Any) -> dict[str, Any]:
    return {
        "ssm.conv_kernel": config.linear_conv_kernel_dim, "ssm.state_size": config.linear_key_head_dim,
        "ssm.group_count": config.linear_num_key_heads, "ssm.time_step_rank": config.linear_num_value_heads,
        "ssm.inner_size": config.linear_num_value_heads * config.linear_value_head_dim,
        "attention.recurrent_layers": [kind == "linear_attention" for kind in config.layer_types],
        "full_attention_interval": 4, "rope.dimension_count": config.head_dim // 4,
        "rope.dimension_sections": [11, 11, 10, 0],
    }  # fmt: skip


def _of_shared_experts(config: Any) -> dict[str, Any]:
    return {
        **_of_rules(config), "expert_count": config.num_experts, "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_shared_feed_forward_length": config.shared_expert_intermediate_size,
    }  # fmt: skip


def _of_hybrid(config: Any) -> dict[str, Any]:
    return {
        "attention.head_count_kv": [2 if kind == "full_attention" else 0 for kind in config.layer_types],
        "attention.scale": config.attention_multiplier, "embedding_scale": config.embedding_multiplier,
        "residual_scale": config.residual_multiplier, "logit_scale": config.logits_scaling,
        "expert_shared_feed_forward_length": config.shared_intermediate_size,
        "expert_count": config.num_local_experts, "expert_used_count": config.num_experts_per_tok,
        "ssm.conv_kernel": config.mamba_d_conv, "ssm.state_size": config.mamba_d_state,
        "ssm.group_count": config.mamba_n_groups, "ssm.time_step_rank": config.mamba_n_heads,
        "ssm.inner_size": config.mamba_n_heads * config.mamba_d_head, "rope.scaling.finetuned": False,
    }  # fmt: skip


def _of_latent(config: Any) -> dict[str, Any]:
    return {
        "attention.q_lora_rank": config.q_lora_rank, "attention.kv_lora_rank": config.kv_lora_rank,
        "attention.key_length": config.qk_nope_head_dim + config.qk_rope_head_dim,
        "rope.dimension_count": config.qk_rope_head_dim,
    }  # fmt: skip


def _of_deepseek(config: Any) -> dict[str, Any]:
    return {
        **_of_latent(config), "attention.head_count_kv": 1,
        "attention.key_length": config.kv_lora_rank + config.qk_rope_head_dim,
        "attention.value_length": config.kv_lora_rank,
        "attention.key_length_mla": config.qk_nope_head_dim + config.qk_rope_head_dim,
        "attention.value_length_mla": config.v_head_dim, "leading_dense_block_count": config.first_k_dense_replace,
        "expert_count": config.n_routed_experts, "expert_used_count": config.num_experts_per_tok,
        "expert_shared_count": config.n_shared_experts, "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_weights_scale": config.routed_scaling_factor, "expert_group_count": config.n_group,
        "expert_group_used_count": config.topk_group, "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 8, "rope.scaling.yarn_log_multiplier": 0.07,
    }  # fmt: skip


def _of_gemma(config: Any) -> dict[str, Any]:
    return {
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in config.layer_types],
        "rope.freq_base_swa": 1e4, "embedding_length_per_layer_input": config.hidden_size_per_layer_input,
        "attention.shared_kv_layers": config.num_kv_shared_layers,
        "final_logit_softcapping": config.final_logit_softcapping,
    }  # fmt: skip


def _of_gemma3n(config: Any) -> dict[str, Any]:
    shares = config.activation_sparsity_pattern
    return {
        **_of_gemma(config), "altup.active_idx": config.altup_active_idx, "altup.num_inputs": config.altup_num_inputs,
        "feed_forward_length": list(config.intermediate_size),
        "activation_sparsity_scale": [NormalDist().inv_cdf(share) if share else float("-inf") for share in shares],
    }  # fmt: skip


def _of_gemma4(config: Any) -> dict[str, Any]:
    own = config.num_hidden_layers - config.num_kv_shared_layers
    layers = [config.per_layer_config[layer] for layer in range(config.num_hidden_layers)]
    return {
        **_of_gemma(config), "attention.head_count_kv": [layer.num_key_value_heads for layer in layers],
        "feed_forward_length": [80 if layer < own else 160 for layer in range(config.num_hidden_layers)],
        **{f"attention.{name}_length{end}": size for name in ("key", "value") for end, size in (("", 16), ("_swa", 8))},
        "rope.dimension_count": 16, "rope.dimension_count_swa": 8, "expert_count": config.num_experts,
        "expert_used_count": config.top_k_experts, "expert_feed_forward_length": config.moe_intermediate_size,
    }  # fmt: skip


NEWER_KEYS = {
    "modern-bert": lambda config: {
        "pooling_type": 2, "classifier.pooling_type": 1, "attention.layer_norm_epsilon": config.norm_eps,
        "attention.sliding_window": config.local_attention, "rope.freq_base_swa": 1e4, "vocab_size": config.vocab_size,
        "hidden_activation": "gelu", "rope.scaling.type": "none",
    },
    # Both sides of a window together, where the config of transformers counts one.
    "gemma-embedding": lambda config: {
        "pooling_type": 1, "attention.sliding_window": 2 * (config.sliding_window - 1), "rope.freq_base_swa": 1e4
    },
    "qwen35": _of_rules, "qwen35moe": _of_shared_experts, "qwen3next": _of_shared_experts,
    "granitehybrid": _of_hybrid, "granitehybrid-moe": _of_hybrid, "minicpm3": _of_latent, "deepseek2": _of_deepseek,
    "deepseek3": lambda config: {**_of_deepseek(config), "expert_gating_func": 2, "expert_weights_norm": True},
    "gemma3n": _of_gemma3n, "gemma4": _of_gemma4, "gemma4-moe": _of_gemma4,
    "bloom": lambda config: {"feed_forward_length": 4 * config.hidden_size, "context_length": 96},
    "dbrx": lambda config: {
        "attention.head_count_kv": config.attn_config.kv_n_heads, "rope.freq_base": config.attn_config.rope_theta,
        "attention.clamp_kqv": config.attn_config.clip_qkv, "attention.layer_norm_epsilon": 1e-5,
        "expert_count": config.ffn_config.moe_num_experts, "expert_used_count": config.ffn_config.moe_top_k,
        "feed_forward_length": config.ffn_config.ffn_hidden_size, "context_length": config.max_seq_len,
    },
}  # fmt: skip
