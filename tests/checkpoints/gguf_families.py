"""The families of models that are written as GGUF: their configs, and the keys of their files."""

from __future__ import annotations

from typing import Any

from gguf import MODEL_ARCH

from tests.checkpoints.gguf_newer_families import NEWER, NEWER_KEYS

# Sizes that differ from one another, so that one taken for another shows.
SIZES = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "intermediate_size": 80, "max_position_embeddings": 96,
}  # fmt: skip
_GPT2 = {"n_embd": 48, "n_layer": 3, "n_head": 6, "n_inner": 80, "n_positions": 96}
_OWN_KEYS = {name: size for name, size in SIZES.items() if name != "num_key_value_heads"}
_FALCON = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "layer_norm_epsilon": 1e-3,
    "max_position_embeddings": 96,
}  # fmt: skip
_RMS = {"rms_norm_eps": 1e-3}
_HEADS = {"head_dim": 16}
_LOCAL = {"num_local_experts": 5, "num_experts_per_tok": 2}
_EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
_GRANITE = {"attention_multiplier": 0.3, "embedding_multiplier": 2.0, "residual_multiplier": 0.7, "logits_scaling": 3.0}
_STATES = {"hidden_size": 48, "num_hidden_layers": 3, "conv_kernel": 3, "layer_norm_epsilon": 1e-3}
_CONVOLUTIONS = {"norm_eps": 1e-3, "conv_L_cache": 4, "layer_types": ["conv", "full_attention", "conv"]}
# By name: the architecture of the file, transformers' type, and its config.
FAMILIES: dict[str, tuple[MODEL_ARCH, str, dict[str, Any]]] = {
    "llama": (MODEL_ARCH.LLAMA, "llama", {**SIZES, **_RMS, **_HEADS}),
    "mistral": (MODEL_ARCH.LLAMA, "mistral", {**SIZES, **_RMS, **_HEADS, "sliding_window": 7}),
    "qwen2": (MODEL_ARCH.QWEN2, "qwen2", {**SIZES, **_RMS}),
    "qwen3": (MODEL_ARCH.QWEN3, "qwen3", {**SIZES, **_RMS, **_HEADS}),
    "gemma2": (
        MODEL_ARCH.GEMMA2, "gemma2",
        {
            **SIZES, **_RMS, **_HEADS, "sliding_window": 7, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        MODEL_ARCH.GEMMA3, "gemma3_text",
        {
            **SIZES, **_RMS, **_HEADS, "num_hidden_layers": 7, "sliding_window": 7, "query_pre_attn_scalar": 16,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "phi3": (
        MODEL_ARCH.PHI3, "phi3",
        {**SIZES, **_RMS, "sliding_window": 9, "pad_token_id": None, "partial_rotary_factor": 0.5},
    ),
    "granite": (
        MODEL_ARCH.GRANITE, "granite", {**SIZES, **_RMS, **_GRANITE},
    ),
    "olmo2": (MODEL_ARCH.OLMO2, "olmo2", {**SIZES, **_RMS, "pad_token_id": None}),
    "olmo3": (
        MODEL_ARCH.OLMO2, "olmo3",
        {**SIZES, **_RMS, "num_hidden_layers": 5, "sliding_window": 7, "pad_token_id": None},
    ),
    "smollm3": (MODEL_ARCH.SMOLLM3, "smollm3", {**SIZES, **_RMS, "num_hidden_layers": 5, "pad_token_id": None}),
    "starcoder2": (MODEL_ARCH.STARCODER2, "starcoder2", {**SIZES, "norm_epsilon": 1e-3}),
    "gpt2": (MODEL_ARCH.GPT2, "gpt2", {**_GPT2, "layer_norm_epsilon": 1e-3}),
    "gemma": (MODEL_ARCH.GEMMA, "gemma", {**SIZES, **_RMS, **_HEADS}),
    "ministral3": (
        MODEL_ARCH.MISTRAL3, "ministral3",
        {
            **SIZES, **_RMS, **_HEADS,
            "rope_parameters": {
                "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8,
                "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.2,
            },
        },
    ),
    "arcee": (MODEL_ARCH.ARCEE, "arcee", {**SIZES, **_RMS}),
    "seed_oss": (MODEL_ARCH.SEED_OSS, "seed_oss", {**SIZES, **_RMS, **_HEADS}),
    "hunyuan": (MODEL_ARCH.HUNYUAN_DENSE, "hunyuan_v1_dense", {**SIZES, **_RMS, **_HEADS}),
    "stablelm": (
        MODEL_ARCH.STABLELM, "stablelm",
        {**SIZES, "layer_norm_eps": 1e-3, "partial_rotary_factor": 0.5, "use_qkv_bias": True},
    ),
    "phi2": (MODEL_ARCH.PHI2, "phi", {**SIZES, "layer_norm_eps": 1e-3, "partial_rotary_factor": 0.5}),
    "command-r": (MODEL_ARCH.COMMAND_R, "cohere", {**SIZES, "layer_norm_eps": 1e-3, "logit_scale": 0.3}),
    "cohere2": (
        MODEL_ARCH.COHERE2, "cohere2",
        {**SIZES, "num_hidden_layers": 5, "layer_norm_eps": 1e-3, "logit_scale": 0.3, "sliding_window": 7},
    ),
    "exaone4": (
        MODEL_ARCH.EXAONE4, "exaone4",
        {**SIZES, **_RMS, **_HEADS, "num_hidden_layers": 5, "sliding_window": 7, "sliding_window_pattern": 4},
    ),
    "glm4": (MODEL_ARCH.GLM4, "glm4", {**SIZES, **_RMS, **_HEADS, "pad_token_id": None}),
    "gptneox": (MODEL_ARCH.GPTNEOX, "gpt_neox", {**_OWN_KEYS, "layer_norm_eps": 1e-3, "rotary_pct": 0.5}),
    "falcon": (MODEL_ARCH.FALCON, "falcon", {**_FALCON, "num_kv_heads": 1}),
    "falcon-40b": (
        MODEL_ARCH.FALCON, "falcon", {**_FALCON, "num_kv_heads": 2, "new_decoder_architecture": True}
    ),
    "olmo": (MODEL_ARCH.OLMO, "olmo", {**SIZES, "clip_qkv": 2.0}),
    "mixtral": (MODEL_ARCH.LLAMA, "mixtral", {**SIZES, **_RMS, **_HEADS, **_LOCAL, "sliding_window": None}),
    "qwen2moe": (
        MODEL_ARCH.QWEN2MOE, "qwen2_moe", {**SIZES, **_RMS, **_EXPERTS, "shared_expert_intermediate_size": 56}
    ),
    "qwen3moe": (MODEL_ARCH.QWEN3MOE, "qwen3_moe", {**SIZES, **_RMS, **_HEADS, **_EXPERTS, "norm_topk_prob": True}),
    "olmoe": (
        MODEL_ARCH.OLMOE, "olmoe",
        {**SIZES, **_RMS, "num_experts": 5, "num_experts_per_tok": 2, "pad_token_id": None},
    ),
    "granitemoe": (MODEL_ARCH.GRANITE_MOE, "granitemoe", {**SIZES, **_RMS, **_LOCAL, **_GRANITE}),
    "granitemoeshared": (
        MODEL_ARCH.GRANITE_MOE, "granitemoeshared",
        {**SIZES, **_RMS, **_LOCAL, **_GRANITE, "shared_intermediate_size": 56},
    ),
    "gpt-oss": (
        MODEL_ARCH.GPT_OSS, "gpt_oss",
        {
            **SIZES, **_RMS, **_HEADS, **_LOCAL, "sliding_window": 7,
            "rope_parameters": {
                "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8,
                "truncate": False,
            },
        },
    ),
    "falcon-h1": (
        MODEL_ARCH.FALCON_H1, "falcon_h1",
        {
            **SIZES, **_RMS, **_HEADS, "mamba_d_ssm": 72, "mamba_n_heads": 4, "mamba_d_head": 18, "mamba_n_groups": 2,
            "mamba_d_state": 24, "mamba_d_conv": 3,
        },
    ),
    "mamba": (MODEL_ARCH.MAMBA, "mamba", {**_STATES, "state_size": 20, "time_step_rank": 5}),
    "mamba2": (
        MODEL_ARCH.MAMBA2, "mamba2", {**_STATES, "state_size": 24, "num_heads": 6, "head_dim": 16, "n_groups": 2}
    ),
    "lfm2": (MODEL_ARCH.LFM2, "lfm2", {**SIZES, **_CONVOLUTIONS, "block_auto_adjust_ff_dim": False}),
    "lfm2moe": (
        MODEL_ARCH.LFM2MOE, "lfm2_moe", {**SIZES, **_CONVOLUTIONS, **_EXPERTS, "num_dense_layers": 1}
    ),
    "bert": (MODEL_ARCH.BERT, "bert", {**SIZES, "type_vocab_size": 2, "layer_norm_eps": 1e-3}),
    "nomic-bert": (
        MODEL_ARCH.NOMIC_BERT, "nomic_bert",
        {
            **SIZES, "type_vocab_size": 2, "layer_norm_eps": 1e-3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e3},
        },
    ),
    **NEWER,
}  # fmt: skip
ENCODERS = ("bert", "nomic-bert", "gemma-embedding", "modern-bert")
# With a vocabulary of WordPiece.
BERTS = ("bert", "nomic-bert")
_INNER = ("intermediate_size", "n_inner", "ffn_hidden_size")
_EPSILONS = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")


def family_keys(name: str, config: Any, arch: str) -> dict[str, Any]:
    """The keys that llama.cpp's converter writes for a model's config."""
    plain = {
        "context_length": getattr(config, "max_position_embeddings", 2**20),
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": next(
            (getattr(config, key) for key in _INNER if getattr(config, key, None)), 0
        ),
        "attention.head_count": getattr(config, "num_attention_heads", 0),
        "attention.head_count_kv": None
        if name in ("gpt2", *BERTS) or config.is_heterogeneous
        else getattr(config, "num_key_value_heads", None),
        "attention.layer_norm_rms_epsilon": getattr(config, "rms_norm_eps", None),
        "attention.layer_norm_epsilon": next(
            (getattr(config, key) for key in _EPSILONS if hasattr(config, key)), None
        ),
        "attention.sliding_window": getattr(config, "sliding_window", None) or None,
        "attention.causal": False if name in ENCODERS else None,
    }  # fmt: skip
    rope = getattr(config, "rope_parameters", None) or {}
    whole = rope.get("full_attention", rope)
    if whole:
        plain["rope.freq_base"] = float(whole["rope_theta"])
        if whole["rope_type"] == "linear":
            plain |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(whole["factor"])}
    own = FAMILIES[name][2]
    heads = config.head_dim if "head_dim" in own and "per_layer_config" not in own else None
    if heads:
        plain |= {"attention.key_length": heads, "attention.value_length": heads}
    if name == "llama":
        plain["rope.dimension_count"] = heads
    plain |= _KEYS_OF[name](config) if name in _KEYS_OF else {}
    return {"general.type": "model", **{f"{arch}.{key}": value for key, value in plain.items()}}


def _of_experts(config: Any) -> dict[str, Any]:
    return {
        "expert_count": config.num_experts, "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": getattr(config, "moe_intermediate_size", None),
        "expert_shared_feed_forward_length": getattr(config, "shared_expert_intermediate_size", None),
    }  # fmt: skip


def _of_local_experts(config: Any) -> dict[str, Any]:
    return {"expert_count": config.num_local_experts, "expert_used_count": config.num_experts_per_tok}


def _of_granite(config: Any) -> dict[str, Any]:
    return {
        "attention.scale": config.attention_multiplier, "embedding_scale": config.embedding_multiplier,
        "residual_scale": config.residual_multiplier, "logit_scale": config.logits_scaling,
        "expert_shared_feed_forward_length": getattr(config, "shared_intermediate_size", None),
    }  # fmt: skip


def _of_convolutions(config: Any) -> dict[str, Any]:
    heads = [config.num_key_value_heads if kind == "full_attention" else 0 for kind in config.layer_types]
    return {
        "attention.head_count_kv": heads, "shortconv.l_cache": config.conv_L_cache,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
    }  # fmt: skip


def _of_yarn(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    return {
        "rope.scaling.type": "yarn", "rope.scaling.factor": rope["factor"],
        "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
    }  # fmt: skip


def _of_falcon(config: Any) -> dict[str, Any]:
    return {"attention.head_count_kv": config.num_kv_heads, "tensor_data_layout": "jploski", "rope.freq_base": None}


def _of_states(config: Any) -> dict[str, Any]:
    return {
        "ssm.inner_size": 2 * config.hidden_size, "ssm.state_size": config.state_size,
        "ssm.conv_kernel": config.conv_kernel, "attention.layer_norm_rms_epsilon": config.layer_norm_epsilon,
        "attention.layer_norm_epsilon": None, "attention.key_length": None, "attention.value_length": None,
    }  # fmt: skip


def _of_part(config: Any) -> dict[str, Any]:
    return {"rope.dimension_count": config.hidden_size // config.num_attention_heads // 2}


_KEYS_OF = {
    **NEWER_KEYS,
    "mixtral": _of_local_experts, "qwen2moe": _of_experts, "qwen3moe": _of_experts, "olmoe": _of_experts,
    "granitemoe": lambda config: _of_granite(config) | _of_local_experts(config),
    "granitemoeshared": lambda config: _of_granite(config) | _of_local_experts(config),
    "gpt-oss": lambda config: {
        **_of_local_experts(config), **_of_yarn(config), "expert_feed_forward_length": config.intermediate_size
    },
    "ministral3": lambda config: {
        **_of_yarn(config), "rope.scaling.yarn_log_multiplier": 1.0, "attention.temperature_scale": 0.2
    },
    "mamba": lambda config: {**_of_states(config), "ssm.time_step_rank": 5, "ssm.dt_b_c_rms": False},
    "mamba2": lambda config: {**_of_states(config), "ssm.time_step_rank": 6, "ssm.group_count": 2},
    "falcon-h1": lambda config: {
        "ssm.inner_size": config.mamba_d_ssm, "ssm.time_step_rank": config.mamba_n_heads,
        "ssm.group_count": config.mamba_n_groups, "ssm.state_size": config.mamba_d_state,
        "ssm.conv_kernel": config.mamba_d_conv,
    },
    "lfm2": _of_convolutions,
    "lfm2moe": lambda config: {
        **_of_convolutions(config), **_of_experts(config), "leading_dense_block_count": 1, "expert_gating_func": 2
    },
    "cohere2": lambda config: {
        "logit_scale": config.logit_scale, "rope.scaling.type": "none", "rope.dimension_count": config.head_dim
    },
    "exaone4": lambda config: {
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in config.layer_types]
    },
    "glm4": lambda config: {"rope.dimension_count": config.head_dim // 2},
    "gptneox": lambda config: {**_of_part(config), "use_parallel_residual": True},
    "falcon": _of_falcon, "falcon-40b": _of_falcon,
    "olmo": lambda config: {"attention.clamp_kqv": config.clip_qkv, "attention.layer_norm_epsilon": 1e-5},
    "stablelm": lambda config: {**_of_part(config), "use_parallel_residual": False},
    "phi2": _of_part, "command-r": lambda config: {"logit_scale": config.logit_scale, "rope.scaling.type": "none"},
    "gemma2": lambda config: {
        "attn_logit_softcapping": config.attn_logit_softcapping,
        "final_logit_softcapping": config.final_logit_softcapping,
    },
    "phi3": _of_part, "granite": _of_granite,
    "olmo3": lambda config: {
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in config.layer_types]
    },
    "bert": lambda config: {"pooling_type": 1},
    "nomic-bert": lambda config: {"pooling_type": 2},
}  # fmt: skip
