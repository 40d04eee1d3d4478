"""Decoders some of whose layers are gated delta rules."""

from __future__ import annotations

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.names import (
    ATTENTION,
    CHOSEN_EXPERTS,
    ENDS,
    EXPERT_TENSORS,
    HEAD_NORMS,
    KEY_VALUE_HEADS,
    MLP,
    RMS,
    SHARED_EXPERT,
)

_RULES = {
    "linear_conv_kernel_dim": "ssm.conv_kernel",
    "linear_key_head_dim": "ssm.state_size",
    "linear_num_key_heads": "ssm.group_count",
    "linear_num_value_heads": "ssm.time_step_rank",
}
_DENSE = {**RMS, **_RULES}
_EXPERTS = {
    **{name: key for name, key in _DENSE.items() if name != "intermediate_size"},
    **CHOSEN_EXPERTS,
    "num_experts": "expert_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
}
_RULE = "model.layers.{}.linear_attn"
_LAYERS = {
    **ENDS,
    **ATTENTION,
    **HEAD_NORMS,
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ssm_conv1d": f"{_RULE}.conv1d",
    "blk.{}.ssm_dt": f"{_RULE}.dt",
    "blk.{}.ssm_norm": f"{_RULE}.norm",
    "blk.{}.ssm_out": f"{_RULE}.out_proj",
}
_APART = {
    **_LAYERS,
    "blk.{}.attn_qkv": f"{_RULE}.in_proj_qkv",
    "blk.{}.attn_gate": f"{_RULE}.in_proj_z",
    "blk.{}.ssm_alpha": f"{_RULE}.in_proj_a",
    "blk.{}.ssm_beta": f"{_RULE}.in_proj_b",
}
_MIXTURE = {**EXPERT_TENSORS, **SHARED_EXPERT}
_BARE = {"blk.{}.ssm_a": f"{_RULE}.A_log"}
# The converter puts the first head of values of each head of keys before the second ones.
_ROWS = {
    "blk.{}.attn_qkv": "keys and values",
    "blk.{}.ssm_conv1d": "keys and values",
    "blk.{}.attn_gate": "values",
    "blk.{}.ssm_alpha": "heads of values",
    "blk.{}.ssm_beta": "heads of values",
    "blk.{}.ssm_a": "heads of values",
    "blk.{}.ssm_dt": "heads of values",
}
_COLUMNS = {"blk.{}.ssm_out": "values"}
DELTA_RULES = {
    "qwen35": Architecture(
        "qwen3_5_text", _DENSE, {**_APART, **MLP}, KEY_VALUE_HEADS, norm_offset=1.0, whole_rotation=True, bare=_BARE,
        row_orders=_ROWS, column_orders=_COLUMNS, next_tokens=True,
    ),
    "qwen35moe": Architecture(
        "qwen3_5_moe_text", _EXPERTS, {**_APART, **_MIXTURE}, KEY_VALUE_HEADS, expected={"expert_weights_norm": True},
        norm_offset=1.0, whole_rotation=True, bare=_BARE, row_orders=_ROWS, column_orders=_COLUMNS, next_tokens=True,
    ),
    "qwen3next": Architecture(
        "qwen3_next", _EXPERTS,
        {
            **_LAYERS, **_MIXTURE, "blk.{}.attn_qkv": f"{_RULE}.in_proj_qkvz",
            "blk.{}.attn_gate": f"{_RULE}.in_proj_qkvz", "blk.{}.ssm_ba": f"{_RULE}.in_proj_ba",
        },
        KEY_VALUE_HEADS, constants={"norm_topk_prob": True}, expected={"expert_weights_norm": True}, norm_offset=1.0,
        whole_rotation=True, bare=_BARE, row_orders={"blk.{}.attn_qkv": "keys, values and gates"}, next_tokens=True,
    ),
}  # fmt: skip
