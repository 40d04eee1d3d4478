"""What the small functions on graphs promise."""

from __future__ import annotations

import weakref

import numpy as np
import onnx_ir as ir

from triform.export.graph.nodes import same_shape, sweep


def test_a_sweep_lets_go_of_what_once_was_an_input():
    """As weights are while PyTorch traces: a graph keeps every value that ever was an input of it."""
    tensor = ir.tensor(np.ones((2, 2), np.float32))
    alive = weakref.ref(tensor)
    x, weight = (ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT)) for name in ("x", "weight"))
    node = ir.Node("", "Relu", [x])
    graph = ir.Graph([x, weight], [node.outputs[0]], nodes=[node], opset_imports={"": 20})
    graph.inputs.remove(weight)
    weight.const_value = tensor
    graph.initializers.add(weight)
    del tensor
    sweep(ir.Model(graph, ir_version=10))
    assert not graph.initializers
    assert alive() is None


def test_shapes_that_are_not_known_are_not_the_same():
    def shaped(*dims):
        return ir.Value(shape=None if dims == (None,) else ir.Shape(dims))

    assert same_shape(shaped("batch", 3), shaped("batch", 3))
    assert not same_shape(shaped("batch", 3), shaped("batch", 4))
    assert not same_shape(shaped("batch", 3), shaped("rows", 3))
    for first, second in ((None, 3), (3, None), (None, None)):
        assert not same_shape(shaped(first), shaped(second))
    # Two sizes without a name may differ.
    unnamed = ir.Value(shape=ir.Shape([ir.SymbolicDim(None), 3])), ir.Value(shape=ir.Shape([ir.SymbolicDim(None), 3]))
    assert not same_shape(*unnamed)
