"""What the config of one type needs beyond the rules, mostly so that the tiny model is of the published kind.

A name with a plus sign is a variant of the type before the sign.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.coverage.dimensions import HIDDEN, INNER, KV_HEADS

_GROUPED = {"num_key_value_heads": KV_HEADS}
_SEAMLESS = {
    "speech_encoder_layers": 2, "speech_encoder_attention_heads": 4, "speech_encoder_intermediate_size": 80,
    "feature_projection_input_dim": 32, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    "conv_depthwise_kernel_size": 5, "adaptor_kernel_size": 4, "adaptor_stride": 4, "encoder_layers": 2,
    "decoder_layers": 2, "max_source_positions": 200,
}  # fmt: skip
TYPE_SETTINGS: dict[str, dict[str, Any]] = {
    "qwen3": _GROUPED, "llama": _GROUPED, "phi3": _GROUPED, "qwen2": _GROUPED, "exaone4": _GROUPED, "glm": _GROUPED,
    "granite": _GROUPED, "granitemoe": _GROUPED, "granitemoeshared": _GROUPED, "olmo3": _GROUPED, "olmo2": _GROUPED,
    "helium": _GROUPED, "exaone": _GROUPED, "stablelm": _GROUPED, "cohere": _GROUPED, "cohere2": _GROUPED,
    "doge": {**_GROUPED, "num_experts": 16}, "ministral": {**_GROUPED, "head_dim": 32}, "arcee": _GROUPED,
    "seed_oss": _GROUPED, "apertus": _GROUPED, "nemotron": _GROUPED, "diffllama": _GROUPED,
    "bamba": {"attn_layer_indices": [1], "num_hidden_layers": 3},
    "granitemoehybrid": {**_GROUPED, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
                         "num_hidden_layers": 3},
    "jamba": {"num_hidden_layers": 3, "attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 2},
    "lfm2": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "full_attn_idxs": None},
    "lfm2_moe": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "mamba2": {"num_heads": 8, "head_dim": 32}, "mamba": {}, "falcon_mamba": {},
    "zamba": {"attention_head_dim": 64, "attention_hidden_size": 256, "num_hidden_layers": 4,
              "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"n_mamba_heads": 8, "attention_head_dim": 64, "attention_hidden_size": 256, "num_key_value_heads": 4,
               "num_query_groups": 4, "kv_channels": 32},
    "deepseek_v2": {"num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "rwkv": {"attention_hidden_size": HIDDEN},
    "gemma3n_text": {"intermediate_size": INNER, "num_hidden_layers": 5, "num_kv_shared_layers": 0,
                     "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0, 0.0]},
    "gemma3_text+embedding": {"use_bidirectional_attention": True}, "mistral+whole": {"sliding_window": None},
    "gemma3n_text+shared": {"num_kv_shared_layers": 2, "num_hidden_layers": 7, "layer_types": ["sliding_attention",
                            "sliding_attention", "full_attention"] * 2 + ["full_attention"],
                            "activation_sparsity_pattern": [0.95, *[0.0] * 6]},
    "gemma3n_text+shared_dense": {"num_kv_shared_layers": 2, "num_hidden_layers": 7,
                                  "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2
                                  + ["full_attention"], "activation_sparsity_pattern": [0.0] * 7},
    "gemma3n_text+dense": {"activation_sparsity_pattern": [0.0] * 5},
    "gemma4_text": {"global_head_dim": 64, "num_hidden_layers": 3, "head_dim": 32, **_GROUPED,
                    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    "gemma4_text+same_heads": {"global_head_dim": 32},
    "gemma4_text+shared": {"num_kv_shared_layers": 2, "num_hidden_layers": 6, "use_double_wide_mlp": True,
                           "layer_types": ["sliding_attention", "full_attention"] * 3},
    "gemma4_text+moe": {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 48,
                        "hidden_size_per_layer_input": 0},
    "gemma4_text+k_is_v": {"attention_k_eq_v": True, "num_global_key_value_heads": 1,
                           "hidden_size_per_layer_input": 0},
    "gemma4_unified_text": {"global_head_dim": 64, "num_hidden_layers": 3, "head_dim": 32, **_GROUPED,
                            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
    "granitemoehybrid+attention": {"layer_types": ["full_attention"] * 2, "num_hidden_layers": 2, **_GROUPED,
                                   "num_local_experts": 0, "position_embedding_type": "rope"},
    "granitemoehybrid+dense": {"num_local_experts": 0},
    "gpt_neox+rotary16": {"rotary_pct": 0.5, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
                                                                  "partial_rotary_factor": 0.5}},
    "hunyuan_v1_dense": {"head_dim": 32, **_GROUPED}, "hunyuan_v1_moe": {"head_dim": 32, **_GROUPED,
                         "moe_topk": 2, "num_experts": 8},
    "hunyuan_v1_dense+alpha": {"rope_parameters": {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0,
                                                   "rope_theta": 10000.0}},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1},
    "bert-generation": {"is_decoder": True},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    # Its scales are divided by the initializer's range, so that small changes of them would make the model chaotic.
    "dory": {"num_hidden_layers": 8, "layer_types": ["sliding_attention", "mlp", "full_attention", "mlp"] * 2,
             "initializer_range": 1.0, "n_input_layers": 2, "n_recurrent_layers": 4, "n_output_layers": 2,
             "n_recurrent_loops": 2},
    "zaya": {"num_experts_per_tok": 1},
    "mistral4": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 32.0,
                                     "beta_slow": 1.0, "original_max_position_embeddings": 32, "mscale": 1.0,
                                     "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
                                     "partial_rotary_factor": 1 / 3}},
    "mpnet": {"relative_attention_num_buckets": 32, "pad_token_id": 1, "bos_token_id": 0},
    "layoutlmv3": {"coordinate_size": 24, "shape_size": 16, "input_size": 32}, "lilt": {"hidden_size": 96},
    "esm": {"position_embedding_type": "rotary", "mask_token_id": 4, "pad_token_id": 0},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "longcat_flash": {"head_dim": 16, "qk_rope_head_dim": 16, "zero_expert_num": 2, "moe_topk": 2},
    "deepseek_v4": {"head_dim": 64, "qk_rope_head_dim": 16},
    "blt": {"encoder_hash_byte_group_vocab": 300},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "intermediate_size": INNER},
    "hrm_text": {"num_layers_per_stack": 1, "num_hidden_layers": 8},
    "persimmon": {}, "gpt_bigcode": {"multi_query": True},
    "falcon": {"multi_query": True, "ffn_hidden_size": 176},
    "falcon+alibi": {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    "falcon+new_decoder": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon+one_norm": {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    "xlnet": {"attn_type": "uni"},
    "reformer": {"axial_pos_embds": False, "is_decoder": True, "attn_layers": ["local", "local"], "hidden_size": 128},
    "mixtral": {"sliding_window": None}, "phimoe": {},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
             "ffn_config": {"hidden_size": HIDDEN, "ffn_hidden_size": INNER, "moe_num_experts": 4, "moe_top_k": 2}},
    "qwen4_exp_text": {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 32, "indexer_budget": 256,
                       "indexer_compress_ratio": 4, "hc_lowrank": 20},
    "dots3_note_text": {"shared_experts_intermediate_size": 56},
    "cpmant": {"prompt_length": 4}, "ctrl": {}, "openai-gpt": {}, "mpt": {},
    "canine": {"num_hidden_layers": 1, "num_hash_buckets": 641, "max_position_embeddings": 600},
    "convbert": {"embedding_size": 48}, "electra": {"embedding_size": 48}, "albert": {"embedding_size": 48},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    "funnel": {"block_sizes": [1, 2, 1], "d_model": HIDDEN, "n_head": 4, "d_head": 32},
    "mobilebert": {"intra_bottleneck_size": 64, "embedding_size": 64, "true_hidden_size": 64},
    "longformer": {"attention_window": 16}, "nystromformer": {"segment_means_seq_len": 64, "num_landmarks": 64},
    "perceiver": {"num_latents": 12, "d_latents": 64, "d_model": 64, "num_self_attends_per_block": 2},
    "squeezebert": {"embedding_size": HIDDEN}, "rembert": {"input_embedding_size": 48, "output_embedding_size": 56},
    "big_bird": {"attention_type": "original_full"}, "bigbird_pegasus": {"attention_type": "original_full"},
    "roc_bert": {"pronunciation_vocab_size": 50, "shape_vocab_size": 50, "pronunciation_embed_dim": 24,
                 "shape_embed_dim": 20},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "luke": {"entity_vocab_size": 20, "entity_emb_size": 24},
    "prophetnet": {"ngram": 2, "num_buckets": 8, "relative_max_distance": 24},
    # Fewer tokens an expert than those of a text that choose it.
    "switch_transformers": {"num_experts": 4, "expert_capacity": 5, "num_layers": 2, "num_sparse_encoder_layers": 1,
                            "num_sparse_decoder_layers": 1, "num_decoder_layers": 2},
    "seamless_m4t": _SEAMLESS,
    "seamless_m4t_v2": {**_SEAMLESS, "speech_encoder_chunk_size": 40, "left_max_position_embeddings": 10,
                        "right_max_position_embeddings": 3},
    "led": {"attention_window": 16, "max_decoder_position_embeddings": 1024},
    "pegasus_x": {"num_global_tokens": 4, "block_size": 16},
    "nllb-moe": {"num_experts": 4, "expert_capacity": 64, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
}  # fmt: skip


def settings_of(name: str) -> dict[str, Any]:
    """The settings of a type or, with those of its type, of a variant."""
    return {**TYPE_SETTINGS.get(name.split("+")[0], {}), **TYPE_SETTINGS.get(name, {})}


def variants_of(model_types: Iterable[str]) -> list[str]:
    """The names of the variants of these types."""
    known = set(model_types)
    return [name for name in TYPE_SETTINGS if "+" in name and name.split("+")[0] in known]
