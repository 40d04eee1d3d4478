"""How small each dimension of a config becomes, by the name of its field; few dimensions are equal."""

from __future__ import annotations

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, CONTEXT, EXPERTS = 128, 176, 4, 2, 32, 320, 8
SMALL: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_dim", "lru_width"), HIDDEN),
    **dict.fromkeys(("word_embed_proj_dim", "hidden_size_global"), HIDDEN),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "n_inner", "dff", "dim_ff", "d_inner"), INNER),
    **dict.fromkeys(("hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size"), INNER),
    **dict.fromkeys(("feed_forward_size",), INNER),
    **dict.fromkeys(("intermediate_size_mlp", "mlp_dim"), 208),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "swa_num_attention_heads"), HEADS),
    **dict.fromkeys(("num_decoder_attention_heads", "num_encoder_attention_heads", "heads"), HEADS),
    **dict.fromkeys(("encoder_num_attention_heads", "decoder_num_attention_heads"), HEADS),
    **dict.fromkeys(("swa_num_key_value_heads", "kv_n_heads", "num_kv_heads", "num_query_groups"), KV_HEADS),
    **dict.fromkeys(("head_dim", "swa_head_dim", "d_kv", "d_head", "dim_head", "attention_head_size"), 32),
    **dict.fromkeys(("kv_channels",), 32),
    **dict.fromkeys(("global_head_dim",), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "model_max_length"), CONTEXT),
    **dict.fromkeys(("context_length", "max_target_positions", "max_encoder_position_embeddings"), CONTEXT),
    **dict.fromkeys(("max_decoder_position_embeddings", "max_position_embedding"), CONTEXT),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token", "top_k_experts"), 2),
    **dict.fromkeys(("moe_top_k",), 2),
    **dict.fromkeys(("n_group", "num_expert_group"), 2),
    **dict.fromkeys(("topk_group", "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"), 1),
    "moe_layer_end_index": 2,
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "expert_dim"), 48),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size"), 56),
    **dict.fromkeys(("moe_shared_expert_intermediate_size",), 56),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "window_size", "attention_window_size"), 24),
    **dict.fromkeys(("swa_window_size", "local_attention_window_len"), 24), "attention_chunk_size": 256,
    "local_attention": 48, "query_pre_attn_scalar": 40, "floor_scale": 64, "keep_window_size": 400, "rotary_dim": 16,
    "original_max_position_embeddings": 64, "relative_attention_max_distance": 24, "relative_attention_num_buckets": 10,
    # Multi-head latent attention.
    "kv_lora_rank": 40, "q_lora_rank": 48, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 24,
    "index_topk": 256, "index_head_dim": 32, "index_n_heads": 2, "gated_norm_rank": 16, "router_hidden_size": 40,
    # State spaces, convolutions, linear attention.
    "mamba_n_heads": 8, "mamba_d_head": 32, "mamba_n_groups": 2, "mamba_d_state": 16, "mamba_dt_rank": 12,
    "mamba_num_heads": 8, "mamba_head_dim": 32, "ssm_state_size": 16, "n_groups": 2, "mamba_d_ssm": 256,
    "mamba_chunk_size": 16, "chunk_size": 16, "state_size": 16, "time_step_rank": 12, "n_mamba_heads": 2,
    "mamba_headdim": 32, "mamba_ngroups": 2, "adapter_rank": 12, "intermediate_size_mamba": 256, "block_size": 16,
    "linear_key_head_dim": 16, "linear_value_head_dim": 24, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_head_dim": 32, "linear_num_heads": 4, "block_multiple_of": 16,
    # Gemma 3n and 4.
    "hidden_size_per_layer_input": 20, "laurel_rank": 12, "num_kv_shared_layers": 0,
    # Pictures and sounds.
    "image_size": 32, "patch_size": 8, "num_mel_bins": 16, "projection_dim": 40, "vision_feature_layer": -1,
}  # fmt: skip
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
          "num_decoder_layers", "num_encoder_layers", "encoder_num_hidden_layers", "decoder_num_hidden_layers",
          "num_blocks", "depth")  # fmt: skip
VOCABULARIES = ("vocab_size", "vocab_size_per_layer_input", "src_vocab_size", "tgt_vocab_size", "decoder_vocab_size",
                "output_vocab_size", "unpadded_vocab_size")  # fmt: skip
