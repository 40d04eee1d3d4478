"""What the small functions on graphs promise."""

from __future__ import annotations

import weakref

import numpy as np
import onnx_ir as ir
import pytest

from triform.export.graph.nodes import add_initializer, attribute, nodes, only_user, replace, same_shape, sweep


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


def a_value(name, shape=None, kind=None):
    return ir.Value(name=name, shape=None if shape is None else ir.Shape(shape), type=kind and ir.TensorType(kind))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ([2, "n"], [2, "n"], True),
        ([2, "n"], [2, "m"], False),
        ([2, 3], [2, 3], True),
        ([2, 3], [2, 4], False),
        ([2, 3], [2], False),
        ([], [], True),
        ([2, None], [2, None], False),
        (None, [2], False),
        ([2], None, False),
        (None, None, False),
    ],
)
def test_same_shapes(first, second, same):
    assert same_shape(a_value("a", first), a_value("b", second)) is same


def test_what_replaces_an_output_takes_over_its_name_and_what_it_lacks():
    x = a_value("x", [2], ir.DataType.FLOAT)
    old = ir.node("Neg", [x])
    old.outputs[0].name, old.outputs[0].shape, old.outputs[0].type = (
        "y",
        ir.Shape([2]),
        ir.TensorType(ir.DataType.FLOAT),
    )
    user, new = ir.node("Abs", [old.outputs[0]]), ir.node("Sign", [x])
    graph = ir.Graph([x], [old.outputs[0]], nodes=[new, old, user], opset_imports={"": 21})
    replace(old.outputs[0], new.outputs[0])
    assert graph.outputs[0] is new.outputs[0] and user.inputs[0] is new.outputs[0]
    assert (new.outputs[0].name, old.outputs[0].name) == ("y", "y.replaced")
    assert list(new.outputs[0].shape) == [2] and new.outputs[0].dtype == ir.DataType.FLOAT
    other = ir.node("Relu", [x])
    other.outputs[0].shape, other.outputs[0].type = ir.Shape(["n"]), ir.TensorType(ir.DataType.FLOAT16)
    graph.insert_before(user, [other])
    replace(user.outputs[0], other.outputs[0])
    # It keeps what it has.
    assert list(other.outputs[0].shape) == ["n"] and other.outputs[0].dtype == ir.DataType.FLOAT16
    assert only_user(x) is None and only_user(new.outputs[0]) is None
    assert only_user(old.outputs[0]) is None


def test_names_of_constants_are_not_used_twice():
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 21})
    arrays = [np.arange(6.0, dtype=np.float32).reshape(2, 3).T, np.zeros(1, np.int64), np.zeros((), np.int64)]
    values = [add_initializer(graph, "c", array) for array in arrays]
    assert [value.name for value in values] == ["c", "c_2", "c_3"] == list(graph.initializers)
    for value, array in zip(values, arrays, strict=True):
        assert np.array_equal(value.const_value.numpy(), array) and list(value.shape) == list(array.shape)
        assert value.const_value.name == value.name


def test_attributes_and_constants():
    node = ir.node("Gather", [a_value("x"), a_value("y")], {"axis": 0})
    assert (attribute(node, "axis", 5), attribute(node, "other", 5), attribute(node, "other")) == (0, 5, None)
    graph = ir.Graph([], [], nodes=[node, ir.node("Neg", [a_value("z")])], opset_imports={"": 21})
    assert nodes(graph, "Gather") == [node] and len(nodes(graph, "Gather", "Neg")) == 2 and nodes(graph) == []
