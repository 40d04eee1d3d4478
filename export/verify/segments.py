"""Cuts a graph into segments that run one after another, each with a bounded amount of weights.

The large weights of a segment are inputs, so that its runner decides when they are read from where they are stored.
What a segment computes for a later one is an output of the first and an input of the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from triform.export.graph.nodes import MICROSOFT, add_initializer, attribute, insert, nodes, replace, set_type, sweep
from triform.export.graph.weights import StackedTensor, pieces_of

# Smaller weights, in bytes, stay in the graph.
_LARGE = 2**20
# Operators that compute the same whether their weights are constants or inputs.
_READERS = {"FusedMatMul", "Gather", "MoE"}
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Segment:
    """A part of a graph.

    Attributes:
        model: the part.
        weights: by the name of an input, the tensors that hold its rows, of any float type.
    """

    model: ir.Model
    weights: dict[str, tuple[torch.Tensor, ...]]

    @property
    def inputs(self) -> list[str]:
        """The names of its inputs."""
        return [str(value.name) for value in self.model.graph.inputs]


@dataclass(frozen=True)
class SegmentedGraph:
    """A graph in parts.

    Attributes:
        segments: in the order that they run.
        lookups: by the name of an input, the table whose rows at the token ids it is, in float32.
    """

    segments: list[Segment]
    lookups: dict[str, torch.Tensor]


def cut_into_segments(model: ir.Model, limit: int, states: Mapping[str, str]) -> SegmentedGraph:
    """Cut a graph so that no segment has more weights than `limit`, except where operators that stay together have.

    Args:
        model: lowered to float; taken apart.
        limit: bytes of a segment's weights in float32.
        states: by the name of an input, that of the output which is fed to it in the next run; a segment has both.
    """
    graph = model.graph
    lookups = _take_lookups(model)
    _split_products(graph, limit)
    large = _large_weights(graph)
    order = list(graph)
    parts = _parts(order, _cuts(order, _pairs(graph, states)), large, limit)
    outputs = list(graph.outputs)
    graph.outputs.clear()
    consumers = _consumers(parts)
    for part in parts:
        graph.remove(part)
    segments = []
    for index, part in enumerate(parts):
        made = {value for node in part for value in node.outputs}
        wanted = [value for value in outputs if value in made]
        wanted += [value for value in consumers if value in made and consumers[value] > index and value not in wanted]
        segments.append(_segment(model, part, large, wanted))
    return SegmentedGraph(segments, lookups)


def _take_lookups(model: ir.Model) -> dict[str, torch.Tensor]:
    """Replace what is looked up in large tables by token ids by inputs."""
    graph, tables = model.graph, {}
    for node in nodes(graph, "Gather"):
        table, ids = node.inputs
        is_lookup = ids in graph.inputs and attribute(node, "axis", 0) == 0
        if table is None or not is_lookup or not _is_large(table) or len(pieces_of(table)) != 1:
            continue
        rows = ir.Value(name=f"{node.outputs[0].name}.rows", shape=node.outputs[0].shape, type=node.outputs[0].type)
        rows.type = ir.TensorType(ir.DataType.FLOAT)
        graph.inputs.append(rows)
        tables[str(rows.name)] = pieces_of(table)[0]
        replace(node.outputs[0], rows)
    sweep(model)
    return tables


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    return value.is_initializer() and tensor is not None and tensor.nbytes >= _LARGE


def _split_products(graph: ir.Graph, limit: int) -> None:
    """Make products by a matrix that is beyond the limit from products by some rows each."""
    for node in nodes(graph, "FusedMatMul"):
        x, weight = node.inputs
        tensor = None if weight is None else weight.const_value
        if x is None or weight is None or tensor is None or tensor.nbytes <= limit or not attribute(node, "transB"):
            continue
        rows = max(1, limit // (_FLOAT_BYTES * int(tensor.shape.numpy()[1])))
        results = []
        for part in (part for piece in pieces_of(weight) for part in piece.split(rows)):
            own = add_initializer(graph, f"{weight.name}.part", StackedTensor((part,), None))
            product = insert(graph, node, "FusedMatMul", [x, own], domain=MICROSOFT, attributes={"transB": 1})
            set_type(product.outputs[0], node.outputs[0], [*list(node.outputs[0].shape or [])[:-1], len(part)])
            product.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            results.append(product.outputs[0])
        joined = insert(graph, node, "Concat", results, attributes={"axis": -1})
        replace(node.outputs[0], joined.outputs[0])
        graph.remove(node, safe=True)


def _large_weights(graph: ir.Graph) -> dict[ir.Value, tuple[torch.Tensor, ...]]:
    """Where the large weights are that operators take as inputs."""
    return {
        value: pieces_of(value)
        for value in graph.initializers.values()
        if _is_large(value)
        and not value.is_graph_output()
        and value.dtype == ir.DataType.FLOAT
        and {use.node.op_type for use in value.uses()} <= _READERS
    }


def _pairs(graph: ir.Graph, states: Mapping[str, str]) -> list[tuple[ir.Value, ir.Value]]:
    """The inputs of states, each with the output that follows it."""
    outputs = {value.name: value for value in graph.outputs}
    return [(value, outputs[states[str(value.name)]]) for value in graph.inputs if value.name in states]


def _parts(
    order: list[ir.Node], allowed: list[bool], large: dict[ir.Value, tuple[torch.Tensor, ...]], limit: int
) -> list[list[ir.Node]]:
    """The nodes, in parts; `allowed` says before which a part may begin."""
    parts: list[list[ir.Node]] = [[]]
    held: dict[ir.Value, int] = {}
    for index, node in enumerate(order):
        own = {value: _bytes(large[value]) for value in node.inputs if value in large}
        if parts[-1] and own and allowed[index] and sum((held | own).values()) > limit:
            parts.append([])
            held = {}
        held |= own
        parts[-1].append(node)
    return parts


def _bytes(pieces: Sequence[torch.Tensor]) -> int:
    return sum(piece.numel() for piece in pieces) * _FLOAT_BYTES


def _cuts(order: list[ir.Node], pairs: Sequence[tuple[ir.Value, ir.Value]]) -> list[bool]:
    """Whether the graph may be cut before each node: not where a value of unknown type would become an input.

    Nor between what reads a state and what makes the next one (`pairs`).
    """
    place = {node: index for index, node in enumerate(order)}
    allowed = [True] * len(order)
    for index, node in enumerate(order):
        # What the graphs inside of a node read is not among its inputs.
        if any(item.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for item in node.attributes.values()):
            return [False] * len(order)
        for value in node.outputs:
            last = max((place[use.node] for use in value.uses()), default=index)
            if value.type is None:
                allowed[index + 1 : last + 1] = [False] * (last - index)
    for state, following in pairs:
        places = [place[use.node] for use in state.uses()]
        places += [place[node] for node in [following.producer()] if node is not None]
        allowed[min(places) + 1 : max(places) + 1] = [False] * (max(places) - min(places))
    return allowed


def _consumers(parts: list[list[ir.Node]]) -> dict[ir.Value, int]:
    """By value, the last part that reads it."""
    return {value: index for index, part in enumerate(parts) for node in part for value in node.inputs if value}


def _segment(
    model: ir.Model, part: list[ir.Node], large: dict[ir.Value, tuple[torch.Tensor, ...]], outputs: list[ir.Value]
) -> Segment:
    made = {value for node in part for value in node.outputs}
    own: dict[ir.Value, ir.Value] = {}
    inputs, constants, weights = [], [], {}
    for node in part:
        for place, value in enumerate(node.inputs):
            if value is None or value in made:
                continue
            if value not in own:
                copy = ir.Value(name=value.name, shape=value.shape, type=value.type)
                own[value] = copy
                if value in large:
                    weights[str(value.name)] = large[value]
                if value.const_value is not None and value not in large:
                    copy.const_value = value.const_value
                    constants.append(copy)
                else:
                    inputs.append(copy)
            node.replace_input_with(place, own[value])
    graph = ir.Graph(
        inputs, outputs, nodes=part, initializers=constants, opset_imports=model.graph.opset_imports, name="segment"
    )
    return Segment(ir.Model(graph, ir_version=model.ir_version), weights)
