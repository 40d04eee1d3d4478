"""What files of newer families say in several ways, and what is refused in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.checkpoints.gguf_files import make_model, write_gguf
from triform.export.checkpoint.gguf import loading
from triform.runtime.errors import ExportError

IDS = torch.arange(3, 23)[None]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def read(path):
    return loading.load_gguf_model(path, loading.read_gguf_config(path), AutoModelForCausalLM)


def refusal(path):
    with pytest.raises(ExportError) as caught:
        read(path)
    return str(caught.value)


def same(found, model):
    assert not found.missing
    torch.testing.assert_close(logits(found.model), logits(model), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def qwen():
    return make_model("qwen35")


def test_layers_that_guess_a_second_token_are_left_out(qwen, tmp_path):
    keys = {
        "qwen35.block_count": 4, "qwen35.nextn_predict_layers": 1,
        "qwen35.attention.recurrent_layers": [True, False, True, False],
    }  # fmt: skip
    further = {"blk.3.nextn.eh_proj.weight": np.ones((48, 96)), "blk.3.attn_q.weight": np.ones((192, 48))}
    same(read(write_gguf(tmp_path / "a.gguf", "qwen35", qwen, keys=keys, tensors=further)), qwen)
    # Without that tensor the layer may be one of the model's own.
    del further["blk.3.nextn.eh_proj.weight"]
    assert refusal(write_gguf(tmp_path / "b.gguf", "qwen35", qwen, keys=keys, tensors=further)) == (
        "b.gguf has qwen35.nextn_predict_layers = 1, but lacks blk.3.nextn.eh_proj.weight"
    )


def test_a_file_that_has_only_the_interval_of_layers_with_attention(tmp_path):
    model = make_model("qwen35", layer_types=["linear_attention", "linear_attention", "full_attention"])
    keys = {"qwen35.attention.recurrent_layers": None, "qwen35.full_attention_interval": 3}
    same(read(write_gguf(tmp_path / "a.gguf", "qwen35", model, keys=keys)), model)


def test_heads_that_do_not_divide_each_other_are_refused(qwen, tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "qwen35", qwen, keys={"qwen35.ssm.group_count": 4})
    assert refusal(path) == "a.gguf has qwen35.ssm.group_count = 4, which does not divide 6"


def test_a_matrix_of_one_row_that_was_quantized(tmp_path):
    model = make_model("qwen35moe")
    gates = {
        f"blk.{index}.ffn_gate_inp_shexp.weight": layer.mlp.shared_expert_gate.weight.detach().numpy()[0]
        for index, layer in enumerate(model.model.layers)
    }
    same(read(write_gguf(tmp_path / "a.gguf", "qwen35moe", model, tensors=gates)), model)


def test_keys_and_values_of_latent_attention_as_they_are(tmp_path):
    """Older files of DeepSeek have one matrix, and every head has keys."""
    model = make_model("deepseek3")
    layers = range(model.config.num_hidden_layers)
    keys = {
        "attention.head_count_kv": 6, "attention.key_length": 14, "attention.value_length": 14,
        "attention.key_length_mla": None, "attention.value_length_mla": None,
    }  # fmt: skip
    path = write_gguf(
        tmp_path / "a.gguf", "deepseek3", model, keys={f"deepseek2.{key}": value for key, value in keys.items()},
        tensors={
            f"blk.{layer}.attn_kv_b.weight": model.model.layers[layer].self_attn.kv_b_proj.weight.detach().numpy()
            for layer in layers
        },
        left_out=[f"blk.{layer}.attn_{part}_b.weight" for layer in layers for part in "kv"],
    )  # fmt: skip
    same(read(path), model)


def test_many_experts_without_groups_are_refused(tmp_path):
    model = make_model("deepseek2", n_routed_experts=66, n_group=1, topk_group=1, topk_method="greedy")
    keys = {"deepseek2.expert_group_count": None, "deepseek2.expert_group_used_count": None}
    path = write_gguf(tmp_path / "a.gguf", "deepseek2", model, keys=keys)
    assert "does not say in which groups its 66 experts are chosen" in refusal(path)


def test_keys_of_layers_that_use_those_of_others_are_left_out(tmp_path):
    model = make_model("gemma4")
    tensors = {"blk.4.attn_k.weight": np.ones((16, 48)), "blk.5.attn_v.weight": np.ones((32, 48))}
    same(read(write_gguf(tmp_path / "a.gguf", "gemma4", model, tensors=tensors)), model)


@pytest.mark.parametrize(
    ("name", "keys", "tensors", "message"),
    [
        ("gemma4", {}, {"rope_freqs.weight": np.array([1, 1, 2, *[1e30] * 5])}, "has numbers in rope_freqs.weight"),
        ("gemma4", {"gemma4.feed_forward_length": [80] * 5 + [160]}, {}, "has a gemma4.feed_forward_length that is"),
        ("gemma3n", {"gemma3n.activation_sparsity_scale": None}, {}, "has no gemma3n.activation_sparsity_scale"),
        ("apertus", {"xielu.beta": [0.5, 0.5]}, {}, "has 2 numbers of xielu.beta, not one for each layer"),
        ("apertus", {"xielu.eps": None}, {}, "has 0 numbers of xielu.eps, not one for each layer"),
        ("granitehybrid", {"granitehybrid.residual_scale": None}, {}, "has no granitehybrid.residual_scale"),
        ("minicpm3", {"minicpm3.attention.key_length": 4}, {}, "has keys of 4 dimensions, 4 of which are rotated"),
        ("qwen35", {"qwen35.ssm.inner_size": "text"}, {}, "the metadata of a.gguf is no valid config of qwen3_5_text"),
        ("qwen35", {"qwen35.ssm.state_size": 11}, {}, "but by the file's keys it would be [164, 1, 3]"),
        ("qwen35", {"qwen35.attention.head_count_kv": 0}, {}, "no model of qwen3_5_text has the sizes that a.gguf"),
        ("deepseek3", {"deepseek2.expert_gating_func": [2, 2]}, {}, "expert_gating_func = [2, 2], which is not"),
        ("deepseek3", {"deepseek2.expert_group_used_count": None}, {}, "has no deepseek2.expert_group_used_count"),
        ("bloom", {"bloom.feed_forward_length": 80}, {}, "has bloom.feed_forward_length = 80, which is not supported"),
    ],
)  # fmt: skip
def test_what_a_family_does_not_have_is_refused(tmp_path, name, keys, tensors, message):
    path = write_gguf(tmp_path / "a.gguf", name, make_model(name), keys=keys, tensors=tensors)
    assert message in refusal(path)
