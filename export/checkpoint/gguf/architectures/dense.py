"""Decoders of attention and one MLP a layer."""

from __future__ import annotations

import numpy as np

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
    LAYER_NORM,
    LLAMA,
    MLP,
    NORMS,
    POST_NORMS,
    RMS,
    SIZES,
)

# Of the class of transformers, as a file has it.
_OLMO_EPSILON = float(np.float32(1e-5))
_FALCON = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_kv_heads": "attention.head_count_kv",
    "ffn_hidden_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
}
_FALCON_LAYERS = {
    "token_embd": "transformer.word_embeddings",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "blk.{}.attn_qkv": "transformer.h.{}.self_attention.query_key_value",
    "blk.{}.attn_output": "transformer.h.{}.self_attention.dense",
    "blk.{}.ffn_up": "transformer.h.{}.mlp.dense_h_to_4h",
    "blk.{}.ffn_down": "transformer.h.{}.mlp.dense_4h_to_h",
}
# Files with the architecture falcon that have a norm for each of a layer's halves.
FALCON_OF_TWO_NORMS = Architecture(
    "falcon",
    _FALCON,
    {
        **_FALCON_LAYERS,
        "blk.{}.attn_norm": "transformer.h.{}.ln_mlp",
        "blk.{}.attn_norm_2": "transformer.h.{}.ln_attn",
    },
    grouped=True,
    constants={"new_decoder_architecture": True, "num_ln_in_parallel_attn": 2},
    expected={"tensor_data_layout": "jploski"},
)
_COHERE = {**ENDS, **ATTENTION, **MLP, "blk.{}.attn_norm": "model.layers.{}.input_layernorm"}
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
        {**ENDS, **ATTENTION, **MLP, **HEAD_NORMS, **POST_NORMS},
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
        "stablelm", LAYER_NORM, LLAMA,
        {**KEY_VALUE_HEADS, "use_parallel_residual": "use_parallel_residual"},
        biases={"use_qkv_bias": "blk.0.attn_q.bias"},
    ),
    "phi2": Architecture(
        "phi", LAYER_NORM,
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
        "cohere", {**LAYER_NORM, "logit_scale": "logit_scale"},
        _COHERE,
        KEY_VALUE_HEADS, biases=ATTENTION_BIAS,
    ),
    "cohere2": Architecture(
        "cohere2",
        {**LAYER_NORM, "logit_scale": "logit_scale", "sliding_window": "attention.sliding_window"},
        _COHERE,
        KEY_VALUE_HEADS, pattern=4,
    ),
    "exaone4": Architecture(
        "exaone4", RMS,
        {**ENDS, **ATTENTION, **MLP, **HEAD_NORMS, **POST_NORMS},
        KEY_VALUE_HEADS, frequency_factors=True, pattern=4,
    ),
    "glm4": Architecture(
        "glm4", RMS,
        {
            **ENDS, **ATTENTION, "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
            "blk.{}.post_attention_norm": "model.layers.{}.post_self_attn_layernorm",
            "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
            "blk.{}.post_ffw_norm": "model.layers.{}.post_mlp_layernorm",
            "blk.{}.ffn_up": "model.layers.{}.mlp.gate_up_proj", "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
        },
        KEY_VALUE_HEADS, whole_rotation=True,
    ),
    "gptneox": Architecture(
        "gpt_neox", {**LAYER_NORM, "use_parallel_residual": "use_parallel_residual"},
        {
            "token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "lm_head",
            "blk.{}.attn_norm": "gpt_neox.layers.{}.input_layernorm",
            "blk.{}.attn_qkv": "gpt_neox.layers.{}.attention.query_key_value",
            "blk.{}.attn_output": "gpt_neox.layers.{}.attention.dense",
            "blk.{}.ffn_norm": "gpt_neox.layers.{}.post_attention_layernorm",
            "blk.{}.ffn_up": "gpt_neox.layers.{}.mlp.dense_h_to_4h",
            "blk.{}.ffn_down": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
        },
        grouped=True, whole_rotation=True,
    ),
    # Falcon 2 has several heads for keys and one norm, and a rotary base that its files do not name.
    "falcon": Architecture(
        "falcon", _FALCON, {**_FALCON_LAYERS, "blk.{}.attn_norm": "transformer.h.{}.input_layernorm"},
        grouped=True, expected={"attention.head_count_kv": 1, "tensor_data_layout": "jploski"},
    ),
    "olmo": Architecture(
        "olmo", SIZES, {**ENDS, **ATTENTION, **MLP}, {**KEY_VALUE_HEADS, "clip_qkv": "attention.clamp_kqv"},
        permuted=True, expected={"attention.layer_norm_epsilon": _OLMO_EPSILON},
    ),
    "apertus": Architecture(
        "apertus", RMS,
        {
            **ENDS, **ATTENTION, **HEAD_NORMS, "blk.{}.attn_norm": "model.layers.{}.attention_layernorm",
            "blk.{}.ffn_norm": "model.layers.{}.feedforward_layernorm", "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
            "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
        },
        KEY_VALUE_HEADS, biases=ATTENTION_BIAS, frequency_factors=True,
        layer_values={
            f"xielu.{name}": f"model.layers.{{}}.mlp.act_fn.{name}" for name in ("alpha_n", "alpha_p", "beta", "eps")
        },
    ),
    "bloom": Architecture(
        "bloom",
        {
            "hidden_size": "embedding_length", "n_layer": "block_count", "n_head": "attention.head_count",
            "layer_norm_epsilon": "attention.layer_norm_epsilon", "seq_length": "context_length",
        },
        {
            "token_embd": "transformer.word_embeddings", "token_embd_norm": "transformer.word_embeddings_layernorm",
            "output_norm": "transformer.ln_f", "output": "lm_head",
            "blk.{}.attn_norm": "transformer.h.{}.input_layernorm",
            "blk.{}.attn_qkv": "transformer.h.{}.self_attention.query_key_value",
            "blk.{}.attn_output": "transformer.h.{}.self_attention.dense",
            "blk.{}.ffn_norm": "transformer.h.{}.post_attention_layernorm",
            "blk.{}.ffn_up": "transformer.h.{}.mlp.dense_h_to_4h",
            "blk.{}.ffn_down": "transformer.h.{}.mlp.dense_4h_to_h",
        },
        rotary=False, grouped=True,
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
