"""What tracing leaves open in a decoder of an encoder-decoder, put in by ONNX Runtime's operators.

The rows of a decoder may be several for each row of the encoder: the beams of one source. Their queries lie behind one
another as if they were the queries of one row, so that the source's keys and values are never copied: attention to a
source has no order among its queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from triform.export.graph.nodes import MICROSOFT, add_initializer, attribute, describe, insert, nodes, replace

_FLOAT_MIN = float(np.finfo(np.float32).min)


def lower_cross_attention(model: ir.Model) -> None:
    """Replace each CrossAttention node by MultiHeadAttention, or by plain operators where scores are capped.

    Operator contract: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MultiHeadAttention
    """
    graph = model.graph
    shapes: dict[tuple[int, ...], ir.Value] = {}
    for node in nodes(graph, "CrossAttention"):
        query, key = node.inputs[:2]
        if query is None or key is None or query.shape is None:
            raise ValueError(f"CrossAttention node {node.name} lacks an input")
        heads, head_dim, capped = (attribute(node, name) for name in ("num_heads", "head_dim", "softcap"))
        last = (heads, head_dim) if capped else (heads * head_dim,)
        if last not in shapes:
            shapes[last] = _by_source(graph, node, key, last)
        merged = insert(graph, node, "Reshape", [query, shapes[last]])
        describe(merged.outputs[0], query, [None, None, *last])
        result = (_capped if capped else _fused)(graph, node, merged.outputs[0])
        shape = insert(graph, node, "Shape", [query])
        replace(node.outputs[0], insert(graph, node, "Reshape", [result, shape.outputs[0]]).outputs[0])
        graph.remove(node, safe=True)


def lower_cross_weights(model: ir.Model) -> None:
    """Replace each CrossWeights node by plain operators."""
    graph = model.graph
    for node in nodes(graph, "CrossWeights"):
        query, key = node.inputs
        if query is None or key is None:
            raise ValueError(f"CrossWeights node {node.name} lacks an input")
        heads, head_dim = attribute(node, "num_heads"), attribute(node, "head_dim")
        apply = _Applier(graph, node)
        split = apply("Reshape", query, _by_source(graph, node, key, (heads, head_dim)))
        turned = apply("Transpose", split, perm=[0, 2, 1, 3])
        scores = apply("MatMul", turned, apply("Transpose", key, perm=[0, 1, 3, 2]))
        scores = apply("Mul", scores, apply.number("scale", attribute(node, "scale")))
        weights = apply("Transpose", apply("Softmax", scores, axis=-1), perm=[0, 2, 1, 3])
        rows = apply("Shape", query, start=0, end=2)
        count = add_initializer(graph, "cross_attention.heads", np.array([heads], np.int64))
        shape = apply("Concat", rows, count, apply("Shape", key, start=2, end=3), axis=0)
        replace(node.outputs[0], apply("Reshape", weights, shape))
        graph.remove(node, safe=True)


def count_keys(model: ir.Model) -> None:
    """Replace the input `key_positions` by 0, 1, … up to the number of keys that attention sees."""
    graph = model.graph
    positions = next((value for value in graph.inputs if value.name == "key_positions"), None)
    if positions is None:
        return
    total = nodes(graph, "GroupQueryAttention")[0].inputs[6]
    first = next(node for node in graph if positions in node.inputs)
    made = total.producer() if total is not None else None
    if total is None or made is None:
        raise ValueError("the number of keys is not computed")
    # The sum must stand before what reads it, wherever tracing put it.
    _move_up(graph, made, first)
    wide = insert(graph, first, "Cast", [total], attributes={"to": ir.DataType.INT64})
    axes = add_initializer(graph, "key_positions.axes", np.array([0], np.int64))
    limit = insert(graph, first, "Squeeze", [wide.outputs[0], axes])
    start = add_initializer(graph, "key_positions.start", np.array(0, np.int64))
    step = add_initializer(graph, "key_positions.step", np.array(1, np.int64))
    counted = insert(graph, first, "Range", [start, limit.outputs[0], step])
    counted.outputs[0].shape, counted.outputs[0].type = positions.shape, positions.type
    ir.convenience.replace_all_uses_with(positions, counted.outputs[0])
    graph.inputs.remove(positions)


def _move_up(graph: ir.Graph, node: ir.Node, before: ir.Node) -> None:
    """Place a node, and what it needs, in front of another if it stands behind it."""
    order = {id(one): index for index, one in enumerate(graph)}
    wanted, seen = [node], {id(node)}
    for one in wanted:
        for value in one.inputs:
            source = value.producer() if value is not None else None
            if source is not None and id(source) not in seen:
                seen.add(id(source))
                wanted.append(source)
    for one in sorted(wanted, key=lambda one: order[id(one)]):
        if order[id(one)] > order[id(before)]:
            graph.remove(one)
            graph.insert_before(before, [one])


def _by_source(graph: ir.Graph, node: ir.Node, key: ir.Value, last: tuple[int, ...]) -> ir.Value:
    """A shape, int64: sources, as many queries as there are, and the last axes."""
    sources = insert(graph, node, "Shape", [key], attributes={"start": 0, "end": 1})
    rest = add_initializer(graph, "cross_attention.queries", np.array([-1, *last], np.int64))
    return insert(graph, node, "Concat", [sources.outputs[0], rest], attributes={"axis": 0}).outputs[0]


def _fused(graph: ir.Graph, node: ir.Node, query: ir.Value) -> ir.Value:
    key, value, padding = node.inputs[1], node.inputs[2], node.inputs[3] if len(node.inputs) > 3 else None
    attributes = {"num_heads": attribute(node, "num_heads"), "scale": attribute(node, "scale")}
    inputs = [query, key, value, None, padding]
    return insert(graph, node, "MultiHeadAttention", inputs, domain=MICROSOFT, attributes=attributes).outputs[0]


def _capped(graph: ir.Graph, node: ir.Node, query: ir.Value) -> ir.Value:
    key, value, padding = node.inputs[1], node.inputs[2], node.inputs[3] if len(node.inputs) > 3 else None
    apply, softcap = _Applier(graph, node), attribute(node, "softcap")
    scores = apply("MatMul", apply("Transpose", query, perm=[0, 2, 1, 3]), apply("Transpose", key, perm=[0, 1, 3, 2]))
    scores = apply("Mul", scores, apply.number("scale", attribute(node, "scale") / softcap))
    scores = apply("Mul", apply("Tanh", scores), apply.number("softcap", softcap))
    if padding is not None:
        axes = add_initializer(graph, "cross_attention.axes", np.array([1, 2], np.int64))
        seen = apply("Unsqueeze", apply("Cast", padding, to=ir.DataType.BOOL), axes)
        scores = apply("Where", seen, scores, apply.number("hidden", _FLOAT_MIN))
    return apply("Transpose", apply("MatMul", apply("Softmax", scores, axis=-1), value), perm=[0, 2, 1, 3])


@dataclass(frozen=True)
class _Applier:
    """Puts operators in front of a node."""

    graph: ir.Graph
    node: ir.Node

    def __call__(self, op_type: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
        return insert(self.graph, self.node, op_type, inputs, attributes=dict(attributes)).outputs[0]

    def number(self, name: str, value: float) -> ir.Value:
        return add_initializer(self.graph, f"cross_attention.{name}", np.array(value, np.float32))
