"""A model whose weights are moved off the grid of their blocks computes what it did, according to transformers."""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.off_grid import scale_channels

NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def test_scaled_channels_change_no_result():
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=37, hidden_size=48, intermediate_size=56, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=10,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    ids = torch.arange(9)[None] * 4
    expected = model(input_ids=ids).logits
    # The arrays share the model's memory.
    tensors = {
        f"blk.{layer}.{name}.weight": model.get_parameter(f"model.layers.{layer}.{other}.weight").numpy()
        for layer in range(2)
        for name, other in NAMES.items()
    }
    before = {name: values.copy() for name, values in tensors.items()}
    scale_channels(tensors, 2, np.random.default_rng(7))
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    for name, values in tensors.items():
        assert not np.allclose(values, before[name], rtol=1e-3), name
