"""Residuals and their norms as one operator: what it computes, with and without a bias, and what is left alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from triform.export.gpu.skip_norms import fuse_skip_layer_norms
from triform.export.graph.nodes import nodes

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
VECTORS = {"scale": np.array([1, 2, 3, 4]), "shift": np.array([4, 3, 2, 1]), "bias": np.array([5, 0, -5, 1])}


class Graph:
    """y = norm(x + residual), and the sum, which the rest of a model reads."""

    def __init__(
        self, *, bias=None, axis=-1, shape=("b", "s", 4), shift=True, statistics=False, others=False, epsilon=1e-3
    ):
        float32 = ir.DataType.FLOAT
        self.inputs = [ir.val(name, float32, list(shape)) for name in ("x", "residual")]
        self.constants = {
            name: ir.val(name, const_value=ir.tensor(array.astype(np.float32), name=name))
            for name, array in VECTORS.items()
        }
        for value in self.constants.values():
            value.shape, value.type = ir.Shape([4]), ir.TensorType(float32)
        sides, made = list(self.inputs), []
        if bias is not None:
            add = ir.node("Add", [sides[bias], self.constants["bias"]])
            add.outputs[0].shape, add.outputs[0].type = sides[bias].shape, ir.TensorType(float32)
            made.append(add)
            sides[bias] = add.outputs[0]
        total = ir.node("Add", sides)
        given = [total.outputs[0], self.constants["scale"], *([self.constants["shift"]] if shift else [])]
        norm = ir.node(
            "LayerNormalization", given, {"axis": axis, "epsilon": epsilon}, num_outputs=2 if statistics else 1
        )
        ends = [ir.node("Identity", [norm.outputs[0]]), ir.node("Identity", [total.outputs[0]])]
        if statistics:
            ends.append(ir.node("Identity", [norm.outputs[1]]))
        if others:
            ends.append(ir.node("Identity", [sides[bias]]))
        for node, name in zip(ends, ("norm", "sum", "more", "most"), strict=False):
            node.outputs[0].name = name
        used = [value for value in self.constants.values() if value.uses()]
        graph = ir.Graph(self.inputs, [node.outputs[0] for node in ends], nodes=[*made, total, norm, *ends],
                         initializers=used, opset_imports={"": 17, "com.microsoft": 1}, name="g")  # fmt: skip
        self.model = ir.Model(graph, ir_version=10)

    def run(self):
        settings = ort.SessionOptions()
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        proto = ir.to_proto(self.model).SerializeToString()
        session = ort.InferenceSession(proto, settings, providers=["CPUExecutionProvider"])
        return session.run(["norm", "sum"], {"x": X, "residual": Y})

    def fused(self):
        fuse_skip_layer_norms(self.model)
        return len(nodes(self.model.graph, "SkipLayerNormalization"))


@pytest.mark.parametrize("bias", [None, 0, 1])
@pytest.mark.parametrize("epsilon", [1e-3, 1.0])
@pytest.mark.parametrize("axis", [-1, 2])
def test_what_one_operator_computes(bias, epsilon, axis):
    graph = Graph(bias=bias, epsilon=epsilon, axis=axis)
    assert graph.fused() == 1
    left = [node.op_type for node in graph.model.graph]
    assert left == ["SkipLayerNormalization", "Identity", "Identity"]
    total = X + Y + (0 if bias is None else VECTORS["bias"])
    centered = total - total.mean(-1, keepdims=True)
    normed = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + epsilon) * VECTORS["scale"] + VECTORS["shift"]
    for found, expected in zip(graph.run(), (normed, total), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"axis": 1}, {"shift": False}, {"statistics": True}, {"shape": ("b", 4)}, {"shape": ("b", "s", "h", 4)}],
    ids=str,
)
def test_what_is_left_alone(options):
    assert Graph(**options).fused() == 0


def test_a_bias_whose_sum_others_read_stays():
    graph = Graph(bias=0, others=True)
    assert graph.fused() == 1 and len(nodes(graph.model.graph, "Add")) == 1
    np.testing.assert_allclose(graph.run()[1], X + Y + VECTORS["bias"], atol=1e-5)


def test_shapes_that_are_not_the_same():
    graph = Graph()
    graph.inputs[1].shape = ir.Shape(["b", 1, 4])
    assert graph.fused() == 0
