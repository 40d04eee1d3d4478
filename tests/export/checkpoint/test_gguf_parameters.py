"""The numbers of parameters: two tensors as one, dimensions of their own, norms, rates of decay, refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from transformers.pytorch_utils import Conv1D

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.container import Tensor
from triform.export.checkpoint.gguf.parameters import Layout, layer_numbers, layouts_of, numbers_of
from triform.export.checkpoint.gguf.placement import Placement
from triform.runtime.errors import ExportError


def floats(name, values):
    data = np.array(values, np.float32)
    return Tensor(name, GGMLQuantizationType.F32, data.shape, data)


def numbers(placement, shape, name="x.weight", layout=Layout(), norm_offset=0.0):  # noqa: B008, it is frozen
    if isinstance(placement, Tensor):
        placement = Placement(placement)
    return numbers_of(placement, name, {name: torch.zeros(shape)}, layout, norm_offset).tolist()


MATRIX = [[1, 2, 3], [4, 5, 6]]


def test_as_they_are_turned_and_in_other_orders():
    tensor = floats("a.weight", MATRIX)
    assert numbers(tensor, (2, 3)) == MATRIX
    assert numbers(tensor, (3, 2), layout=Layout(turned=True)) == [[1, 4], [2, 5], [3, 6]]
    chosen = Placement(tensor, rows=np.array([1, 0]), columns=np.array([2, 0]))
    assert numbers(chosen, (2, 2)) == [[6, 4], [3, 1]]


def test_a_second_tensor_follows_or_alternates():
    first, second = floats("a.weight", MATRIX), floats("b.weight", [[7, 8, 9], [10, 11, 12]])
    both = Placement(first, second=second)
    assert numbers(both, (4, 3)) == [*MATRIX, [7, 8, 9], [10, 11, 12]]
    alternating = [[1, 2, 3], [7, 8, 9], [4, 5, 6], [10, 11, 12]]
    assert numbers(both, (4, 3), layout=Layout(interleaved=True)) == alternating
    assert numbers(Placement(first, np.array([3, 0]), second), (2, 3)) == [[10, 11, 12], [1, 2, 3]]


def test_experts_come_first():
    """Two experts of one row each."""
    gate, up = floats("blk.0.ffn_gate_exps.weight", [[[1, 2]], [[3, 4]]]), floats("up", [[[5, 6]], [[7, 8]]])
    both = Placement(gate, second=up)
    assert numbers(both, (2, 2, 2)) == [[[1, 2], [5, 6]], [[3, 4], [7, 8]]]
    turned = numbers(both, (2, 2, 2), layout=Layout(turned=True, interleaved=True))
    assert turned == [[[1, 5], [2, 6]], [[3, 7], [4, 8]]]
    gate, up = (floats(f"blk.0.ffn_{one}_exps.weight", [[[n], [n + 1]]]) for one, n in (("gate", 1), ("up", 3)))
    both = Placement(gate, second=up)
    assert numbers(both, (1, 4, 1), layout=Layout(interleaved=True)) == [[[1], [3], [2], [4]]]


def test_keys_of_latent_attention_are_turned_in_each_head():
    """Two heads of two numbers of three columns; values have one row each."""
    keys = floats("blk.0.attn_k_b.weight", np.arange(12).reshape(2, 3, 2))
    values = floats("blk.0.attn_v_b.weight", [[[20, 21, 22]], [[23, 24, 25]]])
    assert numbers(Placement(keys, second=values), (6, 3)) == [
        [0, 2, 4], [1, 3, 5], [20, 21, 22], [6, 8, 10], [7, 9, 11], [23, 24, 25],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        ("a.norm.weight", "blk.0.attn_norm.weight", [0, 1]), ("norm.weight", "output_norm.weight", [0, 1]),
        ("a.norm.bias", "blk.0.attn_norm.bias", [1, 2]), ("a.weight", "blk.0.attn_norm.weight", [1, 2]),
        ("a.norm.weight", "blk.0.ssm_norm.weight", [1, 2]),
    ],
)  # fmt: skip
def test_what_a_converter_adds_to_norms_is_taken_back(name, tensor, expected):
    assert numbers(floats(tensor, [1, 2]), (2,), name, norm_offset=1.0) == expected
    assert numbers(floats(tensor, [1, 2]), (2,), name) == [1, 2]


def test_rates_of_decay_are_stored_below_zero():
    found = numbers(floats("blk.0.ssm_a", [-1.0, -float(np.e)]), (2,), "l.0.A_log")
    np.testing.assert_allclose(found, [0, 1], atol=1e-6)
    for wrong in (0.0, 0.5, float("nan")):
        with pytest.raises(ExportError, match=r"^blk\.0\.ssm_a has rates of decay that are not below 0$"):
            numbers(floats("blk.0.ssm_a", [-1.0, wrong]), (2,), "l.0.A_log")


@pytest.mark.parametrize(
    ("name", "values", "shape", "expected"),
    [
        # A convolution of single channels, a matrix of one row, a vector in rows.
        ("a", MATRIX, (2, 1, 3), [[[1, 2, 3]], [[4, 5, 6]]]), ("a", [1, 2], (1, 2), [[1, 2]]),
        ("a", MATRIX, (6,), [1, 2, 3, 4, 5, 6]), ("a", [[1], [2]], (2,), [1, 2]),
        # Experts apart that are rows of one matrix; those of the last product have their columns in rows.
        ("blk.0.ffn_up_exps.weight", [[[1, 2]], [[3, 4]]], (2, 2), [[1, 2], [3, 4]]),
        ("blk.0.ffn_down_exps.weight", [[[1, 2]], [[3, 4]]], (4, 1), [[1], [2], [3], [4]]),
    ],
)  # fmt: skip
def test_dimensions_of_a_parameter(name, values, shape, expected):
    assert numbers(floats(name, values), shape) == expected


def test_what_has_no_place_or_another_shape():
    with pytest.raises(ExportError, match=r"^a\.weight has no place in the model \(x\.weight\)$"):
        numbers_of(Placement(floats("a.weight", [1])), "x.weight", {}, Layout(), 0.0)
    for values, shape in ((MATRIX, (3, 2)), ([1, 2], (3,)), ([1, 2], (2, 1)), (MATRIX, (5,)), ([1, 2], (1, 3))):
        with pytest.raises(ExportError) as caught:
            numbers(floats("a.weight", values), shape)
        said = f"a.weight is {list(np.shape(values))}, but by the file's keys it would be {list(shape)}"
        assert str(caught.value) == said


def layer_file(**values):
    return SimpleNamespace(path=Path("folder/m.gguf"), values=values)


def scalars(values, parameters):
    architecture = Architecture("m", {}, {}, layer_values={"scale": "l.{}.s"})
    found = layer_numbers(layer_file(scale=values), architecture, {name: torch.zeros(2) for name in parameters})
    return {name: tensor.tolist() for name, tensor in found.items()}


def test_numbers_for_each_layer():
    assert scalars([1.5, 2.5], ["l.0.s", "l.1.s", "other"]) == {"l.0.s": [1.5, 1.5], "l.1.s": [2.5, 2.5]}
    assert scalars(np.array([3.0]), ["l.0.s"]) == {"l.0.s": [3.0, 3.0]}
    for values, parameters in (([1.0], ["l.0.s", "l.1.s"]), ([1.0, 2.0], ["l.0.s"]), ([], ["l.0.s"]), ([], [])):
        with pytest.raises(ExportError) as caught:
            scalars(values, parameters)
        assert str(caught.value) == f"m.gguf has {len(values)} numbers of scale, not one for each layer"
    architecture = Architecture("m", {}, {}, layer_values={"scale": "l.{}.s"})
    with pytest.raises(ExportError, match="has 0 numbers of scale"):
        layer_numbers(layer_file(), architecture, {})


class Experts(torch.nn.Module):
    """Experts as transformers' classes describe themselves."""

    def __init__(self, transposed, concatenated):
        super().__init__()
        self.is_transposed, self.is_concatenated = transposed, concatenated
        self.up, self.bias = torch.nn.Parameter(torch.zeros(2, 3, 4)), torch.nn.Parameter(torch.zeros(2, 3))
        self.inner = torch.nn.Linear(2, 2)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("concatenated", [False, True])
def test_layouts(transposed, concatenated):
    """Convolutions of GPT-2 are turned; of experts the matrices are, where the class says so, and biases are not."""
    model = torch.nn.ModuleDict({"c": Conv1D(3, 2), "e": Experts(transposed, concatenated), "l": torch.nn.Linear(2, 2)})
    assert layouts_of(model) == {
        "c.weight": Layout(turned=True),
        "e.up": Layout(turned=transposed, interleaved=not concatenated),
        "e.bias": Layout(turned=False, interleaved=not concatenated),
    }
