"""Helpers for onnx_ir graphs, used by every graph pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

MICROSOFT = "com.microsoft"


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that computes `value`, if it is one of `op_types`."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types else None


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The values of an initializer or of a Constant node; None for anything that is computed."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def only_user(value: ir.Value) -> ir.Node | None:
    """The node that uses `value`; None if it has several uses or is a graph output."""
    users = list(value.uses())
    return users[0].node if len(users) == 1 and not value.is_graph_output() else None


def same_shape(first: ir.Value, second: ir.Value) -> bool:
    """Whether both shapes are known and equal, symbol by symbol."""
    if first.shape is None or second.shape is None:
        return False
    return list(first.shape) == list(second.shape) and all(
        isinstance(dim, int) or dim.value is not None for dim in first.shape
    )


def replace(old: ir.Value, new: ir.Value) -> None:
    """Replace every use of `old` by `new`, which takes over an output's name, and shape and type if it has none."""
    if new.shape is None:
        new.shape = old.shape
    if new.type is None:
        new.type = old.type
    if old.is_graph_output():
        old.name, new.name = f"{old.name}.replaced", old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def set_type(value: ir.Value, like: ir.Value, shape: Sequence[int | ir.SymbolicDim | str | None] | None = None) -> None:
    """Give a new value the type of `like`, and `shape` or else the shape of `like`."""
    value.type = like.type
    value.shape = like.shape if shape is None else ir.Shape(shape)


def insert(
    graph: ir.Graph,
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    *,
    domain: str = "",
    attributes: dict[str, Any] | None = None,
    outputs: int = 1,
) -> ir.Node:
    """Create a node and insert it before another."""
    node = ir.node(op_type, inputs, attributes or {}, domain=domain, num_outputs=outputs)
    graph.insert_before(before, [node])
    return node


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any] | ir.LazyTensor) -> ir.Value:
    """Add a constant called `name`, with a number appended if that name is taken."""
    unique, number = name, 1
    while unique in graph.initializers:
        number += 1
        unique = f"{name}_{number}"
    tensor = array if isinstance(array, ir.LazyTensor) else ir.tensor(np.asarray(array, order="C"), name=unique)
    tensor.name = unique
    value = ir.Value(
        name=unique, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def widened(graph: ir.Graph, before: ir.Node, stored: ir.Value) -> ir.Value:
    """A constant in float32, which ONNX Runtime computes once, when it opens the graph; the cast goes before a node."""
    wide = insert(graph, before, "Cast", [stored], attributes={"to": ir.DataType.FLOAT}).outputs[0]
    wide.type, wide.shape = ir.TensorType(ir.DataType.FLOAT), stored.shape
    return wide


def nodes(graph: ir.Graph, *op_types: str) -> list[ir.Node]:
    """A list of the graph's nodes of these types; a pass may change the graph while it iterates."""
    return [node for node in graph if node.op_type in op_types]


def sweep(model: ir.Model) -> None:
    """Remove unused nodes and initializers, and let go of what these hold.

    A graph keeps a reference to everything that once was an input of it, as weights are while PyTorch traces.
    """
    graph = model.graph
    before = list(graph.initializers.values())
    RemoveUnusedNodesPass()(model)
    for value in before:
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(str(value.name), None)
            value.const_value = None


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, or `default`."""
    value = node.attributes.get(name)
    return default if value is None else value.value
