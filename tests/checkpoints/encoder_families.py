"""One small random-weight config a text-encoder family, every dimension different so that a swapped axis shows."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel

from tests.checkpoints.decoder_families import CONTEXT, HEADS, HIDDEN, INNER, KV_HEADS, VOCAB

LAYERS = 2

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# RoBERTa and its kin take positions from behind the padding's id.
_PADDED_BY_ONE = {**_COMMON, "pad_token_id": 1, "bos_token_id": 0}
_DEBERTA = {**_COMMON, "relative_attention": True, "max_relative_positions": -1}

# family: (model type, settings)
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", _COMMON),
    "roberta": ("roberta", _PADDED_BY_ONE),
    "distilbert": (
        "distilbert",
        {"vocab_size": VOCAB, "dim": HIDDEN, "hidden_dim": INNER, "n_layers": LAYERS, "n_heads": HEADS,
         "max_position_embeddings": CONTEXT},
    ),
    "electra": ("electra", {**_COMMON, "embedding_size": 48}),
    "albert": ("albert", {**_COMMON, "embedding_size": 48}),
    "camembert": ("camembert", _PADDED_BY_ONE),
    "xlm-roberta": ("xlm-roberta", _PADDED_BY_ONE),
    "mpnet": ("mpnet", _PADDED_BY_ONE),
    "deberta-v2": ("deberta-v2", {**_DEBERTA, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}),
    "deberta-v2, as deberta-v3": (
        "deberta-v2",
        {**_DEBERTA, "pos_att_type": "p2c|c2p", "position_buckets": 16, "share_att_key": True,
         "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0},
    ),
    "modernbert": (
        "modernbert",
        {**_COMMON, "local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2},
    ),
    "nomic_bert": ("nomic_bert", _COMMON),
    "eurobert": ("eurobert", {**_COMMON, "num_key_value_heads": KV_HEADS, "mask_token_id": 5}),
    "esm": (
        "esm",
        {**_COMMON, "position_embedding_type": "rotary", "mask_token_id": 5, "token_dropout": True,
         "emb_layer_norm_before": True},
    ),
    "esm, absolute positions": (
        "esm",
        {**_PADDED_BY_ONE, "position_embedding_type": "absolute", "mask_token_id": 5, "token_dropout": False},
    ),
    "xlm": (
        "xlm",
        {"vocab_size": VOCAB, "emb_dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "n_langs": 1,
         "max_position_embeddings": CONTEXT, "pad_token_id": 0, "pad_index": 0},
    ),
    "layoutlm": ("layoutlm", _COMMON),
    "mistral, sliding window": (
        "mistral",
        {**_COMMON, "num_key_value_heads": KV_HEADS, "head_dim": 16, "sliding_window": 8},
    ),
    "gemma3_text, in both directions": (
        "gemma3_text",
        {**_COMMON, "num_key_value_heads": KV_HEADS, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 40,
         "layer_types": ["sliding_attention", "full_attention"], "use_bidirectional_attention": True},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        {**_COMMON, "num_key_value_heads": KV_HEADS, "head_dim": 16, "num_experts": 5, "num_experts_per_tok": 2,
         "moe_intermediate_size": 48, "decoder_sparse_step": 1},
    ),
    "qwen3_5_text": (
        "qwen3_5_text",
        {**_COMMON, "num_key_value_heads": KV_HEADS, "head_dim": 16, "linear_num_key_heads": 2,
         "linear_num_value_heads": 4, "linear_key_head_dim": 12, "linear_value_head_dim": 20,
         "layer_types": ["linear_attention", "full_attention"]},
    ),
    "t5": (
        "t5",
        {"vocab_size": VOCAB, "d_model": HIDDEN, "d_kv": 16, "d_ff": INNER, "num_layers": LAYERS, "num_heads": HEADS,
         "feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 10,
         "relative_attention_max_distance": 24},
    ),
}  # fmt: skip
# Padding changes what these say of a text, so that rows of one batch have one length.
EQUAL_LENGTHS: dict[str, tuple[str, dict[str, Any]]] = {
    # Characters, hashed, so that there is no vocabulary; as many positions as buckets.
    "canine": (
        "canine",
        {**{key: value for key, value in _COMMON.items() if key != "vocab_size"}, "max_position_embeddings": 600,
         "num_hidden_layers": 1, "num_hash_buckets": 641, "num_hash_functions": 8, "local_transformer_stride": 16,
         "downsampling_rate": 4, "upsampling_kernel_size": 4, "bos_token_id": 0xE000, "eos_token_id": 0xE001},
    ),
    "convbert": (
        "convbert",
        {**_COMMON, "num_hidden_layers": 1, "embedding_size": 48, "head_ratio": 2, "conv_kernel_size": 5},
    ),
    "fnet": ("fnet", _COMMON),
    "funnel": (
        "funnel",
        {"vocab_size": VOCAB, "d_model": 48, "n_head": 3, "d_head": 20, "d_inner": 56, "block_sizes": [1, 2, 1],
         "num_decoder_layers": 1, "pad_token_id": 0},
    ),
}  # fmt: skip
# Their attention is their own code, with relative positions in the scores.
OWN_ATTENTION = ("xlm", "mpnet", "deberta-v2", "deberta-v2, as deberta-v3")
ROTARY = (
    "modernbert", "nomic_bert", "eurobert", "esm", "mistral, sliding window", "gemma3_text, in both directions",
    "qwen3_moe", "qwen3_5_text",
)  # fmt: skip


def build_encoder(family: str, architecture: str | None = None, **changes: object) -> PreTrainedModel:
    """A random-weight model whose norms and biases are random too, so that none of them can be left out unnoticed.

    Args:
        family: a key of `ENCODERS` or `EQUAL_LENGTHS`.
        architecture: name of a class of transformers; the family's bare encoder when None.
        changes: go into the config.
    """
    model_type, settings = {**ENCODERS, **EQUAL_LENGTHS}[family]
    return random_model(model_type, {**settings, **changes}, architecture)


def random_model(model_type: str, settings: dict[str, Any], architecture: str | None = None) -> PreTrainedModel:
    """As `build_encoder`, of any model type."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**settings)
    if architecture is not None:
        model = getattr(transformers, architecture)(config)
    else:
        encoder = transformers.AutoModelForTextEncoding if model_type == "t5" else transformers.AutoModel
        model = encoder.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif "embed" not in name:
                parameter.mul_(3)
    return model.float().eval()
