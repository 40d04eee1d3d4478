"""Decoders some of whose layers are short convolutions."""

from __future__ import annotations

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.names import CHOSEN_EXPERTS, SIZES

_SIZES = {**SIZES, "norm_eps": "attention.layer_norm_rms_epsilon", "conv_L_cache": "shortconv.l_cache"}
_LAYERS = {
    "token_embd": "model.embed_tokens",
    "token_embd_norm": "model.embedding_norm",
    "output": "lm_head",
    "blk.{}.attn_norm": "model.layers.{}.operator_norm",
    "blk.{}.ffn_norm": "model.layers.{}.ffn_norm",
    "blk.{}.shortconv.conv": "model.layers.{}.conv.conv",
    "blk.{}.shortconv.in_proj": "model.layers.{}.conv.in_proj",
    "blk.{}.shortconv.out_proj": "model.layers.{}.conv.out_proj",
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.out_proj",
    "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_layernorm",
    "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_layernorm",
    "blk.{}.ffn_gate": "model.layers.{}.feed_forward.w1",
    "blk.{}.ffn_up": "model.layers.{}.feed_forward.w3",
    "blk.{}.ffn_down": "model.layers.{}.feed_forward.w2",
}
# Which function turns scores into weights of experts, as llama.cpp numbers them.
_SIGMOID = 2
CONVOLUTIONS = {
    "lfm2": Architecture(
        "lfm2", _SIZES, _LAYERS, constants={"block_auto_adjust_ff_dim": False}, without_attention="conv",
    ),
    "lfm2moe": Architecture(
        "lfm2_moe",
        {
            **_SIZES, **CHOSEN_EXPERTS, "num_experts": "expert_count",
            "moe_intermediate_size": "expert_feed_forward_length", "num_dense_layers": "leading_dense_block_count",
        },
        {
            **_LAYERS, "blk.{}.ffn_gate_inp": "model.layers.{}.feed_forward.gate",
            "blk.{}.exp_probs_b": "model.layers.{}.feed_forward.expert_bias",
            "blk.{}.ffn_gate_exps": "model.layers.{}.feed_forward.experts.gate_up_proj",
            "blk.{}.ffn_up_exps": "model.layers.{}.feed_forward.experts.gate_up_proj",
            "blk.{}.ffn_down_exps": "model.layers.{}.feed_forward.experts.down_proj",
        },
        {"routed_scaling_factor": "expert_weights_scale"},
        constants={"norm_topk_prob": True}, expected={"expert_gating_func": _SIGMOID, "expert_weights_norm": True},
        without_attention="conv",
    ),
}  # fmt: skip
