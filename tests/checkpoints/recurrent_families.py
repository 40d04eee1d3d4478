"""Small random-weight configs of decoders with states of fixed size, every dimension different."""

from __future__ import annotations

from typing import Any

from tests.checkpoints.decoder_families import CONTEXT, HIDDEN, INNER, VOCAB

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
_EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_CONVOLUTION = {**_COMMON, "layer_types": ["conv", "full_attention"], "conv_L_cache": 4}
_DELTA = {
    **_COMMON, "head_dim": 16, "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 6,
    "linear_num_key_heads": 3, "linear_key_head_dim": 8, "linear_value_head_dim": 10, "linear_conv_kernel_dim": 5,
}  # fmt: skip
_MAMBA2 = {
    **_COMMON, "mamba_n_heads": 6, "mamba_d_head": 32, "mamba_expand": 2, "mamba_n_groups": 2, "mamba_d_state": 10,
    "mamba_d_conv": 5, "mamba_chunk_size": 16,
}  # fmt: skip
_ALONE = {
    "vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 1, "state_size": 10, "conv_kernel": 5, "expand": 2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip

# Biases reach less far than a text of the tests, and queries become sharper within it.
_INKLING: dict[str, Any] = {
    **{key: value for key, value in _COMMON.items() if key != "intermediate_size"}, "head_dim": 16,
    "layer_types": ["hybrid_sliding", "hybrid"], "swa_num_attention_heads": 3, "swa_num_key_value_heads": 1,
    "swa_head_dim": 32, "sliding_window_size": 24, "d_rel": 5, "rel_extent": 40, "log_scaling_n_floor": 30,
    "log_scaling_alpha": 0.7, "conv_kernel_size": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 48,
}  # fmt: skip

# family: (model type, config)
RECURRENT_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "lfm2": ("lfm2", {**_CONVOLUTION, "block_multiple_of": 16, "conv_bias": True}),
    "lfm2_moe": ("lfm2_moe", {**_CONVOLUTION, **_EXPERTS, "num_dense_layers": 1}),
    "lfm3": ("lfm3", _CONVOLUTION),
    "qwen3_5_text": ("qwen3_5_text", _DELTA),
    "qwen3_next": ("qwen3_next", {**_DELTA, **_EXPERTS, "shared_expert_intermediate_size": 56}),
    # Which rotates by a part of its tables, and selects no tokens up to its budget.
    "qwen4_exp_text": (
        "qwen4_exp_text",
        {**_DELTA, **_EXPERTS, "shared_expert_intermediate_size": 56, "indexer_n_heads": 2, "indexer_kv_heads": 1,
         "indexer_head_dim": 32, "indexer_budget": CONTEXT, "indexer_compress_ratio": 4, "hc_lowrank": 20},
    ),
    "olmo_hybrid": ("olmo_hybrid", {**_DELTA, "linear_num_value_heads": 3}),
    "kimi_linear": (
        "kimi_linear",
        {**_COMMON, "num_key_value_heads": 6, "layer_types": ["linear_attention", "full_attention"],
         "linear_head_dim": 10, "linear_num_heads": 3, "linear_conv_kernel_dim": 5, "kv_lora_rank": 40,
         "qk_rope_head_dim": 16, "qk_nope_head_dim": 24, "v_head_dim": 24, "mlp_layer_types": ["dense", "sparse"],
         "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48},
    ),
    "granitemoehybrid": (
        "granitemoehybrid",
        {**_MAMBA2, "layer_types": ["mamba", "attention"], "num_local_experts": 4, "num_experts_per_tok": 2,
         "shared_intermediate_size": 56},
    ),
    "falcon_h1": ("falcon_h1", {**_MAMBA2, "mamba_n_heads": 4, "mamba_d_head": 20, "mamba_d_ssm": 80,
                                "num_hidden_layers": 1}),
    "bamba": ("bamba", {**_MAMBA2, "attn_layer_indices": [1]}),
    "nemotron_h": (
        "nemotron_h",
        {**_COMMON, "head_dim": 16, "hybrid_override_pattern": "M*", "mamba_num_heads": 6, "mamba_head_dim": 20,
         "n_groups": 2, "ssm_state_size": 10, "conv_kernel": 5, "chunk_size": 16},
    ),
    "zamba2": (
        "zamba2",
        {**_COMMON, "layers_block_type": ["mamba", "hybrid"], "num_key_value_heads": 6, "mamba_d_state": 10,
         "mamba_d_conv": 5, "n_mamba_heads": 6, "mamba_headdim": 32, "mamba_ngroups": 2, "chunk_size": 16,
         "num_mem_blocks": 1},
    ),
    "mamba2": ("mamba2", {**_ALONE, "num_heads": 6, "head_dim": 16, "n_groups": 2, "chunk_size": 16}),
    "mamba": ("mamba", {**_ALONE, "time_step_rank": 7}),
    "falcon_mamba": ("falcon_mamba", {**_ALONE, "time_step_rank": 7}),
    "jamba": (
        "jamba",
        {**_COMMON, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 4, "num_experts_per_tok": 2,
         "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 10, "mamba_d_conv": 5,
         "mamba_dt_rank": 7},
    ),
    "minimax": (
        "minimax",
        {**_COMMON, "layer_types": ["linear_attention", "full_attention"], "num_local_experts": 4,
         "num_experts_per_tok": 2, "block_size": 16},
    ),
    "recurrent_gemma": (
        "recurrent_gemma",
        {**_COMMON, "block_types": ["recurrent", "attention"], "lru_width": 72, "attention_window_size": 24,
         "conv1d_width": 5},
    ),
    "inkling_text": (
        "inkling_text",
        {**_INKLING, "n_routed_experts": 4, "n_shared_experts": 2, "mlp_layer_types": ["dense", "sparse"],
         "intermediate_size": INNER},
    ),
    "inkling2_text": (
        "inkling2_text",
        {**_INKLING, "n_routed_experts": 4, "n_layers_per_attn_res_block": 1, "qk_l2_clip_threshold": 3.0,
         "rel_l2_clip_threshold": 2.0},
    ),
}  # fmt: skip
_BOTH = ["convolution", "recurrence"]
# Of each family, the number of layers with keys and values, and the kinds of its states.
CONTENT: dict[str, tuple[int, list[str]]] = {
    **dict.fromkeys(("lfm2", "lfm2_moe", "lfm3"), (1, ["convolution"])),
    **dict.fromkeys(("qwen3_5_text", "qwen3_next", "qwen4_exp_text", "olmo_hybrid", "kimi_linear", "granitemoehybrid",
                     "falcon_h1", "bamba", "nemotron_h", "jamba"), (1, _BOTH)),
    "zamba2": (1, _BOTH * 2),
    "minimax": (1, ["recurrence"]), "recurrent_gemma": (1, _BOTH),
    **dict.fromkeys(("mamba", "mamba2", "falcon_mamba"), (0, _BOTH)),
    # Of keys and values, after attention, and after the experts, in each layer.
    **dict.fromkeys(("inkling_text", "inkling2_text"), (2, ["convolution"] * 8)),
}  # fmt: skip
