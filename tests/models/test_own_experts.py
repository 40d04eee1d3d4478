"""Experts that do not use transformers' interface become nodes of their own, and give what transformers gives."""

from __future__ import annotations

import pytest
import torch

from tests.checkpoints.decoder_families import CONTEXT, VOCAB, build
from tests.models.test_decoder_families import exported, graph_counts, some_ids
from triform.export.verify.decoder import verify_decoder
from triform.models.traceable.experts import activation_of, compute_experts
from triform.models.traceable.own_experts import adapt_experts

COMMON = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
MODELS = {
    "longcat_flash": {
        **COMMON, "hidden_size": 96, "ffn_hidden_size": 80, "num_layers": 1, "num_attention_heads": 3,
        "num_key_value_heads": 3, "max_position_embeddings": CONTEXT, "kv_lora_rank": 40, "q_lora_rank": 56,
        "qk_rope_head_dim": 16, "head_dim": 16, "qk_nope_head_dim": 24, "v_head_dim": 24, "n_routed_experts": 4,
        "zero_expert_num": 3, "moe_topk": 2, "expert_ffn_hidden_size": 48,
    },
    "dbrx": {
        **COMMON, "d_model": 96, "n_heads": 6, "n_layers": 2, "max_seq_len": CONTEXT,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 96, "ffn_hidden_size": 80, "moe_num_experts": 5, "moe_top_k": 2},
    },
}  # fmt: skip


@pytest.mark.parametrize("model_type", MODELS)
def test_experts_match_pytorch(model_type, tmp_path):
    model = build(model_type, MODELS[model_type])
    ids = some_ids(60)
    runner, expected, graph, _ = exported(model, tmp_path, ids)
    verify_decoder(runner, expected, ids)
    assert graph_counts(graph)["MoE"] == (1 if model_type == "longcat_flash" else 2)


@pytest.mark.parametrize("model_type", MODELS)
def test_adapted_experts_give_what_they_gave(model_type):
    """With each choice of experts, those that give what they are given among them, alone and together."""
    model = build(model_type, MODELS[model_type])
    experts = next(module for module in model.modules() if type(module).__name__.endswith("Experts"))
    count = getattr(experts, "total_experts", experts.num_experts if hasattr(experts, "num_experts") else 0)
    states = torch.randn(1, count, 96, generator=torch.Generator().manual_seed(0))
    index = torch.stack([torch.arange(count), torch.arange(count).roll(-1)], 1)
    weights = torch.linspace(0.1, 0.9, 2 * count).reshape(count, 2)
    if model_type == "longcat_flash":
        states = states[0]
    with torch.no_grad():
        expected = experts(states, index, weights)
        adapt_experts(experts, compute_experts)
        assert activation_of(experts).kind == "swiglu"
        torch.testing.assert_close(experts(states, index, weights), expected)
