"""Which parameter a tensor of a GGUF file is, and what of a model a file may lack or have besides; on stand-ins."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType

from triform.export.checkpoint.gguf import loading
from triform.export.checkpoint.gguf.container import Tensor

PARAMETERS = {
    "model.a.weight": torch.zeros(2, 3), "model.b": torch.zeros(2), "c.weight": torch.zeros(2),
    "model.d_bias": torch.zeros(2),
    "head.weight": torch.zeros(4, 3), "a.b.bias": torch.zeros(4), "a.b.weight": torch.zeros(4, 3),
    "e.bias": torch.zeros(2),
    "e.weight": torch.zeros(2),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("model.a.weight", "model.a.weight"), ("a.weight", "model.a.weight"), ("model.b.weight", "model.b"),
        ("b.weight", "model.b"), ("model.c.weight", "c.weight"), ("d.bias", "model.d_bias"), ("b.bias", "model.b"),
        ("head.weight", "head.weight"), ("nope.weight", "nope.weight"), ("b.scale", "b.scale"),
    ],
)  # fmt: skip
def test_names_with_and_without_the_prefix(name, found):
    assert loading._name_in(PARAMETERS, "model.", name) == found


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b.bias", True), ("a.b.weight", False), ("e.bias", False), ("nope.bias", False), ("head.weight", False)],
)
def test_biases_of_matrices(name, expected):
    """Not those of norms, whose weights are vectors."""
    assert loading._is_bias_of_matrix(name, PARAMETERS) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_attention_heads": 4, "hidden_size": 64}, {"q": 64, "k": 64, "v": 64, "head": 16}),
        ({"num_attention_heads": 4, "hidden_size": 64, "head_dim": 32}, {"q": 128, "k": 128, "v": 128, "head": 32}),
        ({"num_attention_heads": 4, "hidden_size": 64, "num_key_value_heads": 2},
         {"q": 64, "k": 32, "v": 32, "head": 16}),
        ({"num_attention_heads": 4, "hidden_size": 64, "num_kv_heads": 1}, {"q": 64, "k": 16, "v": 16, "head": 16}),
        ({"hidden_size": 64}, {}), ({"num_attention_heads": 0, "hidden_size": 64}, {}),
        ({"num_attention_heads": 4, "hidden_size": 64, "is_heterogeneous": True}, {}),
        (
            {"num_attention_heads": 4, "hidden_size": 64, "linear_num_key_heads": 2, "linear_num_value_heads": 3,
             "linear_key_head_dim": 5, "linear_value_head_dim": 7},
            {"q": 64, "k": 64, "v": 64, "head": 16, "key heads": 2, "value heads": 3, "key": 5, "value": 7},
        ),
    ],
)  # fmt: skip
def test_rows_of_queries_keys_and_values(config, expected):
    assert loading._heads(SimpleNamespace(**config)) == expected


@pytest.mark.parametrize(
    ("patterns", "unread", "generates", "expected"),
    [
        (["^x"], True, True, ("^x",)), (["^x"], False, True, ()), (None, True, True, ()),
        (["^x"], True, False, ("^x", r"^lm_head\.")), (["^x"], False, False, (r"^lm_head\.",)),
    ],
)  # fmt: skip
def test_what_a_model_does_not_need(patterns, unread, generates, expected):
    base = SimpleNamespace(_keys_to_ignore_on_load_unexpected=patterns)
    model = SimpleNamespace(base_model=base, can_generate=lambda: generates)
    assert loading._unused(model, SimpleNamespace(unread=unread)) == expected


def test_parameters_without_a_tensor():
    """Not tied ones, and not counters."""
    own = {"b": torch.zeros(1), "a": torch.zeros(1), "tied": torch.zeros(1), "count": torch.zeros(1, dtype=torch.int64)}
    model = SimpleNamespace(state_dict=lambda: own, all_tied_weights_keys={"tied": "a"})
    assert loading._absent(model, {}) == ["a", "b"]
    assert loading._absent(model, {"a": torch.zeros(1)}) == ["b"]
    assert loading._absent(SimpleNamespace(state_dict=lambda: own), {}) == ["a", "b", "tied"]


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_behind_the_pooling(bias):
    arrays = {"dense.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    if bias:
        arrays["dense.bias"] = np.array([10, 20], np.float32)
    tensors = {key: Tensor(key, GGMLQuantizationType.F32, array.shape, array) for key, array in arrays.items()}
    linear = loading._linear(SimpleNamespace(tensors=tensors), "dense")
    assert (linear.bias is not None) == bias and not linear.training
    expected = [[3.0, 12.0]] if not bias else [[13.0, 32.0]]
    assert linear(torch.ones(1, 3)).tolist() == expected


@pytest.mark.parametrize(("formats", "expected"), [(["F32", "F16"], False), (["F32", "Q4_0"], True), ([], False)])
def test_files_with_blocks(monkeypatch, formats, expected):
    tensors = {name: SimpleNamespace(format=GGMLQuantizationType[name]) for name in formats}
    monkeypatch.setattr(loading, "opened", lambda path: SimpleNamespace(tensors=tensors))
    assert loading.is_quantized(None) == expected
