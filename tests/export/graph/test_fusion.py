"""Passes that must leave alone what only looks like their pattern."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from triform.export.graph.fusion import feed_packed_qkv, join_slices, normalize_before_transposing
from triform.export.graph.nodes import nodes

X = np.arange(24, dtype=np.float32).reshape(2, 12)


def value(name, shape, array=None):
    tensor = None if array is None else ir.tensor(array, name=name)
    kind = ir.TensorType(ir.DataType.FLOAT if tensor is None else tensor.dtype)
    return ir.Value(name=name, shape=ir.Shape(shape), type=kind, const_value=tensor)


def sliced(spans):
    """A graph that puts slices of x, along its last axis, one behind the other."""
    x = value("x", (2, 12))
    constants, made = [], []
    for index, (start, end) in enumerate(spans):
        numbers = [value(f"{index}.{name}", (1,), np.array([number])) for name, number in
                   (("start", start), ("end", end), ("axis", -1))]  # fmt: skip
        constants += numbers
        node = ir.node("Slice", [x, *numbers])
        node.outputs[0].shape, node.outputs[0].type = ir.Shape((2, end - start)), x.type
        made.append(node)
    whole = ir.node("Concat", [node.outputs[0] for node in made], {"axis": -1})
    whole.outputs[0].name, whole.outputs[0].type = "whole", x.type
    whole.outputs[0].shape = ir.Shape((2, sum(end - start for start, end in spans)))
    last = ir.node("Neg", whole.outputs)
    last.outputs[0].name, last.outputs[0].shape, last.outputs[0].type = "y", whole.outputs[0].shape, x.type
    graph = ir.Graph([x], last.outputs, nodes=[*made, whole, last], initializers=constants, opset_imports={"": 21},
                     name="slices")  # fmt: skip
    return ir.Model(graph, ir_version=10)


def run(model):
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


@pytest.mark.parametrize(
    ("spans", "joined"),
    [
        ([(0, 5), (5, 12)], True),
        ([(0, 3), (3, 4), (4, 12)], True),
        ([(5, 12), (0, 5)], False),
        ([(0, 6), (0, 6)], False),
        ([(0, 5), (6, 12)], False),
        ([(0, 8), (4, 8)], False),
    ],
)
def test_slices_are_joined_where_they_are_the_whole_in_order(spans, joined):
    model = sliced(spans)
    before = run(model)
    np.testing.assert_array_equal(before, -np.concatenate([X[:, start:end] for start, end in spans], axis=1))
    join_slices(model)
    assert (not nodes(model.graph, "Concat")) == joined
    np.testing.assert_array_equal(run(model), before)


@pytest.mark.parametrize("other_user", [None, 0, 1, 2])
def test_a_packed_projection_is_handed_over_where_attention_alone_uses_it(other_user):
    packed = value("packed", (1, 4, 36))
    split = ir.node("Split", [packed], {"axis": -1, "num_outputs": 3}, num_outputs=3)
    attention = ir.node("GroupQueryAttention", split.outputs, domain="com.microsoft")
    made = [split, attention]
    if other_user is not None:
        made.append(ir.node("Neg", [split.outputs[other_user]]))
    outputs = [node.outputs[0] for node in made[1:]]
    graph = ir.Graph([packed], outputs, nodes=made, opset_imports={"": 21, "com.microsoft": 1}, name="attention")
    feed_packed_qkv(ir.Model(graph, ir_version=10))
    (attention,) = nodes(graph, "GroupQueryAttention")
    handed_over = attention.inputs[0] is packed and not any(attention.inputs[1:3])
    assert handed_over == (other_user is None)
    assert len(nodes(graph, "Split")) == (other_user is not None)


@pytest.mark.parametrize(
    ("perm", "other_user", "moved"),
    [([1, 0, 2], False, True), ([0, 1, 2], False, True), ([0, 2, 1], False, False), ([1, 0, 2], True, False)],
)
def test_a_norm_is_moved_before_a_transpose_that_keeps_its_axis(perm, other_user, moved):
    shape = [(2, 3, 4)[axis] for axis in perm]
    x, scale = value("x", (2, 3, 4)), value("scale", shape[-1:], np.arange(1, 1 + shape[-1], dtype=np.float32))
    transpose = ir.node("Transpose", [x], {"perm": perm})
    norm = ir.node("LayerNormalization", [transpose.outputs[0], scale], {"axis": -1})
    made = [transpose, norm]
    if other_user:
        made.append(ir.node("Neg", transpose.outputs))
    for one in made:
        one.outputs[0].shape, one.outputs[0].type = ir.Shape(shape), x.type
    outputs = [one.outputs[0] for one in made[1:]]
    for number, output in enumerate(outputs):
        output.name = f"y{number}"
    graph = ir.Graph([x], outputs, nodes=made, initializers=[scale], opset_imports={"": 21}, name="norm")
    model = ir.Model(graph, ir_version=10)

    def computed():
        given = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
        content = ir.to_proto(model).SerializeToString()
        return ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": given})

    before = computed()
    normalize_before_transposing(model)
    (norm,) = nodes(graph, "LayerNormalization")
    assert (norm.inputs[0] is x) == moved
    for found, expected in zip(computed(), before, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
