"""A table of GGUF's architectures: for each, transformers' model type, and its names of keys and tensors.

An architecture that is not in the table is refused by name, because a config that is only partly understood would give
wrong results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# From a config's attribute to the file's key.
_SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
}
_RMS = {**_SIZES, "rms_norm_eps": "attention.layer_norm_rms_epsilon"}
_BERT = {**_SIZES, "layer_norm_eps": "attention.layer_norm_epsilon"}

# From a tensor's name to the parameter's, both without ".weight" and ".bias"; {} is the layer.
_ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
}
_MLP = {
    "blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
}
_NORMS = {
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
}
_HEAD_NORMS = {
    "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_norm",
}
_GEMMA_NORMS = {
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_norm": "model.layers.{}.pre_feedforward_layernorm",
    "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
}
_LLAMA = {**_ENDS, **_ATTENTION, **_MLP, **_NORMS}


@dataclass(frozen=True)
class Architecture:
    """How a GGUF architecture maps to one of transformers.

    Attributes:
        model_type: transformers' name.
        sizes: keys that every file has, by the config's attribute.
        tensors: from tensors to parameters.
        options: keys that a file may have, by the config's attribute.
        biases: from a tensor of layer 0 that only files with biases have to the config's setting for biases.
        permuted: whether the rows of queries and keys are in the order of llama.cpp's rotary embedding.
        rotary: whether positions are encoded by a rotary embedding.
        frequency_factors: whether `rope_freqs.weight` is used.
        norm_offset: what llama.cpp's converter adds to the weights of norms.
        pattern: period of the sliding windows, in layers: every layer has one but the last of each period; 0 if all
            layers are the same.
        local_theta: the rotary base of layers with a sliding window; 0 if it is that of the other layers.
        encoder: whether it is an encoder.
    """

    model_type: str
    sizes: Mapping[str, str]
    tensors: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    biases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    permuted: bool = False
    rotary: bool = True
    frequency_factors: bool = False
    norm_offset: float = 0.0
    pattern: int = 0
    local_theta: float | None = None
    encoder: bool = False


_ATTENTION_BIAS = {"attention_bias": "blk.0.attn_q.bias"}
_BIASES = {**_ATTENTION_BIAS, "mlp_bias": "blk.0.ffn_up.bias"}
_KV = {"num_key_value_heads": "attention.head_count_kv"}

ARCHITECTURES = {
    "llama": Architecture(
        "llama", _RMS, _LLAMA, _KV, biases=_BIASES, permuted=True, frequency_factors=True,
    ),
    "qwen2": Architecture("qwen2", _RMS, _LLAMA, _KV),
    "qwen3": Architecture("qwen3", _RMS, {**_LLAMA, **_HEAD_NORMS}, _KV, biases=_ATTENTION_BIAS),
    "gemma2": Architecture(
        "gemma2", _RMS, {**_ENDS, **_ATTENTION, **_MLP, **_GEMMA_NORMS},
        {
            **_KV, "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        biases=_ATTENTION_BIAS, norm_offset=1.0, pattern=2,
    ),
    "gemma3": Architecture(
        "gemma3_text", _RMS, {**_ENDS, **_ATTENTION, **_MLP, **_GEMMA_NORMS, **_HEAD_NORMS},
        {**_KV, "final_logit_softcapping": "final_logit_softcapping"},
        biases=_ATTENTION_BIAS, norm_offset=1.0, pattern=6, local_theta=10000.0,
    ),
    "phi3": Architecture(
        "phi3", _RMS,
        {
            **_ENDS, **_NORMS, "blk.{}.attn_qkv": "model.layers.{}.self_attn.qkv_proj",
            "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
            "blk.{}.ffn_up": "model.layers.{}.mlp.gate_up_proj", "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
        },
        {**_KV, "sliding_window": "attention.sliding_window"},
    ),
    "granite": Architecture(
        "granite", _RMS, _LLAMA,
        {
            **_KV, "attention_multiplier": "attention.scale", "embedding_multiplier": "embedding_scale",
            "residual_multiplier": "residual_scale", "logits_scaling": "logit_scale",
        },
        biases=_BIASES, permuted=True, frequency_factors=True,
    ),
    "olmo2": Architecture(
        "olmo2", _RMS,
        {
            **_ENDS, **_ATTENTION, **_MLP, **_HEAD_NORMS,
            "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
            "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
        },
        _KV, biases=_ATTENTION_BIAS,
    ),
    "smollm3": Architecture("smollm3", _RMS, _LLAMA, _KV, biases=_BIASES, permuted=True),
    "starcoder2": Architecture(
        "starcoder2", {**_SIZES, "norm_epsilon": "attention.layer_norm_epsilon"},
        {
            **_ENDS, **_ATTENTION, **_NORMS, "blk.{}.ffn_up": "model.layers.{}.mlp.c_fc",
            "blk.{}.ffn_down": "model.layers.{}.mlp.c_proj",
        },
        _KV,
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
    "bert": Architecture(
        "bert", _BERT,
        {
            "token_embd": "embeddings.word_embeddings", "token_types": "embeddings.token_type_embeddings",
            "position_embd": "embeddings.position_embeddings", "token_embd_norm": "embeddings.LayerNorm",
            "blk.{}.attn_q": "encoder.layer.{}.attention.self.query",
            "blk.{}.attn_k": "encoder.layer.{}.attention.self.key",
            "blk.{}.attn_v": "encoder.layer.{}.attention.self.value",
            "blk.{}.attn_output": "encoder.layer.{}.attention.output.dense",
            "blk.{}.attn_output_norm": "encoder.layer.{}.attention.output.LayerNorm",
            "blk.{}.ffn_up": "encoder.layer.{}.intermediate.dense",
            "blk.{}.ffn_down": "encoder.layer.{}.output.dense",
            "blk.{}.layer_output_norm": "encoder.layer.{}.output.LayerNorm",
        },
        rotary=False, encoder=True,
    ),
    "nomic-bert": Architecture(
        "nomic_bert", _BERT,
        {
            "token_embd": "embeddings.word_embeddings", "token_types": "embeddings.token_type_embeddings",
            "token_embd_norm": "embeddings.LayerNorm", "blk.{}.attn_q": "layers.{}.self_attn.q_proj",
            "blk.{}.attn_k": "layers.{}.self_attn.k_proj", "blk.{}.attn_v": "layers.{}.self_attn.v_proj",
            "blk.{}.attn_output": "layers.{}.self_attn.o_proj",
            "blk.{}.attn_output_norm": "layers.{}.post_attention_layernorm",
            "blk.{}.ffn_gate": "layers.{}.mlp.gate_proj", "blk.{}.ffn_up": "layers.{}.mlp.up_proj",
            "blk.{}.ffn_down": "layers.{}.mlp.down_proj", "blk.{}.layer_output_norm": "layers.{}.post_mlp_layernorm",
        },
        encoder=True,
    ),
}  # fmt: skip
