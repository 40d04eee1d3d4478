"""Decoders with mixtures of experts."""

from __future__ import annotations

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.names import (
    ATTENTION,
    BIASES,
    CHOSEN_EXPERTS,
    ENDS,
    EXPERT_TENSORS,
    GRANITE_SCALES,
    HEAD_NORMS,
    KEY_VALUE_HEADS,
    NORMS,
    RMS,
)

_LOCAL = {**RMS, **CHOSEN_EXPERTS, "num_local_experts": "expert_count"}
_EXPERTS = {**RMS, **CHOSEN_EXPERTS, "num_experts": "expert_count"}
_OWN_SIZE = {**_EXPERTS, "moe_intermediate_size": "expert_feed_forward_length"}
_PLAIN = {**ENDS, **ATTENTION, **NORMS, **EXPERT_TENSORS}
_GRANITE = {
    **ENDS,
    **ATTENTION,
    **NORMS,
    "blk.{}.ffn_gate_inp": "model.layers.{}.block_sparse_moe.router",
    "blk.{}.ffn_gate_exps": "model.layers.{}.block_sparse_moe.experts.gate_up_proj",
    "blk.{}.ffn_up_exps": "model.layers.{}.block_sparse_moe.experts.gate_up_proj",
    "blk.{}.ffn_down_exps": "model.layers.{}.block_sparse_moe.experts.down_proj",
    "blk.{}.ffn_gate_shexp": "model.layers.{}.shared_mlp.input_linear",
    "blk.{}.ffn_up_shexp": "model.layers.{}.shared_mlp.input_linear",
    "blk.{}.ffn_down_shexp": "model.layers.{}.shared_mlp.output_linear",
}
# Files with the architecture llama that have experts.
MIXTRAL = Architecture("mixtral", _LOCAL, _PLAIN, KEY_VALUE_HEADS, permuted=True, frequency_factors=True)
MIXTURES = {
    "qwen2moe": Architecture(
        "qwen2_moe", {**_OWN_SIZE, "shared_expert_intermediate_size": "expert_shared_feed_forward_length"},
        {
            **_PLAIN, "blk.{}.ffn_gate_inp_shexp": "model.layers.{}.mlp.shared_expert_gate",
            "blk.{}.ffn_gate_shexp": "model.layers.{}.mlp.shared_expert.gate_proj",
            "blk.{}.ffn_up_shexp": "model.layers.{}.mlp.shared_expert.up_proj",
            "blk.{}.ffn_down_shexp": "model.layers.{}.mlp.shared_expert.down_proj",
        },
        KEY_VALUE_HEADS, constants={"norm_topk_prob": False}, expected={"expert_weights_norm": False},
    ),
    "qwen3moe": Architecture(
        "qwen3_moe", _OWN_SIZE, {**_PLAIN, **HEAD_NORMS}, KEY_VALUE_HEADS, constants={"norm_topk_prob": True},
        expected={"expert_weights_norm": True},
    ),
    "olmoe": Architecture(
        "olmoe", _EXPERTS, {**_PLAIN, **HEAD_NORMS}, KEY_VALUE_HEADS, constants={"norm_topk_prob": False},
        expected={"expert_weights_norm": False},
    ),
    "granitemoe": Architecture(
        "granitemoe", _LOCAL, _GRANITE, {**KEY_VALUE_HEADS, **GRANITE_SCALES}, biases=BIASES, permuted=True,
    ),
    "gpt-oss": Architecture(
        "gpt_oss", {**_LOCAL, "intermediate_size": "expert_feed_forward_length"},
        {
            **_PLAIN, "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
            "blk.{}.ffn_gate_inp": "model.layers.{}.mlp.router", "blk.{}.attn_sinks": "model.layers.{}.self_attn.sinks",
        },
        KEY_VALUE_HEADS, pattern=2, rope={"truncate": False},
    ),
}  # fmt: skip
