"""Names of keys and tensors that many architectures share."""

from __future__ import annotations

# From a config's attribute to the file's key.
SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
}
RMS = {**SIZES, "rms_norm_eps": "attention.layer_norm_rms_epsilon"}
LAYER_NORM = {**SIZES, "layer_norm_eps": "attention.layer_norm_epsilon"}

# From a tensor's name to the parameter's, both without ".weight" and ".bias"; {} is the layer.
ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ATTENTION = {
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
}
MLP = {
    "blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
}
NORMS = {
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
}
HEAD_NORMS = {
    "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_norm",
}
POST_NORMS = {
    "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
}
GEMMA_NORMS = {
    **POST_NORMS,
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.ffn_norm": "model.layers.{}.pre_feedforward_layernorm",
}
LLAMA = {**ENDS, **ATTENTION, **MLP, **NORMS}

ATTENTION_BIAS = {"attention_bias": "blk.0.attn_q.bias"}
BIASES = {**ATTENTION_BIAS, "mlp_bias": "blk.0.ffn_up.bias"}
KEY_VALUE_HEADS = {"num_key_value_heads": "attention.head_count_kv"}

# Matrices of all experts in one tensor; gates and ups are one parameter.
EXPERT_TENSORS = {
    "blk.{}.ffn_gate_inp": "model.layers.{}.mlp.gate",
    "blk.{}.ffn_gate_exps": "model.layers.{}.mlp.experts.gate_up_proj",
    "blk.{}.ffn_up_exps": "model.layers.{}.mlp.experts.gate_up_proj",
    "blk.{}.ffn_down_exps": "model.layers.{}.mlp.experts.down_proj",
}
# The expert that is always chosen, and its gate.
SHARED_EXPERT = {
    "blk.{}.ffn_gate_inp_shexp": "model.layers.{}.mlp.shared_expert_gate",
    "blk.{}.ffn_gate_shexp": "model.layers.{}.mlp.shared_expert.gate_proj",
    "blk.{}.ffn_up_shexp": "model.layers.{}.mlp.shared_expert.up_proj",
    "blk.{}.ffn_down_shexp": "model.layers.{}.mlp.shared_expert.down_proj",
}
CHOSEN_EXPERTS = {"num_experts_per_tok": "expert_used_count"}
GRANITE_SCALES = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
# Of a model with experts and an MLP that all tokens share.
GRANITE_TENSORS = {
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
