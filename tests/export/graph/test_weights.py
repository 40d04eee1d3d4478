"""Matrices of a graph in the pieces and types that a checkpoint has them in, and as float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx_ir.tensor_adapters import TorchTensor

from triform.export.graph.weights import (
    StackedTensor,
    keep_as_stored,
    matrix,
    pieces_of,
    same_memory,
    shape_of,
    stored_matrix,
)

FIRST = torch.tensor([[1.0, 2.5], [3.0, -4.0]], dtype=torch.bfloat16)
SECOND = torch.tensor([[5.0, 6.0]], dtype=torch.bfloat16)
WHOLE = [[1.0, 2.5], [3.0, -4.0], [5.0, 6.0]]


def value_of(tensor):
    return ir.val("w", const_value=tensor)


def stacked(*pieces):
    return value_of(StackedTensor(pieces, "w"))


def test_rows_of_several_tensors():
    value = stacked(FIRST, SECOND)
    assert (value.const_value.dtype, shape_of(value), value.const_value.name) == (ir.DataType.FLOAT, (3, 2), "w")
    assert value.const_value.numpy().tolist() == WHOLE and value.const_value.numpy().dtype == np.float32
    assert [piece.data_ptr() for piece in pieces_of(value)] == [FIRST.data_ptr(), SECOND.data_ptr()]


def test_float32_and_what_is_stored():
    """Of one piece nothing is copied until float32 is asked for."""
    for value, expected in ((stacked(FIRST, SECOND), WHOLE), (stacked(FIRST), WHOLE[:2]), (stacked(FIRST.T), None)):
        wide, stored = matrix(value), stored_matrix(value)
        assert (wide.dtype, stored.dtype) == (torch.float32, torch.bfloat16) and wide.is_contiguous()
        assert expected is None or wide.tolist() == stored.tolist() == expected
    assert stored_matrix(stacked(FIRST)).data_ptr() == FIRST.data_ptr()
    assert matrix(stacked(FIRST.T)).tolist() == [[1.0, 3.0], [2.5, -4.0]]


def test_constants_that_are_no_stacks():
    parameter = torch.nn.Parameter(torch.tensor(WHOLE))
    value = value_of(TorchTensor(parameter, name="w"))
    found = matrix(value)
    assert found.data_ptr() == parameter.data_ptr() and not found.requires_grad and shape_of(value) == (3, 2)
    assert [piece.tolist() for piece in pieces_of(value)] == [WHOLE]
    plain = value_of(ir.tensor(np.array(WHOLE, np.float16)))
    assert matrix(plain).dtype == torch.float16 and matrix(plain).tolist() == WHOLE


def test_what_is_no_constant():
    for function in (matrix, stored_matrix, shape_of):
        with pytest.raises(ValueError, match=r"^w is not a constant$"):
            function(ir.val("w"))


def test_pieces_in_the_same_places():
    assert same_memory((FIRST, SECOND), (FIRST, SECOND)) and same_memory((FIRST,), (FIRST.view(2, 2),))
    others = ((SECOND, FIRST), (FIRST,), (FIRST.clone(), SECOND), (FIRST.T, SECOND), (FIRST[:1], SECOND))
    for other in others:
        assert not same_memory((FIRST, SECOND), other)


def graph_of(tensor):
    value = value_of(TorchTensor(tensor, name="w"))
    return ir.Graph([], [], nodes=[], initializers=[value]), value


def test_what_stood_for_a_weight_is_replaced_by_it():
    memory = torch.zeros(2, 2)
    graph, value = graph_of(memory)
    keep_as_stored(graph, {memory.data_ptr(): FIRST})
    assert isinstance(value.const_value, StackedTensor) and pieces_of(value)[0] is FIRST
    # Other memory stays.
    graph, value = graph_of(torch.zeros(2, 2))
    keep_as_stored(graph, {memory.data_ptr(): FIRST})
    assert not isinstance(value.const_value, StackedTensor)


@pytest.mark.parametrize("part", [lambda memory: memory[:1], lambda memory: memory.T, lambda memory: memory.view(4)])
def test_a_part_of_what_stood_for_a_weight(part):
    memory = torch.zeros(2, 2)
    graph, _ = graph_of(part(memory))
    with pytest.raises(ValueError, match=r"^w is a part of a weight$"):
        keep_as_stored(graph, {memory.data_ptr(): FIRST})
