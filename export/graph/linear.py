"""Represents linear layers as nodes of their own.

`find_linears` turns every product of an activation with a constant matrix into one `triform::Linear(x, weight, bias?)`
node. Its weight has PyTorch's layout, (out_features, in_features), which block quantization needs. `pack_linears`
merges nodes that read the same activation (q, k and v; gate and up). `quantize/` later replaces the nodes by operators
of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import onnx_ir as ir
import torch

from triform.export.graph.nodes import (
    add_initializer,
    attribute,
    insert,
    nodes,
    only_user,
    producer,
    replace,
    set_type,
    sweep,
)
from triform.export.graph.weights import StackedTensor, matrix, pieces_of, same_memory, shape_of

LINEAR = "Linear"
DOMAIN = "triform"
_PARTS = "parts"


def find_linears(model: ir.Model) -> None:
    """Replace each MatMul or Gemm with a constant matrix, and the bias added to it, by a Linear node."""
    graph = model.graph
    for node in nodes(graph, "MatMul", "Gemm"):
        weight = _weight(graph, node)
        if weight is None:
            continue
        x, result, bias = node.inputs[0], node.outputs[0], None
        if node.op_type == "Gemm":
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            x, result = _without_flattening(node)
        else:
            bias, result = _following_bias(result)
        linear = insert(graph, _producer_of(result), LINEAR, [x, weight, bias], domain=DOMAIN)
        replace(result, linear.outputs[0])
    sweep(model)


def _producer_of(value: ir.Value) -> ir.Node:
    node = value.producer()
    if node is None:
        raise ValueError(f"{value.name} is not computed by any node")
    return node


def _is_matrix(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.shape is not None and len(value.shape) == 2


def _weight(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    """The constant matrix of a product, (out_features, in_features); None if there is none."""
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0) != 1 or attribute(node, "transA", 0)):
        return None
    right = node.inputs[1]
    transpose = producer(right, "Transpose")
    if transpose is not None and _is_matrix(transpose.inputs[0]):
        return transpose.inputs[0] if not attribute(node, "transB", 0) else None
    if right is None or not _is_matrix(right):
        return None
    return right if attribute(node, "transB", 0) else _transposed(graph, right)


def _transposed(graph: ir.Graph, value: ir.Value) -> ir.Value:
    name = f"{value.name}.transposed"
    if name not in graph.initializers:
        transposed = add_initializer(graph, name, StackedTensor(tuple(piece.T for piece in pieces_of(value)), name))
        transposed.meta[_PARTS] = parts_of(value)
    return graph.initializers[name]


def _following_bias(product: ir.Value) -> tuple[ir.Value | None, ir.Value]:
    add = only_user(product)
    if add is None or add.op_type != "Add":
        return None, product
    other = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    if other is None or not other.is_initializer() or other.shape is None or len(other.shape) != 1:
        return None, product
    return other, add.outputs[0]


def _without_flattening(gemm: ir.Node) -> tuple[ir.Value, ir.Value]:
    """The input before the Reshape to two dimensions that Gemm needs, and the output after the Reshape back.

    The Gemm's own input and output when there are no such reshapes.
    """
    x, result = gemm.inputs[0], gemm.outputs[0]
    if x is None:
        raise ValueError(f"{gemm.name} has no input")
    before, after = producer(x, "Reshape"), only_user(result)
    if before is None or after is None or after.op_type != "Reshape":
        return x, result
    source, target = before.inputs[0], after.outputs[0]
    if source is None or source.shape is None or target.shape is None:
        return x, result
    if list(source.shape)[:-1] != list(target.shape)[:-1]:
        return x, result
    return source, target


def parts_of(weight: ir.Value) -> tuple[str, ...]:
    """Names of the initializers whose rows, or columns where PyTorch has them transposed, a weight was made of."""
    parts: tuple[str, ...] = weight.meta.get(_PARTS, (str(weight.name),))
    return parts


def pack_linears(model: ir.Model, kind_of: Callable[[ir.Value], Hashable]) -> None:
    """Merge Linear nodes that read the same value into one, followed by a Split.

    Weights are joined along out_features, so every output column keeps its own quantization blocks. Packing changes no
    result; fewer, larger products run faster.

    Args:
        model: changed in place.
        kind_of: of a weight; only those of one kind are joined.
    """
    graph = model.graph
    readers: dict[tuple[int, Hashable], list[ir.Node]] = {}
    for node in nodes(graph, LINEAR):
        readers.setdefault((id(node.inputs[0]), kind_of(_input(node, 1))), []).append(node)
    for group in readers.values():
        if len(group) > 1:
            _merge(graph, group)
    sweep(model)


def _merge(graph: ir.Graph, group: list[ir.Node]) -> None:
    first = group[0]
    sizes = [shape_of(_input(node, 1))[0] for node in group]
    name = _input(first, 1).name
    merged = _joined(graph, f"{name}.packed", [_input(node, 1) for node in group])
    bias = None
    if any(len(node.inputs) > 2 and node.inputs[2] is not None for node in group):
        biases = torch.cat([_bias_or_zeros(node) for node in group])
        bias = add_initializer(graph, f"{name}.packed.bias", biases.numpy())
    joined = insert(graph, first, LINEAR, [first.inputs[0], merged, bias], domain=DOMAIN)
    lengths = add_initializer(graph, f"{name}.packed.split", np.array(sizes))
    split = insert(graph, first, "Split", [joined.outputs[0], lengths], attributes={"axis": -1}, outputs=len(group))
    first_output = first.outputs[0]
    if first_output.shape is not None:
        set_type(joined.outputs[0], first_output, [*list(first_output.shape)[:-1], sum(sizes)])
    for node, output in zip(group, split.outputs, strict=True):
        replace(node.outputs[0], output)


def _joined(graph: ir.Graph, name: str, weights: list[ir.Value]) -> ir.Value:
    """The rows of several weights as one; layers that share their weights (ALBERT) share this one too."""
    parts = tuple(part for weight in weights for part in parts_of(weight))
    pieces = tuple(piece for weight in weights for piece in pieces_of(weight))
    present = graph.initializers.get(name)
    if present is not None and parts_of(present) == parts and same_memory(pieces_of(present), pieces):
        return present
    joined = add_initializer(graph, name, StackedTensor(pieces, name))
    joined.meta[_PARTS] = parts
    return joined


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"{node.name} has no input {index}")
    return value


def _bias_or_zeros(node: ir.Node) -> torch.Tensor:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return torch.zeros(shape_of(_input(node, 1))[0]) if bias is None else matrix(bias)
