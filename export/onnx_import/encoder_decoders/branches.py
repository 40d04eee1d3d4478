"""Takes one of two graphs that a tool merged behind a condition, and replaces what is only asked for its sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from triform.export.graph.nodes import add_initializer, sweep
from triform.runtime.errors import UnsupportedError

# The input that chooses: true where there are keys and values of tokens before.
_SWITCH = "use_cache_branch"
# What may stand between that input and the condition.
_SAME = ("Identity", "Cast", "Reshape", "Squeeze")


def take_branch(model: ir.Model, path: Path, *, past: bool) -> None:
    """Put the nodes of one branch in place of the condition; a graph without one stays as it is.

    Args:
        model: changed in place.
        path: its file, for messages.
        past: whether to take the branch with a past.

    Raises:
        UnsupportedError: what the input chooses is not one condition.
    """
    graph = model.graph
    switch = next((value for value in graph.inputs if value.name == _SWITCH), None)
    if switch is None:
        return
    chosen = [node for node in graph if node.op_type == "If" and _origin(node) is switch]
    for node in chosen:
        _inline(graph, node, "then_branch" if past else "else_branch")
    sweep(model)
    if switch.uses():
        raise UnsupportedError(f"{path} takes {_SWITCH} for something else than the choice between two graphs")
    graph.inputs.remove(switch)


def _origin(node: ir.Node | None) -> ir.Value | None:
    """What the first input of a node is the same as; None where it has none, as in a damaged file."""
    value = None
    while node is not None and node.inputs and (value is None or node.op_type in _SAME):
        value = node.inputs[0]
        node = None if value is None else value.producer()
    return value


def _inline(graph: ir.Graph, node: ir.Node, name: str) -> None:
    [other] = [attribute.as_graph() for key, attribute in node.attributes.items() if key != name]
    for unused in ir.traversal.RecursiveGraphIterator(other):
        # What it reads of the whole graph would look used.
        for place in range(len(unused.inputs)):
            unused.replace_input_with(place, None)
    branch = node.attributes[name].as_graph()
    constants = list(branch.initializers.values())
    branch.initializers.clear()
    for value in constants:
        value.name = f"{name}.{value.name}"
        graph.register_initializer(value)
    results = list(branch.outputs)
    branch.outputs.clear()
    nodes = list(branch)
    branch.remove(nodes)
    graph.insert_before(node, nodes)
    for old, result in zip(node.outputs, results, strict=True):
        same = ir.node("Identity", [result])
        new = same.outputs[0]
        graph.insert_before(node, [same])
        wanted = str(old.name)
        old.name = f"{wanted}_of_either"
        if result.name == wanted:
            result.name = f"{wanted}_of_branch"
        new.name, new.type, new.shape = wanted, old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def replace_sizes(graph: ir.Graph, value: ir.Value, like: ir.Value) -> bool:
    """Compute the sizes of an input that is asked for nothing else, and take it no more.

    Args:
        graph: changed in place.
        value: (batch, source, width), one of its inputs; the width is a number.
        like: (batch, heads, source, head_dim), another.

    Returns:
        whether nothing else of it was used.
    """
    users = [use.node for use in value.uses()]
    width = list(value.shape or [None])[-1]
    if not isinstance(width, int) or any(node.op_type != "Shape" or node.attributes for node in users):
        return False
    if users:
        shape = ir.node("Shape", [like])
        picked = ir.node(
            "Gather", [shape.outputs[0], add_initializer(graph, "sizes", np.array([0, 2], np.int64))], {"axis": 0}
        )
        last = add_initializer(graph, "width", np.array([width], np.int64))
        sizes = ir.node("Concat", [picked.outputs[0], last], {"axis": 0})
        graph.insert_before(graph[0], [shape, picked, sizes])
        for node in users:
            ir.convenience.replace_all_uses_with(node.outputs[0], sizes.outputs[0])
            graph.remove(node, safe=True)
    graph.inputs.remove(value)
    return True
