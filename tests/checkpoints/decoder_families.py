"""One small random-weight config a decoder family, every dimension different so that a swapped axis shows."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 131, 96, 80, 3, 6, 2, 16, 320

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = {key: value for key, value in _COMMON.items() if key != "head_dim"}
_UNGROUPED = {key: value for key, value in _GROUPED.items() if key != "num_key_value_heads"}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 48}
_SLIDING, _FULL = "sliding_attention", "full_attention"
# Keys of 40 channels, 8 of which are rotated, and values of 24.
_LATENT = {**_UNGROUPED, "num_key_value_heads": HEADS, "kv_lora_rank": 40, "q_lora_rank": 56, "qk_rope_head_dim": 16,
           "qk_nope_head_dim": 24, "v_head_dim": 24}  # fmt: skip
_FALCON: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": HIDDEN, "ffn_hidden_size": INNER, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "max_position_embeddings": CONTEXT,
}  # fmt: skip

# family: (model type, what differs from the common config)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**_COMMON, "attention_bias": True}),
    "llama, wide heads": ("llama", {**_COMMON, "head_dim": 32}),
    "mistral, sliding window": ("mistral", {**_COMMON, "sliding_window": 24}),
    "qwen2": ("qwen2", _GROUPED),
    "qwen2, half the layers sliding": (
        "qwen2",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", _COMMON),
    "gemma2": (
        "gemma2",
        {**_COMMON, "sliding_window": 24, "query_pre_attn_scalar": 40, "attn_logit_softcapping": 3.0,
         "final_logit_softcapping": 5.0},
    ),
    "gemma3_text": ("gemma3_text", {**_COMMON, "sliding_window": 24, "query_pre_attn_scalar": 40, "layer_types": None}),
    "phi3": ("phi3", {**_GROUPED, "sliding_window": 24}),
    "phi": ("phi", {**_GROUPED, "num_attention_heads": 3, "num_key_value_heads": 3, "partial_rotary_factor": 0.5}),
    "gpt2": (
        "gpt2",
        {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_inner": INNER, "n_layer": LAYERS, "n_head": HEADS,
         "n_positions": CONTEXT, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "gpt_neox": ("gpt_neox", {**_UNGROUPED, "num_attention_heads": 3, "rotary_pct": 0.5}),
    "gpt_neox, sequential": (
        "gpt_neox",
        {**_UNGROUPED, "num_attention_heads": 3, "rotary_pct": 0.5, "use_parallel_residual": False},
    ),
    "opt": (
        "opt",
        {"vocab_size": VOCAB, "hidden_size": HIDDEN, "ffn_dim": INNER, "num_hidden_layers": LAYERS,
         "num_attention_heads": HEADS, "max_position_embeddings": CONTEXT, "word_embed_proj_dim": 64},
    ),
    "smollm3": ("smollm3", {**_GROUPED, "no_rope_layers": [1, 0, 1]}),
    "olmo2": ("olmo2", _GROUPED),
    "granite": (
        "granite",
        {**_GROUPED, "embedding_multiplier": 3.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2,
         "logits_scaling": 2.0},
    ),
    "stablelm": (
        "stablelm",
        {**_GROUPED, "num_attention_heads": 3, "num_key_value_heads": 1, "partial_rotary_factor": 0.5,
         "use_qkv_bias": True},
    ),
    "starcoder2": ("starcoder2", {**_GROUPED, "sliding_window": 24}),
    "mixtral": ("mixtral", {**_COMMON, **_EXPERTS, "num_local_experts": 5}),
    "qwen3_moe": ("qwen3_moe", {**_COMMON, **_EXPERTS, "num_experts": 5, "decoder_sparse_step": 1}),
    "latent attention": (
        "deepseek_v3",
        {**_LATENT, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
         "n_shared_experts": 1, "moe_intermediate_size": 48, "first_k_dense_replace": 2},
    ),
    "rotation by complex numbers": (
        "deepseek_v2",
        {**_LATENT, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
         "moe_intermediate_size": 48, "first_k_dense_replace": 2},
    ),
    "latent attention, without experts": ("minicpm3", _LATENT),
    "rotation of 8 channels": ("gpt_neox", {**_UNGROUPED, "num_attention_heads": 3, "rotary_pct": 0.25}),
    "heads of 12 channels": ("llama", {**_COMMON, "head_dim": 12}),
    "heads of 9 channels": (
        "gpt2",
        {"vocab_size": VOCAB, "n_embd": 45, "n_inner": INNER, "n_layer": LAYERS, "n_head": 5, "n_positions": CONTEXT},
    ),
    "window that no layer uses": ("qwen2_moe", {**_GROUPED, **_EXPERTS, "num_experts": 5, "decoder_sparse_step": 2,
                                                "shared_expert_intermediate_size": 56}),
    "shared keys and values": (
        "gemma4_text",
        {**_COMMON, "num_hidden_layers": 6, "sliding_window": 24, "global_head_dim": 32, "num_kv_shared_layers": 2,
         "layer_types": [_SLIDING, _FULL] * 3, "hidden_size_per_layer_input": 20, "vocab_size_per_layer_input": VOCAB},
    ),
    "sparse activations": (
        "gemma3n_text",
        {**_COMMON, "num_hidden_layers": 3, "sliding_window": 24, "layer_types": [_SLIDING, _SLIDING, _FULL],
         "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.95, 0.0, 0.6], "laurel_rank": 12,
         "hidden_size_per_layer_input": 20, "vocab_size_per_layer_input": VOCAB, "intermediate_size": INNER},
    ),
    "gated attention": (
        "afmoe",
        {**_COMMON, **_EXPERTS, "num_experts": 5, "num_dense_layers": 1, "sliding_window": 24,
         "layer_types": [_SLIDING, _SLIDING, _FULL], "n_group": 1, "topk_group": 1},
    ),
    "biogpt": ("biogpt", {**_UNGROUPED, "scale_embedding": True}),
    "bloom": ("bloom", {"vocab_size": VOCAB, "hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": HEADS}),
    "mpt": (
        "mpt",
        {"vocab_size": VOCAB, "d_model": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "expansion_ratio": 2,
         "max_seq_len": CONTEXT + 7, "attn_config": {"clip_qkv": 0.8, "softmax_scale": 0.2}},
    ),
    "falcon": ("falcon", {**_FALCON, "multi_query": True}),
    "falcon, many keys": ("falcon", {**_FALCON, "multi_query": False, "parallel_attn": False, "bias": True}),
    "falcon, two norms": ("falcon", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": KV_HEADS}),
    "falcon, one norm": (
        "falcon",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": KV_HEADS, "num_ln_in_parallel_attn": 1},
    ),
    "falcon, linear biases": ("falcon", {**_FALCON, "alibi": True, "multi_query": False}),
    "xglm": (
        "xglm",
        {"vocab_size": VOCAB, "d_model": HIDDEN, "ffn_dim": INNER, "num_layers": LAYERS, "attention_heads": HEADS,
         "max_position_embeddings": CONTEXT},
    ),
    "gpt_neo": (
        "gpt_neo",
        {"vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_layers": LAYERS,
         "num_heads": HEADS, "max_position_embeddings": CONTEXT, "window_size": 24,
         "attention_types": [[["global", "local", "local"], 1]]},
    ),
    "openai-gpt": (
        "openai-gpt",
        {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": CONTEXT},
    ),
    "gpt_neox_japanese": (
        "gpt_neox_japanese",
        {"vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_multiple_size": 2, "num_hidden_layers": LAYERS,
         "num_attention_heads": 3, "max_position_embeddings": CONTEXT,
         "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    ),
    "trocr": (
        "trocr",
        {"vocab_size": VOCAB, "d_model": HIDDEN, "decoder_layers": LAYERS, "decoder_attention_heads": HEADS,
         "decoder_ffn_dim": INNER, "max_position_embeddings": CONTEXT, "cross_attention_hidden_size": 56},
    ),
    "tied embeddings": ("llama", {**_COMMON, "tie_word_embeddings": True}),
    "biases of keys": ("doge", {**_GROUPED, "attention_bias": True, "keep_window_size": CONTEXT}),
    "git": (
        "git",
        {**_UNGROUPED, "vision_config": {"hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 1,
                                         "num_attention_heads": 2, "image_size": 16, "patch_size": 8}},
    ),
    "interleaved rotary": ("cohere", {**_GROUPED, "logit_scale": 0.5}),
    "attention sinks": (
        "gpt_oss",
        {**_COMMON, **_EXPERTS, "num_local_experts": 5, "sliding_window": 24,
         "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    ),
}  # fmt: skip

# Rope scaling, each on llama with an original context shorter than the texts the tests feed where that matters.
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "longrope": {
        "rope_type": "longrope", "short_factor": [1.0 + 0.1 * i for i in range(8)],
        "long_factor": [2.0 + 0.5 * i for i in range(8)], "original_max_position_embeddings": 64,
    },
}  # fmt: skip


def rope_config(name: str) -> dict[str, Any]:
    """A llama config with this rope scaling."""
    return {**_COMMON, "rope_parameters": {"rope_theta": 10000.0, **ROPES[name]}}


def build(model_type: str, settings: dict[str, Any]) -> PreTrainedModel:
    """A random-weight model whose norms and biases are random too, so that none of them can be left out unnoticed."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**settings), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif "embed" not in name and "wte" not in name:
                parameter.mul_(3)
    return model
