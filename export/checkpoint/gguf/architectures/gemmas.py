"""Gemma 3n and 4, whose layers differ in more than their windows."""

from __future__ import annotations

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.names import (
    ATTENTION,
    ENDS,
    GEMMA_NORMS,
    HEAD_NORMS,
    KEY_VALUE_HEADS,
    MLP,
    RMS,
)

_SIZES = {
    **RMS,
    "hidden_size_per_layer_input": "embedding_length_per_layer_input",
    "num_kv_shared_layers": "attention.shared_kv_layers",
}
_LAYERS = {
    **ENDS,
    **ATTENTION,
    **MLP,
    **GEMMA_NORMS,
    **HEAD_NORMS,
    "per_layer_token_embd": "model.embed_tokens_per_layer",
    "per_layer_model_proj": "model.per_layer_model_projection",
    "per_layer_proj_norm": "model.per_layer_projection_norm",
    "blk.{}.inp_gate": "model.layers.{}.per_layer_input_gate",
    "blk.{}.proj": "model.layers.{}.per_layer_projection",
    "blk.{}.post_norm": "model.layers.{}.post_per_layer_input_norm",
}
_CAPPED = {"final_logit_softcapping": "final_logit_softcapping"}
GEMMAS = {
    "gemma3n": Architecture(
        "gemma3n_text",
        {**_SIZES, "altup_active_idx": "altup.active_idx", "altup_num_inputs": "altup.num_inputs"},
        {
            **_LAYERS, "altup_proj": "model.altup_projections.{}",
            "altup_unembd_proj": "model.altup_unembed_projections.{}",
            "blk.{}.altup_correct_coef": "model.layers.{}.altup.correction_coefs",
            "blk.{}.altup_correct_scale": "model.layers.{}.altup.correct_output_scale",
            "blk.{}.altup_predict_coef": "model.layers.{}.altup.prediction_coefs",
            "blk.{}.altup_router": "model.layers.{}.altup.modality_router",
            "blk.{}.altup_router_norm": "model.layers.{}.altup.router_norm",
            "blk.{}.laurel_l": "model.layers.{}.laurel.linear_left",
            "blk.{}.laurel_r": "model.layers.{}.laurel.linear_right",
            "blk.{}.laurel_post_norm": "model.layers.{}.laurel.post_laurel_norm",
        },
        {**KEY_VALUE_HEADS, **_CAPPED}, pattern=5, local_theta=10000.0, unread=True,
    ),
    "gemma4": Architecture(
        "gemma4_text", {name: key for name, key in _SIZES.items() if name != "intermediate_size"},
        {
            **_LAYERS, "blk.{}.layer_output_scale": "model.layers.{}.layer_scalar",
            "blk.{}.ffn_gate_inp": "model.layers.{}.router.proj",
            "blk.{}.ffn_gate_up_exps": "model.layers.{}.experts.gate_up_proj",
            "blk.{}.ffn_gate_exps": "model.layers.{}.experts.gate_up_proj",
            "blk.{}.ffn_up_exps": "model.layers.{}.experts.gate_up_proj",
            "blk.{}.ffn_down_exps": "model.layers.{}.experts.down_proj",
            "blk.{}.pre_ffw_norm_2": "model.layers.{}.pre_feedforward_layernorm_2",
            "blk.{}.post_ffw_norm_1": "model.layers.{}.post_feedforward_layernorm_1",
            "blk.{}.post_ffw_norm_2": "model.layers.{}.post_feedforward_layernorm_2",
        },
        _CAPPED, rotated_share=True, unread=True,
        bare={
            "blk.{}.ffn_gate_inp.scale": "model.layers.{}.router.scale",
            "blk.{}.ffn_down_exps.scale": "model.layers.{}.router.per_expert_scale",
        },
    ),
}  # fmt: skip
