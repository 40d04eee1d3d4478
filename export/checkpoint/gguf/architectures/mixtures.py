"""Decoders with mixtures of experts."""

from __future__ import annotations

import numpy as np

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.names import (
    ATTENTION,
    BIASES,
    CHOSEN_EXPERTS,
    ENDS,
    EXPERT_TENSORS,
    GRANITE_SCALES,
    GRANITE_TENSORS,
    HEAD_NORMS,
    KEY_VALUE_HEADS,
    NORMS,
    RMS,
    SHARED_EXPERT,
)

# As a file has it.
_DBRX_EPSILON = float(np.float32(1e-5))
_LOCAL = {**RMS, **CHOSEN_EXPERTS, "num_local_experts": "expert_count"}
_EXPERTS = {**RMS, **CHOSEN_EXPERTS, "num_experts": "expert_count"}
_OWN_SIZE = {**_EXPERTS, "moe_intermediate_size": "expert_feed_forward_length"}
_PLAIN = {**ENDS, **ATTENTION, **NORMS, **EXPERT_TENSORS}
# Files with the architecture llama that have experts.
MIXTRAL = Architecture("mixtral", _LOCAL, _PLAIN, KEY_VALUE_HEADS, permuted=True, frequency_factors=True)
MIXTURES = {
    "qwen2moe": Architecture(
        "qwen2_moe", {**_OWN_SIZE, "shared_expert_intermediate_size": "expert_shared_feed_forward_length"},
        {**_PLAIN, **SHARED_EXPERT},
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
        "granitemoe", _LOCAL, GRANITE_TENSORS, {**KEY_VALUE_HEADS, **GRANITE_SCALES}, biases=BIASES, permuted=True,
    ),
    "dbrx": Architecture(
        "dbrx",
        {
            "d_model": "embedding_length", "n_layers": "block_count", "n_heads": "attention.head_count",
            "max_seq_len": "context_length",
        },
        {
            "token_embd": "transformer.wte", "output_norm": "transformer.norm_f", "output": "lm_head",
            "blk.{}.attn_norm": "transformer.blocks.{}.norm_attn_norm.norm_1",
            "blk.{}.attn_qkv": "transformer.blocks.{}.norm_attn_norm.attn.Wqkv",
            "blk.{}.attn_output": "transformer.blocks.{}.norm_attn_norm.attn.out_proj",
            "blk.{}.attn_output_norm": "transformer.blocks.{}.norm_attn_norm.norm_2",
            "blk.{}.ffn_gate_inp": "transformer.blocks.{}.ffn.router.layer",
            "blk.{}.ffn_gate_exps": "transformer.blocks.{}.ffn.experts.mlp.w1",
            "blk.{}.ffn_up_exps": "transformer.blocks.{}.ffn.experts.mlp.v1",
            "blk.{}.ffn_down_exps": "transformer.blocks.{}.ffn.experts.mlp.w2",
        },
        # PyTorch's own, which the class of transformers has.
        expected={"attention.layer_norm_epsilon": _DBRX_EPSILON},
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
