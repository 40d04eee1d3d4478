"""Decoders of attention and one MLP a layer."""

from __future__ import annotations

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.names import (
    ATTENTION,
    ATTENTION_BIAS,
    BIASES,
    ENDS,
    GEMMA_NORMS,
    GRANITE_SCALES,
    HEAD_NORMS,
    KEY_VALUE_HEADS,
    LLAMA,
    MLP,
    NORMS,
    RMS,
    SIZES,
)

DENSE = {
    "llama": Architecture(
        "llama", RMS, LLAMA, KEY_VALUE_HEADS, biases=BIASES, permuted=True, frequency_factors=True,
    ),
    "qwen2": Architecture("qwen2", RMS, LLAMA, KEY_VALUE_HEADS),
    "qwen3": Architecture("qwen3", RMS, {**LLAMA, **HEAD_NORMS}, KEY_VALUE_HEADS, biases=ATTENTION_BIAS),
    "gemma": Architecture(
        "gemma", RMS, LLAMA, KEY_VALUE_HEADS, biases=ATTENTION_BIAS, norm_offset=1.0,
    ),
    "gemma2": Architecture(
        "gemma2", RMS, {**ENDS, **ATTENTION, **MLP, **GEMMA_NORMS},
        {
            **KEY_VALUE_HEADS, "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        biases=ATTENTION_BIAS, norm_offset=1.0, pattern=2,
    ),
    "gemma3": Architecture(
        "gemma3_text", RMS, {**ENDS, **ATTENTION, **MLP, **GEMMA_NORMS, **HEAD_NORMS},
        {**KEY_VALUE_HEADS, "final_logit_softcapping": "final_logit_softcapping"},
        biases=ATTENTION_BIAS, norm_offset=1.0, pattern=6, local_theta=10000.0,
    ),
    "phi3": Architecture(
        "phi3", RMS,
        {
            **ENDS, **NORMS, "blk.{}.attn_qkv": "model.layers.{}.self_attn.qkv_proj",
            "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
            "blk.{}.ffn_up": "model.layers.{}.mlp.gate_up_proj", "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
        },
        {**KEY_VALUE_HEADS, "sliding_window": "attention.sliding_window"},
    ),
    "granite": Architecture(
        "granite", RMS, LLAMA,
        {**KEY_VALUE_HEADS, **GRANITE_SCALES},
        biases=BIASES, permuted=True, frequency_factors=True,
    ),
    "olmo2": Architecture(
        "olmo2", RMS,
        {
            **ENDS, **ATTENTION, **MLP, **HEAD_NORMS,
            "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
            "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
        },
        KEY_VALUE_HEADS, biases=ATTENTION_BIAS,
    ),
    "smollm3": Architecture("smollm3", RMS, LLAMA, KEY_VALUE_HEADS, biases=BIASES, permuted=True),
    "starcoder2": Architecture(
        "starcoder2", {**SIZES, "norm_epsilon": "attention.layer_norm_epsilon"},
        {
            **ENDS, **ATTENTION, **NORMS, "blk.{}.ffn_up": "model.layers.{}.mlp.c_fc",
            "blk.{}.ffn_down": "model.layers.{}.mlp.c_proj",
        },
        KEY_VALUE_HEADS,
    ),
    "mistral3": Architecture("mistral", RMS, LLAMA, KEY_VALUE_HEADS, permuted=True, constants={"sliding_window": None}),
    "arcee": Architecture(
        "arcee", RMS, {name: target for name, target in LLAMA.items() if name != "blk.{}.ffn_gate"}, KEY_VALUE_HEADS,
        biases=BIASES, permuted=True, frequency_factors=True,
    ),
    "seed_oss": Architecture(
        "seed_oss", RMS,
        {
            **ENDS, **ATTENTION, **MLP, "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
            "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
        },
        KEY_VALUE_HEADS, biases=ATTENTION_BIAS,
    ),
    "hunyuan-dense": Architecture(
        "hunyuan_v1_dense", RMS,
        {
            **LLAMA, "blk.{}.attn_q_norm": "model.layers.{}.self_attn.query_layernorm",
            "blk.{}.attn_k_norm": "model.layers.{}.self_attn.key_layernorm",
        },
        KEY_VALUE_HEADS,
    ),
    "stablelm": Architecture(
        "stablelm", {**SIZES, "layer_norm_eps": "attention.layer_norm_epsilon"}, LLAMA,
        {**KEY_VALUE_HEADS, "use_parallel_residual": "use_parallel_residual"},
        biases={"use_qkv_bias": "blk.0.attn_q.bias"},
    ),
    "phi2": Architecture(
        "phi", {**SIZES, "layer_norm_eps": "attention.layer_norm_epsilon"},
        {
            "token_embd": "model.embed_tokens", "output_norm": "model.final_layernorm", "output": "lm_head",
            "blk.{}.attn_norm": "model.layers.{}.input_layernorm", "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
            "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj", "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
            "blk.{}.attn_output": "model.layers.{}.self_attn.dense", "blk.{}.ffn_up": "model.layers.{}.mlp.fc1",
            "blk.{}.ffn_down": "model.layers.{}.mlp.fc2",
        },
        KEY_VALUE_HEADS,
    ),
    "command-r": Architecture(
        "cohere", {**SIZES, "layer_norm_eps": "attention.layer_norm_epsilon", "logit_scale": "logit_scale"},
        {**ENDS, **ATTENTION, **MLP, "blk.{}.attn_norm": "model.layers.{}.input_layernorm"},
        KEY_VALUE_HEADS, biases=ATTENTION_BIAS,
    ),
    "gpt2": Architecture(
        "gpt2",
        {
            "n_embd": "embedding_length", "n_layer": "block_count", "n_head": "attention.head_count",
            "n_inner": "feed_forward_length", "n_positions": "context_length",
            "layer_norm_epsilon": "attention.layer_norm_epsilon",
        },
        {
            "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f",
            "output": "lm_head", "blk.{}.attn_norm": "transformer.h.{}.ln_1",
            "blk.{}.attn_qkv": "transformer.h.{}.attn.c_attn", "blk.{}.attn_output": "transformer.h.{}.attn.c_proj",
            "blk.{}.ffn_norm": "transformer.h.{}.ln_2", "blk.{}.ffn_up": "transformer.h.{}.mlp.c_fc",
            "blk.{}.ffn_down": "transformer.h.{}.mlp.c_proj",
        },
        rotary=False,
    ),
}  # fmt: skip
