"""Layers behind a pooling, as sentence-transformers computes them, in PyTorch's own operations."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from triform.export.checkpoint.sentence.layers import check_keys, read_layer
from triform.runtime.errors import ExportError

VECTORS = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
DENSE = {"in_features": 4, "out_features": 2}


def layer(folder, kind, config, **tensors):
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    made = {name: torch.randn(*size, generator=torch.Generator().manual_seed(1)) for name, size in tensors.items()}
    if made:
        save_file(made, folder / "model.safetensors")
    return read_layer(kind, folder), made


def names(**sizes):
    return {name.replace("__", "."): size for name, size in sizes.items()}


WEIGHTS = names(linear__weight=(2, 4), linear__bias=(2,))


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ({}, torch.tanh),
        ({"activation_function": None}, lambda x: x),
        ({"activation_function": "torch.nn.modules.linear.Identity"}, lambda x: x),
        ({"activation_function": "torch.nn.modules.activation.ReLU"}, torch.relu),
        ({"activation_function": "torch.nn.modules.activation.GELU"}, torch.nn.functional.gelu),
    ],
)
def test_a_dense_layer(tmp_path, activation, function):
    found, made = layer(tmp_path, "Dense", {**DENSE, "bias": True, **activation}, **WEIGHTS)
    expected = function(VECTORS @ made["linear.weight"].T + made["linear.bias"])
    torch.testing.assert_close(found(VECTORS), expected)
    assert not found.training


def test_a_dense_layer_without_a_bias(tmp_path):
    config = {**DENSE, "bias": False, "activation_function": None, "module_input_name": "sentence_embedding"}
    found, made = layer(tmp_path, "Dense", config, **names(linear__weight=(2, 4)))
    torch.testing.assert_close(found(VECTORS), VECTORS @ made["linear.weight"].T)
    # By default there is one.
    with pytest.raises(ExportError, match=r"do not fit its config\.json: .*linear\.bias"):
        layer(tmp_path, "Dense", DENSE)


def test_a_dense_layer_whose_input_is_added(tmp_path):
    config = {**DENSE, "use_residual": True, "activation_function": None}
    sizes = names(linear__weight=(2, 4), linear__bias=(2,), residual__weight=(2, 4))
    found, made = layer(tmp_path, "Dense", config, **sizes)
    expected = VECTORS @ made["linear.weight"].T + made["linear.bias"] + VECTORS @ made["residual.weight"].T
    torch.testing.assert_close(found(VECTORS), expected)
    # Of the same width it is added as it is.
    sizes = names(linear__weight=(4, 4), linear__bias=(4,))
    found, made = layer(tmp_path, "Dense", {**config, "out_features": 4}, **sizes)
    torch.testing.assert_close(found(VECTORS), VECTORS @ made["linear.weight"].T + made["linear.bias"] + VECTORS)


def test_a_norm(tmp_path):
    found, made = layer(tmp_path, "LayerNorm", {"dimension": 4}, **names(norm__weight=(4,), norm__bias=(4,)))
    expected = torch.nn.functional.layer_norm(VECTORS, (4,), made["norm.weight"], made["norm.bias"], 1e-5)
    torch.testing.assert_close(found(VECTORS), expected)


@pytest.mark.parametrize("kind", ["Dropout", "Normalize"])
def test_what_computes_nothing(tmp_path, kind):
    """Its file may be missing."""
    assert layer(tmp_path, kind, None)[0] is None
    assert layer(tmp_path, kind, {"dropout": 0.1} if kind == "Dropout" else {})[0] is None
    with pytest.raises(ExportError, match=r"config\.json sets scale, which is not supported$"):
        layer(tmp_path, kind, {"scale": 2})


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("Dense", {"in_features": 4}, "has no out_features$"),
        ("Dense", {"out_features": 4}, "has no in_features$"),
        ("LayerNorm", {}, "has no dimension$"),
        ("Dense", {**DENSE, "gate": True}, "sets gate, which is not supported$"),
        ("Dense", {**DENSE, "module_input_name": "token_embeddings"}, "works on token_embeddings, which is not supp"),
        ("Dense", {**DENSE, "module_output_name": "other"}, "works on other, which is not supported$"),
        ("Dense", {**DENSE, "activation_function": "os.system"}, "has the activation os.system, which is not supp"),
        ("Dense", {**DENSE, "activation_function": "torch.nn.modules.activation.F"}, "the activation torch.nn.modules"),
        ("Dense", {**DENSE, "activation_function": "torch.nn.modules.activation.MultiheadAttention"}, "the activation"),
        ("Dense", {**DENSE, "in_features": 5}, "do not fit its config"),
        ("Dense", {**DENSE, "use_residual": True}, "do not fit its config"),
    ],
)
def test_what_is_refused(tmp_path, kind, config, said):
    with pytest.raises(ExportError, match=said):
        layer(tmp_path, kind, config, **WEIGHTS)


def test_settings_that_say_nothing(tmp_path):
    check_keys(tmp_path, {"a": 1, "b": None, "c": False, "d": "", "e": [], "f": {}}, ["a"])
    for value in (True, 1, "x", [0], {"x": None}):
        with pytest.raises(ExportError, match="sets b, which is not supported"):
            check_keys(tmp_path, {"a": 1, "b": value}, ["a"])
