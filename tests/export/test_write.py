"""Files of graphs."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import transformers

from triform.export.write import _describe, operators_of
from triform.runtime.bundle.manifest import TensorInfo


def test_a_graph_does_not_name_folders_of_the_exporting_machine(float_bundle):
    content = (float_bundle / "decoder.onnx").read_bytes()
    for folder in (Path(__file__).parents[2], Path(transformers.__file__).parent):
        assert str(folder).encode() not in content
    graph = onnx.load(float_bundle / "decoder.onnx", load_external_data=False).graph
    assert not any(node.metadata_props or node.doc_string for node in graph.node)


def test_what_is_computed_from_constants_alone_is_not_counted():
    """Nor what follows from it; a node that takes nothing, such as of random numbers, runs each time."""
    x, weight = ir.Value(name="x"), ir.Value(name="w", const_value=ir.tensor([1.0], name="w"))
    turned = ir.node("Transpose", [weight])
    halved = ir.node("Neg", [turned.outputs[0]])
    product = ir.node("Mul", [x, halved.outputs[0]])
    noise = ir.node("RandomNormal", [], {"shape": [1]})
    total = ir.node("Mul", [product.outputs[0], noise.outputs[0]])
    graph = ir.Graph(
        [x], [total.outputs[0]], nodes=[turned, halved, product, noise, total], initializers=[weight],
        opset_imports={"": 21},
    )  # fmt: skip
    assert operators_of(ir.Model(graph, ir_version=10)) == {"Mul": 2, "RandomNormal": 1}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32"])
def test_a_tensor_is_described_by_numpys_name_of_its_type(dtype):
    kind = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16, "int64": ir.DataType.INT64,
            "int32": ir.DataType.INT32}[dtype]  # fmt: skip
    value = ir.Value(name="x", shape=ir.Shape(["batch", 3]), type=ir.TensorType(kind))
    assert _describe(value) == TensorInfo("x", dtype, ["batch", 3])
