"""Decoders whose keys and values are made from a vector that is smaller than both."""

from __future__ import annotations

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.names import (
    CHOSEN_EXPERTS,
    ENDS,
    EXPERT_TENSORS,
    MLP,
    NORMS,
    RMS,
)

_LATENT = {**RMS, "kv_lora_rank": "attention.kv_lora_rank"}
_LAYERS = {
    **ENDS,
    **NORMS,
    **MLP,
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_q_a": "model.layers.{}.self_attn.q_a_proj",
    "blk.{}.attn_q_a_norm": "model.layers.{}.self_attn.q_a_layernorm",
    "blk.{}.attn_q_b": "model.layers.{}.self_attn.q_b_proj",
    "blk.{}.attn_kv_a_mqa": "model.layers.{}.self_attn.kv_a_proj_with_mqa",
    "blk.{}.attn_kv_a_norm": "model.layers.{}.self_attn.kv_a_layernorm",
    "blk.{}.attn_kv_b": "model.layers.{}.self_attn.kv_b_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
}
_EXPERTS = {
    **_LATENT,
    **CHOSEN_EXPERTS,
    "n_routed_experts": "expert_count",
    "n_shared_experts": "expert_shared_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "first_k_dense_replace": "leading_dense_block_count",
}
_MIXTURE = {
    **_LAYERS,
    **EXPERT_TENSORS,
    "blk.{}.attn_k_b": "model.layers.{}.self_attn.kv_b_proj",
    "blk.{}.attn_v_b": "model.layers.{}.self_attn.kv_b_proj",
    "blk.{}.ffn_gate_shexp": "model.layers.{}.mlp.shared_experts.gate_proj",
    "blk.{}.ffn_up_shexp": "model.layers.{}.mlp.shared_experts.up_proj",
    "blk.{}.ffn_down_shexp": "model.layers.{}.mlp.shared_experts.down_proj",
}
# Files with the architecture deepseek2 whose experts are weighed by a sigmoid.
DEEPSEEK_V3 = Architecture(
    "deepseek_v3", _EXPERTS, {**_MIXTURE, "blk.{}.exp_probs_b": "model.layers.{}.mlp.gate.e_score_correction"}
)
LATENT = {
    "deepseek2": Architecture("deepseek_v2", _EXPERTS, _MIXTURE),
    # Its scales of embeddings, layers and logits are llama.cpp's own constants, and those of transformers' config.
    "minicpm3": Architecture("minicpm3", _LATENT, _LAYERS),
}
