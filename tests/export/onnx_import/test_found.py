"""What a graph's operators tell of how its weights are stored, by the operators' specifications."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from triform.export.onnx_import.found import (
    Found,
    has_rows_at_their_start,
    is_exact,
    parameters_of,
    quantization_of,
    rounds_together,
)
from triform.runtime.bundle.manifest import Quantization


def graph_of(*operators, initializers=(), inside=False):
    """One node of each, given as its name or its name, inputs and attributes."""
    nodes = []
    for number, operator in enumerate(operators):
        name, inputs, attributes = operator if isinstance(operator, tuple) else (operator, ["x"], {})
        nodes.append(helper.make_node(name, inputs, [f"y{number}"], **attributes))
    if inside:
        branch = helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)])
        nodes = [helper.make_node("If", ["c"], ["y0"], then_branch=branch, else_branch=branch)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
    inputs += [helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    outputs = [helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)]
    given = [numpy_helper.from_array(array, name) for name, array in initializers]
    graph = helper.make_graph(nodes, "g", inputs, outputs, given)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10)).graph


def four_bits(level=None, k=32, n=6, inputs=("x", "w", "s")):
    attributes = {"K": k, "N": n, "bits": 4, "block_size": 16}
    return ("MatMulNBits", list(inputs), attributes | ({} if level is None else {"accuracy_level": level}))


@pytest.mark.parametrize(
    ("operators", "expected"),
    [
        (["MatMul", "QuantizeLinear"], Quantization("none")),
        ([four_bits()], Quantization("keep", matrices=1)),
        ([four_bits(0), four_bits(1)], Quantization("keep", matrices=2, accuracy_level=1)),
        ([four_bits(4)], Quantization("keep", matrices=1, accuracy_level=4)),
        (["DequantizeLinear", "DequantizeLinear", "MatMul"], Quantization("keep", matrices=2)),
        # With a scale for all runs, or with one for all rows of a run.
        (["DequantizeLinear", "QuantizeLinear"], Quantization("keep", matrices=1, accuracy_level=4)),
        *(
            ([name], Quantization("keep", matrices=1, accuracy_level=4))
            for name in ("MatMulInteger", "QLinearMatMul", "QAttention", "DynamicQuantizeMatMul")
        ),
        ([four_bits(), "DynamicQuantizeLinear"], Quantization("keep", matrices=1, accuracy_level=4)),
    ],
)
def test_how_weights_are_stored(operators, expected):
    assert quantization_of(graph_of(*operators)) == expected
    assert quantization_of(graph_of(*operators, inside=True)).scheme == expected.scheme


@pytest.mark.parametrize(
    ("name", "together"),
    [("MatMulInteger", True), ("DynamicQuantizeMatMul", True), ("DynamicQuantizeLinear", True), ("QAttention", True),
     ("QLinearMatMul", False), ("QuantizeLinear", False), ("MatMul", False)],
)  # fmt: skip
def test_one_scale_for_all_tokens_of_a_run(name, together):
    assert rounds_together(graph_of(name)) is together
    assert rounds_together(graph_of(name, inside=True)) is together


def test_floats_of_32_bits():
    weights = [("w", np.zeros(3, np.float32))]
    assert is_exact(graph_of("MatMul", initializers=weights))
    assert is_exact(graph_of(four_bits(1), initializers=weights))
    assert not is_exact(graph_of(four_bits(4), initializers=weights))
    assert not is_exact(graph_of("MatMul", initializers=[*weights, ("v", np.zeros(3, np.float16))]))


def test_rows_of_grouped_attention():
    assert has_rows_at_their_start(graph_of("GroupQueryAttention"))
    assert not has_rows_at_their_start(graph_of("MultiHeadAttention"))


def test_weights_are_counted():
    """Of packed ones the numbers, without their scales; sizes of 64 bits are none."""
    stored = [
        ("w", np.zeros((6, 2, 8), np.uint8)),
        ("s", np.zeros(12, np.float32)),
        ("v", np.zeros((5, 3), np.float32)),
    ]
    sizes = [("size", np.zeros(2, np.int64)), ("ids", np.zeros(7, np.int32))]
    assert parameters_of(graph_of(four_bits(), initializers=stored + sizes)) == 32 * 6 + 15 + 7
    # One matrix that two products read is one.
    assert parameters_of(graph_of(four_bits(), four_bits(), initializers=stored)) == 32 * 6 + 15


@pytest.mark.parametrize(
    ("producer", "said"), [(("pytorch", "2.1"), "pytorch 2.1"), (("a", None), "a"), ((None, None), "unknown")]
)
def test_where_a_graph_comes_from(producer, said, tmp_path):
    model = ir.Model(graph_of("MatMul"), ir_version=10, producer_name=producer[0], producer_version=producer[1])
    notes = Found(tmp_path, tmp_path / "onnx" / "model.onnx", model).notes
    assert notes == {"imported from": "onnx/model.onnx", "made by": said}
