"""Decoders whose layers keep a state beside or instead of keys and values."""

from __future__ import annotations

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.names import (
    ATTENTION,
    CHOSEN_EXPERTS,
    GRANITE_SCALES,
    GRANITE_TENSORS,
    KEY_VALUE_HEADS,
    RMS,
)

_MAMBA = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "state_size": "ssm.state_size",
    "conv_kernel": "ssm.conv_kernel",
    "layer_norm_epsilon": "attention.layer_norm_rms_epsilon",
}
_MAMBA_LAYERS = {
    "token_embd": "backbone.embeddings",
    "output_norm": "backbone.norm_f",
    "output": "lm_head",
    "blk.{}.attn_norm": "backbone.layers.{}.norm",
    "blk.{}.ssm_in": "backbone.layers.{}.mixer.in_proj",
    "blk.{}.ssm_conv1d": "backbone.layers.{}.mixer.conv1d",
    "blk.{}.ssm_out": "backbone.layers.{}.mixer.out_proj",
}
_MAMBA_BARE = {
    "blk.{}.ssm_a": "backbone.layers.{}.mixer.A_log",
    "blk.{}.ssm_d": "backbone.layers.{}.mixer.D",
}
STATES = {
    "mamba": Architecture(
        "mamba", {**_MAMBA, "time_step_rank": "ssm.time_step_rank"},
        {
            **_MAMBA_LAYERS, "blk.{}.ssm_x": "backbone.layers.{}.mixer.x_proj",
            "blk.{}.ssm_dt": "backbone.layers.{}.mixer.dt_proj",
        },
        expected={"ssm.dt_b_c_rms": False}, attention=False, bare=_MAMBA_BARE,
    ),
    "mamba2": Architecture(
        "mamba2", {**_MAMBA, "num_heads": "ssm.time_step_rank", "n_groups": "ssm.group_count"},
        {
            **_MAMBA_LAYERS, "blk.{}.ssm_norm": "backbone.layers.{}.mixer.norm",
            "blk.{}.ssm_dt": "backbone.layers.{}.mixer.dt",
        },
        attention=False, bare=_MAMBA_BARE,
    ),
    "granitehybrid": Architecture(
        "granitemoehybrid",
        {
            **RMS, **CHOSEN_EXPERTS, **GRANITE_SCALES, "num_local_experts": "expert_count",
            "shared_intermediate_size": "expert_shared_feed_forward_length", "mamba_n_heads": "ssm.time_step_rank",
            "mamba_n_groups": "ssm.group_count", "mamba_d_state": "ssm.state_size", "mamba_d_conv": "ssm.conv_kernel",
        },
        {
            **GRANITE_TENSORS, "blk.{}.ssm_in": "model.layers.{}.mamba.in_proj",
            "blk.{}.ssm_conv1d": "model.layers.{}.mamba.conv1d", "blk.{}.ssm_dt": "model.layers.{}.mamba.dt",
            "blk.{}.ssm_norm": "model.layers.{}.mamba.norm", "blk.{}.ssm_out": "model.layers.{}.mamba.out_proj",
            # A model without experts has only the MLP that would be shared.
            "blk.{}.ffn_gate": "model.layers.{}.shared_mlp.input_linear",
            "blk.{}.ffn_up": "model.layers.{}.shared_mlp.input_linear",
            "blk.{}.ffn_down": "model.layers.{}.shared_mlp.output_linear",
        },
        permuted=True, bare={
            "blk.{}.ssm_a": "model.layers.{}.mamba.A_log", "blk.{}.ssm_d": "model.layers.{}.mamba.D",
        },
        without_attention="linear_attention",
    ),
    # The converter multiplies the weights by the config's multipliers, which are 1 afterwards.
    "falcon-h1": Architecture(
        "falcon_h1",
        {
            **RMS, "mamba_d_ssm": "ssm.inner_size", "mamba_n_heads": "ssm.time_step_rank",
            "mamba_n_groups": "ssm.group_count", "mamba_d_state": "ssm.state_size", "mamba_d_conv": "ssm.conv_kernel",
        },
        {
            **ATTENTION, "token_embd": "model.embed_tokens", "output_norm": "model.final_layernorm",
            "output": "lm_head", "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
            "blk.{}.ssm_in": "model.layers.{}.mamba.in_proj", "blk.{}.ssm_conv1d": "model.layers.{}.mamba.conv1d",
            "blk.{}.ssm_dt": "model.layers.{}.mamba.dt", "blk.{}.ssm_out": "model.layers.{}.mamba.out_proj",
            "blk.{}.ffn_gate": "model.layers.{}.feed_forward.gate_proj",
            "blk.{}.ffn_up": "model.layers.{}.feed_forward.up_proj",
            "blk.{}.ffn_down": "model.layers.{}.feed_forward.down_proj",
        },
        KEY_VALUE_HEADS,
        bare={
            "blk.{}.ssm_a": "model.layers.{}.mamba.A_log", "blk.{}.ssm_d": "model.layers.{}.mamba.D",
            "blk.{}.ffn_norm": "model.layers.{}.pre_ff_layernorm.weight",
        },
    ),
}  # fmt: skip
