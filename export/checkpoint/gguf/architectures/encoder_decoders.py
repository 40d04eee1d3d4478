"""Encoder-decoders: T5, Flan-T5, mT5 and MADLAD, and UMT5."""

from __future__ import annotations

from triform.export.checkpoint.gguf.architectures.architecture import Architecture

_T5 = Architecture(
    "t5",
    {
        "d_model": "embedding_length", "num_layers": "block_count", "num_heads": "attention.head_count",
        "d_ff": "feed_forward_length", "d_kv": "attention.key_length",
        "layer_norm_epsilon": "attention.layer_norm_rms_epsilon",
        "relative_attention_num_buckets": "attention.relative_buckets_count",
    },
    {
        "token_embd": "shared", "output": "lm_head", "enc.output_norm": "encoder.final_layer_norm",
        "dec.output_norm": "decoder.final_layer_norm",
        "enc.blk.{}.attn_norm": "encoder.block.{}.layer.0.layer_norm",
        "enc.blk.{}.attn_q": "encoder.block.{}.layer.0.SelfAttention.q",
        "enc.blk.{}.attn_k": "encoder.block.{}.layer.0.SelfAttention.k",
        "enc.blk.{}.attn_v": "encoder.block.{}.layer.0.SelfAttention.v",
        "enc.blk.{}.attn_o": "encoder.block.{}.layer.0.SelfAttention.o",
        "enc.blk.{}.attn_rel_b": "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias",
        "enc.blk.{}.ffn_norm": "encoder.block.{}.layer.1.layer_norm",
        "enc.blk.{}.ffn_gate": "encoder.block.{}.layer.1.DenseReluDense.wi_0",
        "enc.blk.{}.ffn_up": "encoder.block.{}.layer.1.DenseReluDense.wi_1",
        "enc.blk.{}.ffn_down": "encoder.block.{}.layer.1.DenseReluDense.wo",
        "dec.blk.{}.attn_norm": "decoder.block.{}.layer.0.layer_norm",
        "dec.blk.{}.attn_q": "decoder.block.{}.layer.0.SelfAttention.q",
        "dec.blk.{}.attn_k": "decoder.block.{}.layer.0.SelfAttention.k",
        "dec.blk.{}.attn_v": "decoder.block.{}.layer.0.SelfAttention.v",
        "dec.blk.{}.attn_o": "decoder.block.{}.layer.0.SelfAttention.o",
        "dec.blk.{}.attn_rel_b": "decoder.block.{}.layer.0.SelfAttention.relative_attention_bias",
        "dec.blk.{}.cross_attn_norm": "decoder.block.{}.layer.1.layer_norm",
        "dec.blk.{}.cross_attn_q": "decoder.block.{}.layer.1.EncDecAttention.q",
        "dec.blk.{}.cross_attn_k": "decoder.block.{}.layer.1.EncDecAttention.k",
        "dec.blk.{}.cross_attn_v": "decoder.block.{}.layer.1.EncDecAttention.v",
        "dec.blk.{}.cross_attn_o": "decoder.block.{}.layer.1.EncDecAttention.o",
        # Old checkpoints have it, and no class of transformers uses it.
        "dec.blk.{}.cross_attn_rel_b": "decoder.block.{}.layer.1.EncDecAttention.relative_attention_bias",
        "dec.blk.{}.ffn_norm": "decoder.block.{}.layer.2.layer_norm",
        "dec.blk.{}.ffn_gate": "decoder.block.{}.layer.2.DenseReluDense.wi_0",
        "dec.blk.{}.ffn_up": "decoder.block.{}.layer.2.DenseReluDense.wi_1",
        "dec.blk.{}.ffn_down": "decoder.block.{}.layer.2.DenseReluDense.wo",
    },
    rotary=False, form="encoder-decoder", unread=True,
)  # fmt: skip
ENCODER_DECODERS = {"t5": _T5}
# Those whose MLPs have no gates.
T5_WITHOUT_GATES = {
    "enc.blk.{}.ffn_up": "encoder.block.{}.layer.1.DenseReluDense.wi",
    "dec.blk.{}.ffn_up": "decoder.block.{}.layer.2.DenseReluDense.wi",
}
