"""Moves part of the range of large channels out of activations, into the weights of the products that read them.

The operators round each block of activations to 8 bits, so that one large channel leaves few steps for the others of
its block; and a weight that multiplies a large channel should be rounded more finely than its neighbours. Where a norm,
or a product, gives the activations, its own numbers are divided by a factor for each channel, and the columns of the
weights that read them are multiplied by it. The graph computes the same, in as many steps (SmoothQuant,
arXiv:2211.10438; AWQ, arXiv:2306.00978).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch

from triform.export.graph.experts import EXPERTS
from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import add_initializer, attribute, constant, nodes, only_user, producer
from triform.export.graph.weights import matrix, scale_matrix, shape_of
from triform.export.quantize.blocks import linear_inputs

# The power of a channel's typical size that it is divided by. See docs/quantization.md for what others gave.
_STRENGTH = 0.35
# The smallest typical size that counts, as a share of the mean.
_FLOOR = 1e-3
# Where norms have what their result is multiplied by, and what is added after that.
_NORMS = {
    "SimplifiedLayerNormalization": (1,),
    "SkipSimplifiedLayerNormalization": (2,),
    "LayerNormalization": (1, 2),
    "SkipLayerNormalization": (2, 3),
}
# These choose rows, or change the shape.
_OF_ROWS = ("Gather", "GatherND", "Reshape", "Slice", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class _Reach:
    """What reads an activation.

    Attributes:
        weights: of the products, and the first ones of experts.
        tables: lookups in the matrices of these products.
    """

    weights: list[ir.Value]
    tables: list[ir.Node]


def smooth_channels(model: ir.Model, energies: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Make the channels of activations more alike wherever that costs no operator.

    Args:
        model: fused, its Linear nodes not lowered yet; changed in place.
        energies: by weight name, the energy of each input channel, float32 (in_features,); see `energies`. Weights
            without any stay as they are.

    Returns:
        the energies in the changed graph.
    """
    known = dict(energies)
    for node in nodes(model.graph, *_NORMS, "Mul"):
        reach = _reach(node.outputs[0])
        if reach is None or not all(str(weight.name) in known for weight in reach.weights):
            continue
        factors = _factors(known[str(reach.weights[0].name)])
        if not _divide(model.graph, node, factors, known):
            continue
        for weight in reach.weights:
            _multiply(weight, factors)
            known[str(weight.name)] = known[str(weight.name)] / factors.square()
        for table in reach.tables:
            _divide_rows(model.graph, table, factors)
    return known


def _reach(value: ir.Value) -> _Reach | None:
    """What reads an activation; None if anything but products of matrices of their own does."""
    readers = _readers(value)
    if not readers:
        return None
    weights = list(dict.fromkeys(_weight(node) for node in readers))
    users = [use.node for weight in weights for use in weight.uses()]
    tables = [node for node in users if node not in readers]
    return _Reach(weights, tables) if all(_is_lookup(node) for node in tables) else None


def _readers(value: ir.Value) -> list[ir.Node] | None:
    """The products and experts that read a value, or some of its rows; None if others do."""
    if value.is_graph_output():
        return None
    found: list[ir.Node] = []
    for use in value.uses():
        if use.node.op_type in (LINEAR, EXPERTS) and use.idx == 0:
            found.append(use.node)
        elif use.node.op_type in _OF_ROWS and use.idx == 0 and _keeps_channels(use.node):
            behind = _readers(use.node.outputs[0])
            if behind is None:
                return None
            found.extend(behind)
        else:
            return None
    return found


def _weight(reader: ir.Node) -> ir.Value:
    """What a reader multiplies an activation by."""
    weight = reader.inputs[1 if reader.op_type == LINEAR else 2]
    if weight is None:
        raise ValueError(f"{reader.op_type} node {reader.name} lacks its weight")
    return weight


def _multiply(weight: ir.Value, factors: torch.Tensor) -> None:
    """Multiply what a weight reads of each channel."""
    reader = next(use.node for use in weight.uses() if use.node.op_type in (LINEAR, EXPERTS))
    if reader.op_type == LINEAR:
        scale_matrix(weight, columns=factors)
        return
    scaled = matrix(weight) * (factors[:, None] if attribute(reader, "transposed") else factors)
    weight.const_value = ir.tensor(scaled.numpy(), name=weight.name)


def _keeps_channels(node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or result.shape is None or len(result.shape) == 0:
        return False
    along = attribute(node, "axis", 0) % len(source.shape) if node.op_type == "Gather" else 0
    last = source.shape[-1]
    return isinstance(last, int) and last == result.shape[-1] and along != len(source.shape) - 1


def _is_lookup(node: ir.Node) -> bool:
    return node.op_type == "Gather" and attribute(node, "axis", 0) == 0 and not node.outputs[0].is_graph_output()


def _factors(energy: torch.Tensor) -> torch.Tensor:
    """What each channel is divided by, float32 (in_features,)."""
    typical = (energy / energy.mean().clamp(min=1e-30)).sqrt().clamp(min=_FLOOR)
    factors = typical**_STRENGTH
    return factors / factors.log().mean().exp()


def _divide(graph: ir.Graph, node: ir.Node, factors: torch.Tensor, known: Container[str]) -> bool:
    """Divide the channels of what a node gives; false if its inputs are not constants or a product of its own."""
    if node.op_type == "Mul":
        return _divide_constants(graph, node, _vectors(node), factors) or _divide_product(graph, node, factors, known)
    inputs = [index for index in _NORMS[node.op_type] if index < len(node.inputs) and node.inputs[index] is not None]
    return _divide_constants(graph, node, inputs, factors)


def _vectors(node: ir.Node) -> list[int]:
    """The input of a Mul that is a constant vector, as where a norm is made of several operators."""
    return [
        index
        for index, value in enumerate(node.inputs)
        if value is not None and value.is_initializer() and len(shape_of(value)) == 1
    ][:1]


def _divide_constants(graph: ir.Graph, node: ir.Node, inputs: list[int], factors: torch.Tensor) -> bool:
    values = [node.inputs[index] for index in inputs]
    if not values or not all(
        value is not None and value.is_initializer() and shape_of(value) == factors.shape for value in values
    ):
        return False
    for index in inputs:
        _divide_input(graph, node, index, factors)
    return True


def _divide_input(graph: ir.Graph, node: ir.Node, index: int, divisors: torch.Tensor) -> None:
    """Divide a constant vector that a node reads; other nodes may read the same one, which stays."""
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"{node.name} has no input {index}")
    smoothed = (matrix(value).float() / divisors).numpy()
    node.replace_input_with(index, add_initializer(graph, f"{value.name}.smoothed", smoothed))


def _divide_product(graph: ir.Graph, node: ir.Node, factors: torch.Tensor, known: Container[str]) -> bool:
    """Divide the rows of a matrix whose product a Mul multiplies by something else, such as a gate."""
    for value in node.inputs:
        linear, rows = _own_product(value)
        if linear is None or len(rows) != len(factors):
            continue
        _, weight, bias = linear_inputs(linear)
        if len(weight.uses()) > 1 or str(weight.name) not in known:
            continue
        divisors = torch.ones(shape_of(weight)[0])
        divisors[rows.start : rows.stop] = factors
        scale_matrix(weight, rows=1 / divisors)
        if bias is not None:
            _divide_input(graph, linear, 2, divisors)
        return True
    return False


def _own_product(value: ir.Value | None) -> tuple[ir.Node | None, range]:
    """The Linear that gives a value, or part of what is split, to one reader alone, and the rows of its matrix."""
    if value is None or only_user(value) is None:
        return None, range(0)
    split = producer(value, "Split")
    if split is None:
        linear = producer(value, LINEAR)
        return linear, range(0 if linear is None else shape_of(linear_inputs(linear)[1])[0])
    whole, lengths = split.inputs[0], constant(split.inputs[1] if len(split.inputs) > 1 else None)
    if whole is None or lengths is None or only_user(whole) is None or not _is_last(attribute(split, "axis", 0), whole):
        return None, range(0)
    index = split.outputs.index(value)
    start = int(lengths[:index].sum())
    return producer(whole, LINEAR), range(start, start + int(lengths[index]))


def _is_last(axis: int, value: ir.Value) -> bool:
    return axis == -1 or (value.shape is not None and axis == len(value.shape) - 1)


def _divide_rows(graph: ir.Graph, lookup: ir.Node, factors: torch.Tensor) -> None:
    """Divide the channels of rows that are looked up in a matrix whose columns were multiplied."""
    rows = lookup.outputs[0]
    users = list(rows.uses())
    inverse = add_initializer(graph, f"{rows.name}.smoothed", (1 / factors).numpy())
    divided = ir.node("Mul", [rows, inverse])
    divided.outputs[0].type, divided.outputs[0].shape = rows.type, rows.shape
    graph.insert_after(lookup, [divided])
    for use in users:
        use.node.replace_input_with(use.idx, divided.outputs[0])
