"""Replaces the placeholder nodes in the decoder of an encoder-decoder by operators of ONNX Runtime.

A decoder may have several rows for one row of the encoder: the beams of one source. Cross-attention has no order among
its queries, so the queries of these rows are joined into one row, and the source's keys and values are never copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from triform.export.graph.nodes import MICROSOFT, add_initializer, attribute, insert, nodes, replace, set_type

_FLOAT_MIN = float(np.finfo(np.float32).min)


def lower_cross_attention(model: ir.Model) -> None:
    """Replace each CrossAttention node by MultiHeadAttention, or by standard operators where scores are capped.

    The operator is described in docs/ContribOperators.md of ONNX Runtime, as com.microsoft.MultiHeadAttention.
    """
    graph = model.graph
    shapes: dict[tuple[int, ...], ir.Value] = {}
    for node in nodes(graph, "CrossAttention"):
        query, key = node.inputs[:2]
        if query is None or key is None or query.shape is None:
            raise ValueError(f"CrossAttention node {node.name} lacks an input")
        heads, head_dim, capped = (attribute(node, name) for name in ("num_heads", "head_dim", "softcap"))
        last_axes = (heads, head_dim) if capped else (heads * head_dim,)
        if last_axes not in shapes:
            shapes[last_axes] = _source_rows(graph, node, key, last_axes)
        merged = insert(graph, node, "Reshape", [query, shapes[last_axes]])
        set_type(merged.outputs[0], query, [None, None, *last_axes])
        result = (_capped if capped else _fused)(graph, node, merged.outputs[0])
        shape = insert(graph, node, "Shape", [query])
        replace(node.outputs[0], insert(graph, node, "Reshape", [result, shape.outputs[0]]).outputs[0])
        graph.remove(node, safe=True)


def lower_cross_weights(model: ir.Model) -> None:
    """Replace each CrossWeights node by standard operators that compute the attention's weights."""
    graph = model.graph
    for node in nodes(graph, "CrossWeights"):
        query, key = node.inputs
        if query is None or key is None:
            raise ValueError(f"CrossWeights node {node.name} lacks an input")
        heads, head_dim = attribute(node, "num_heads"), attribute(node, "head_dim")
        apply = _Applier(graph, node)
        split = apply("Reshape", query, _source_rows(graph, node, key, (heads, head_dim)))
        queries = apply("Transpose", split, perm=[0, 2, 1, 3])
        scores = apply("MatMul", queries, apply("Transpose", key, perm=[0, 1, 3, 2]))
        scores = apply("Mul", scores, apply.number("scale", attribute(node, "scale")))
        weights = apply("Transpose", apply("Softmax", scores, axis=-1), perm=[0, 2, 1, 3])
        rows = apply("Shape", query, start=0, end=2)
        count = add_initializer(graph, "cross_attention.heads", np.array([heads], np.int64))
        shape = apply("Concat", rows, count, apply("Shape", key, start=2, end=3), axis=0)
        replace(node.outputs[0], apply("Reshape", weights, shape))
        graph.remove(node, safe=True)


def lower_summed_cross_attention(model: ir.Model) -> None:
    """Replace each SummedCrossAttention node by standard operators: attention, and the logarithm of its sum."""
    graph = model.graph
    for node in nodes(graph, "SummedCrossAttention"):
        query, key, value = node.inputs[:3]
        if query is None or key is None:
            raise ValueError(f"SummedCrossAttention node {node.name} lacks an input")
        heads, apply = attribute(node, "num_heads"), _Applier(graph, node)
        split = apply("Reshape", query, _source_rows(graph, node, key, (heads, attribute(node, "head_dim"))))
        scores = apply(
            "MatMul", apply("Transpose", split, perm=[0, 2, 1, 3]), apply("Transpose", key, perm=[0, 1, 3, 2])
        )
        scores = _without_padding(node, apply, apply("Mul", scores, apply.number("scale", attribute(node, "scale"))))
        last = add_initializer(graph, "cross_attention.last", np.array([-1], np.int64))
        total = apply("ReduceLogSumExp", scores, last, keepdims=1)
        attended = apply("MatMul", apply("Exp", apply("Sub", scores, total)), value)
        shape = apply("Shape", query)
        replace(node.outputs[0], apply("Reshape", apply("Transpose", attended, perm=[0, 2, 1, 3]), shape))
        count = add_initializer(graph, "cross_attention.heads", np.array([heads], np.int64))
        rows = apply("Concat", apply("Shape", query, start=0, end=2), count, axis=0)
        replace(node.outputs[1], apply("Reshape", apply("Transpose", total, perm=[0, 2, 1, 3]), rows))
        graph.remove(node, safe=True)


def count_keys(model: ir.Model) -> None:
    """Replace the input `key_positions` by 0, 1, … up to the number of keys that attention sees."""
    graph = model.graph
    positions = next((value for value in graph.inputs if value.name == "key_positions"), None)
    if positions is None:
        return
    total = nodes(graph, "GroupQueryAttention")[0].inputs[6]
    first = next(node for node in graph if positions in node.inputs)
    total_node = total.producer() if total is not None else None
    if total is None or total_node is None:
        raise ValueError("the number of keys is not computed")
    # Tracing may have put the sum behind the node that reads it now.
    _move_up(graph, total_node, first)
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
    """Move a node, and the nodes it depends on, before another node; those that are already before it stay."""
    order = {id(item): index for index, item in enumerate(graph)}
    needed, seen = [node], {id(node)}
    for item in needed:
        for value in item.inputs:
            source = value.producer() if value is not None else None
            if source is not None and id(source) not in seen:
                seen.add(id(source))
                needed.append(source)
    for item in sorted(needed, key=lambda item: order[id(item)]):
        if order[id(item)] > order[id(before)]:
            graph.remove(item)
            graph.insert_before(before, [item])


def _source_rows(graph: ir.Graph, node: ir.Node, key: ir.Value, last_axes: tuple[int, ...]) -> ir.Value:
    """The shape, int64, of queries joined by source: (sources, all queries of a source, *last_axes)."""
    sources = insert(graph, node, "Shape", [key], attributes={"start": 0, "end": 1})
    rest = add_initializer(graph, "cross_attention.queries", np.array([-1, *last_axes], np.int64))
    return insert(graph, node, "Concat", [sources.outputs[0], rest], attributes={"axis": 0}).outputs[0]


def _fused(graph: ir.Graph, node: ir.Node, query: ir.Value) -> ir.Value:
    key, value, padding = node.inputs[1], node.inputs[2], node.inputs[3] if len(node.inputs) > 3 else None
    attributes = {"num_heads": attribute(node, "num_heads"), "scale": attribute(node, "scale")}
    inputs = [query, key, value, None, padding]
    return insert(graph, node, "MultiHeadAttention", inputs, domain=MICROSOFT, attributes=attributes).outputs[0]


def _capped(graph: ir.Graph, node: ir.Node, query: ir.Value) -> ir.Value:
    key, value = node.inputs[1:3]
    apply, softcap = _Applier(graph, node), attribute(node, "softcap")
    scores = apply("MatMul", apply("Transpose", query, perm=[0, 2, 1, 3]), apply("Transpose", key, perm=[0, 1, 3, 2]))
    scores = apply("Mul", scores, apply.number("scale", attribute(node, "scale") / softcap))
    scores = _without_padding(node, apply, apply("Mul", apply("Tanh", scores), apply.number("softcap", softcap)))
    return apply("Transpose", apply("MatMul", apply("Softmax", scores, axis=-1), value), perm=[0, 2, 1, 3])


def _without_padding(node: ir.Node, apply: _Applier, scores: ir.Value) -> ir.Value:
    """The scores of a source's tokens, and the lowest number for its padding."""
    padding = node.inputs[3] if len(node.inputs) > 3 else None
    if padding is None:
        return scores
    axes = add_initializer(apply.graph, "cross_attention.axes", np.array([1, 2], np.int64))
    is_token = apply("Unsqueeze", apply("Cast", padding, to=ir.DataType.BOOL), axes)
    return apply("Where", is_token, scores, apply.number("hidden", _FLOAT_MIN))


@dataclass(frozen=True)
class _Applier:
    """Inserts operators before a node."""

    graph: ir.Graph
    node: ir.Node

    def __call__(self, op_type: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
        return insert(self.graph, self.node, op_type, inputs, attributes=dict(attributes)).outputs[0]

    def number(self, name: str, value: float) -> ir.Value:
        return add_initializer(self.graph, f"cross_attention.{name}", np.array(value, np.float32))
