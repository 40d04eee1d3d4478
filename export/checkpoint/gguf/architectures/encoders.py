"""Encoders."""

from __future__ import annotations

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.names import (
    ATTENTION,
    ATTENTION_BIAS,
    ENDS,
    GEMMA_NORMS,
    HEAD_NORMS,
    KEY_VALUE_HEADS,
    LAYER_NORM,
    MLP,
    RMS,
    SIZES,
)

ENCODERS = {
    "bert": Architecture(
        "bert", LAYER_NORM,
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
        rotary=False, form="encoder",
    ),
    "nomic-bert": Architecture(
        "nomic_bert", LAYER_NORM,
        {
            "token_embd": "embeddings.word_embeddings", "token_types": "embeddings.token_type_embeddings",
            "token_embd_norm": "embeddings.LayerNorm", "blk.{}.attn_q": "layers.{}.self_attn.q_proj",
            "blk.{}.attn_k": "layers.{}.self_attn.k_proj", "blk.{}.attn_v": "layers.{}.self_attn.v_proj",
            "blk.{}.attn_output": "layers.{}.self_attn.o_proj",
            "blk.{}.attn_output_norm": "layers.{}.post_attention_layernorm",
            "blk.{}.ffn_gate": "layers.{}.mlp.gate_proj", "blk.{}.ffn_up": "layers.{}.mlp.up_proj",
            "blk.{}.ffn_down": "layers.{}.mlp.down_proj", "blk.{}.layer_output_norm": "layers.{}.post_mlp_layernorm",
        },
        form="encoder",
    ),
    "modern-bert": Architecture(
        "modernbert", {**SIZES, "norm_eps": "attention.layer_norm_epsilon"},
        {
            "token_embd": "embeddings.tok_embeddings", "token_embd_norm": "embeddings.norm",
            "blk.{}.attn_norm": "layers.{}.attn_norm", "blk.{}.attn_qkv": "layers.{}.attn.Wqkv",
            "blk.{}.attn_output": "layers.{}.attn.Wo", "blk.{}.ffn_norm": "layers.{}.mlp_norm",
            "blk.{}.ffn_up": "layers.{}.mlp.Wi", "blk.{}.ffn_down": "layers.{}.mlp.Wo", "output_norm": "final_norm",
        },
        form="encoder", constants={"pad_token_id": None},
    ),
    "gemma-embedding": Architecture(
        "gemma3_text", RMS, {**ENDS, **ATTENTION, **MLP, **GEMMA_NORMS, **HEAD_NORMS}, KEY_VALUE_HEADS,
        biases=ATTENTION_BIAS, norm_offset=1.0, pattern=6, local_theta=10000.0, form="encoder",
        constants={"use_bidirectional_attention": True}, dense=("dense_2", "dense_3"),
    ),
}  # fmt: skip
