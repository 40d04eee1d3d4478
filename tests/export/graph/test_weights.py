"""Matrices of a graph in the pieces and types that a checkpoint has them in, and as float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx_ir.tensor_adapters import TorchTensor

from triform.export.graph.weights import (
    ScaledMatrix,
    ScaledTensor,
    Scaling,
    StackedTensor,
    keep_as_stored,
    matrix,
    pieces_of,
    same_memory,
    scale_matrix,
    scaled_rows,
    scaling_of,
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
    # Other memory stays, and so does what is no tensor of PyTorch's.
    plain = ir.Graph([], [], nodes=[], initializers=[value_of(ir.tensor(np.array(WHOLE), name="w"))])
    keep_as_stored(plain, {memory.data_ptr(): FIRST})
    assert plain.initializers["w"].const_value.numpy().tolist() == WHOLE
    graph, value = graph_of(torch.zeros(2, 2))
    keep_as_stored(graph, {memory.data_ptr(): FIRST})
    assert not isinstance(value.const_value, StackedTensor)


@pytest.mark.parametrize("part", [lambda memory: memory[:1], lambda memory: memory.T, lambda memory: memory.view(4)])
def test_a_part_of_what_stood_for_a_weight(part):
    memory = torch.zeros(2, 2)
    graph, _ = graph_of(part(memory))
    with pytest.raises(ValueError, match=r"^w is a part of a weight$"):
        keep_as_stored(graph, {memory.data_ptr(): FIRST})


ROWS, COLUMNS = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([10.0, 100.0])
# Each number of WHOLE times the factors of its row and of its column.
SCALED = [[20.0, 500.0], [15.0, -200.0], [-50.0, -600.0]]


def test_rows_and_columns_are_multiplied():
    found = Scaling(ROWS, COLUMNS).applied_to(torch.cat([FIRST, SECOND]))
    assert found.dtype == torch.float32 and found.tolist() == SCALED


@pytest.mark.parametrize("pieces", [(FIRST, SECOND), (torch.cat([FIRST, SECOND]),), (FIRST[:1], FIRST[1:], SECOND)])
def test_some_rows_of_a_scaled_matrix(pieces):
    """As those of the whole, wherever the pieces end; indices as in Python's slices."""
    scaled = ScaledMatrix(pieces, Scaling(ROWS, COLUMNS))
    assert (len(scaled), scaled.shape) == (3, (3, 2))
    for start in (None, 0, 1, 2, 3, -1):
        for stop in (None, 0, 1, 2, 3, 9, -1):
            found = scaled[start:stop]
            assert found.dtype == torch.float32 and found.tolist() == SCALED[start:stop]
            assert found.shape[1] == 2


def test_a_scaled_matrix_is_a_constant_of_its_own_type_and_shape():
    value = value_of(ScaledTensor(ScaledMatrix((FIRST, SECOND), Scaling(ROWS, COLUMNS)), "w"))
    tensor = value.const_value
    assert (tensor.dtype, shape_of(value), tensor.name) == (ir.DataType.FLOAT, (3, 2), "w")
    assert tensor.numpy().tolist() == SCALED and tensor.numpy().dtype == np.float32
    assert matrix(value).tolist() == stored_matrix(value).tolist() == scaled_rows(value)[:].tolist() == SCALED
    with pytest.raises(ValueError, match=r"^w is scaled$"):
        pieces_of(value)


def test_factors_of_rows_and_columns_come_together():
    value = stacked(FIRST, SECOND)
    assert scaling_of(value) is None and scaled_rows(value).dtype == torch.bfloat16
    scale_matrix(value, rows=ROWS)
    assert matrix(value).tolist() == [[2.0, 5.0], [1.5, -2.0], [-5.0, -6.0]]
    scale_matrix(value, columns=COLUMNS)
    assert matrix(value).tolist() == SCALED and value.const_value.name == "w"
    scale_matrix(value, rows=torch.full((3,), 3.0), columns=torch.tensor([1.0, 2.0]))
    assert matrix(value).tolist() == [[60.0, 3000.0], [45.0, -1200.0], [-150.0, -3600.0]]
    # What the checkpoint has stays as it is.
    assert [piece.data_ptr() for piece in scaling_of(value).pieces] == [FIRST.data_ptr(), SECOND.data_ptr()]
    assert FIRST.tolist() == WHOLE[:2]


def test_a_plain_constant_is_scaled():
    value = value_of(ir.tensor(np.array(WHOLE, np.float16), name="w"))
    scale_matrix(value, columns=COLUMNS)
    assert matrix(value).dtype == torch.float32
    assert matrix(value).tolist() == [[10.0, 250.0], [30.0, -400.0], [50.0, 600.0]]
