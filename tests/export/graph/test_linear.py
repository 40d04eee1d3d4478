"""Products with constant matrices become linear layers of PyTorch's layout; others stay as they are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from triform.export.graph.linear import LINEAR, find_linears, pack_linears
from triform.export.graph.nodes import nodes
from triform.export.graph.weights import matrix

# Two rows of three numbers to rows of four.
X = np.arange(6, dtype=np.float32).reshape(2, 3)
W = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
B = np.arange(4, dtype=np.float32)
CONSTANTS = {"w": W, "wt": W.T.copy(), "b": B, "row": B[None], "v": W + 1}


def graph_of(*made, outputs=("y",)):
    """A graph of x and z, which is of w's shape; every value that is computed has two rows of four."""
    computed = [name for node in made for name in node.output]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [2, 3]), ("z", [3, 4]))
    ]
    known = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in computed]
    graph = helper.make_graph(
        made, "g", inputs, [one for one in known if one.name in outputs],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()],
        value_info=[one for one in known if one.name not in outputs],
    )  # fmt: skip
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def node(kind, inputs, output="y", **attributes):
    return helper.make_node(kind, inputs.split(), [output], **attributes)


@pytest.mark.parametrize(
    ("made", "bias"),
    [
        ([node("MatMul", "x w")], False),
        ([node("MatMul", "x w", "p"), node("Add", "p b")], True),
        ([node("MatMul", "x w", "p"), node("Add", "b p")], True),
        ([node("Gemm", "x w")], False),
        ([node("Gemm", "x w b")], True),
        ([node("Gemm", "x wt b", transB=1)], True),
        ([node("Transpose", "wt", "t", perm=[1, 0]), node("MatMul", "x t")], False),
    ],
)
def test_a_product_with_a_constant_is_a_linear_layer(made, bias):
    model = graph_of(*made)
    find_linears(model)
    (linear,) = model.graph
    assert linear.op_type == LINEAR
    weight = matrix(linear.inputs[1]).numpy()
    assert weight.shape == (4, 3)
    np.testing.assert_array_equal(weight, W.T)
    assert [one.name for one in linear.inputs[2:] if one is not None] == (["b"] if bias else [])


@pytest.mark.parametrize(
    "made",
    [
        node("MatMul", "x z"),
        node("Gemm", "x z b"),
        node("Gemm", "x w b", alpha=2.0),
        node("Gemm", "w z", transA=1),
    ],
)
def test_other_products_stay(made):
    model = graph_of(made)
    find_linears(model)
    assert [one.op_type for one in model.graph] == [made.op_type]


def test_what_is_no_bias_is_added_behind():
    model = graph_of(node("MatMul", "x w", "p"), node("Add", "p row"))
    find_linears(model)
    assert [one.op_type for one in model.graph] == [LINEAR, "Add"]


def test_layers_of_one_input_are_joined_by_their_kind():
    """Of rows: the first matrix has its own, then come those of the second, with zeros where there is no bias."""
    model = graph_of(node("Gemm", "x w b", "y"), node("MatMul", "x v", "q"), outputs=("y", "q"))
    find_linears(model)
    apart = model.clone()
    pack_linears(apart, lambda weight: weight.name)
    assert len(nodes(apart.graph, LINEAR)) == 2
    pack_linears(model, lambda weight: None)
    joined, split = model.graph
    assert (joined.op_type, split.op_type) == (LINEAR, "Split")
    np.testing.assert_array_equal(matrix(joined.inputs[1]), np.concatenate([W.T, (W + 1).T]))
    np.testing.assert_array_equal(matrix(joined.inputs[2]), [*B, 0, 0, 0, 0])
    assert split.inputs[1].const_value.numpy().tolist() == [4, 4]
