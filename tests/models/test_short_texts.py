"""Models whose attention changes from some length on are exported for shorter texts only."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from triform.models.decoder.graph import decoder_spec
from triform.models.errors import UnsupportedModelError

COMMON = {
    "vocab_size": 120, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6,
    "max_position_embeddings": 320, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
SELECTING = (
    "deepseek_v32",
    {**COMMON, "num_key_value_heads": 6, "intermediate_size": 80, "kv_lora_rank": 40, "q_lora_rank": 56,
     "qk_rope_head_dim": 16, "qk_nope_head_dim": 24, "v_head_dim": 24, "index_topk": 50, "index_head_dim": 32,
     "index_n_heads": 2, "first_k_dense_replace": 2, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
     "topk_group": 1, "moe_intermediate_size": 48},
)  # fmt: skip
CHUNKED = {
    **COMMON, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48, "intermediate_size_mlp": 80,
    "attention_chunk_size": 70, "floor_scale": 120, "num_local_experts": 3, "no_rope_layers": [1, 0],
    "layer_types": ["chunked_attention", "full_attention"],
}  # fmt: skip


def model_of(model_type, settings):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**settings)).eval()


@pytest.mark.parametrize(
    ("model_type", "settings", "limit", "reason"),
    [
        (*SELECTING, 50, "attend to the 50 tokens that they select"),
        ("llama4_text", CHUNKED, 70, "attend in chunks of 70 tokens"),
        ("llama4_text", {**CHUNKED, "attention_chunk_size": 300}, 119, "become sharper with their position"),
    ],
)
def test_a_model_is_prepared_up_to_its_limit_only(model_type, settings, limit, reason):
    """`decoder_spec` compares the prepared model's logits with the original's."""
    with pytest.raises(UnsupportedModelError, match=f"{reason}.* context length of {limit} "):
        decoder_spec(model_of(model_type, settings), limit + 1)
    spec, prepared = decoder_spec(model_of(model_type, settings), limit)
    prepared.close()
    assert len(spec.cache) == 2


def test_the_first_chunk_of_several_is_all_that_a_graph_reads():
    """Beyond it the original gives other logits than attention to all tokens, which is what the graph has."""
    model = model_of("llama4_text", CHUNKED)
    ids = torch.randint(3, 120, (1, 80), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        chunked = model(input_ids=ids).logits
        model.config.attention_chunk_size = 300
        whole = model(input_ids=ids).logits
    torch.testing.assert_close(chunked[:, :70], whole[:, :70])
    assert not torch.allclose(chunked[:, 70:], whole[:, 70:], atol=1e-4)
