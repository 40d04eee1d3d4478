"""Makes the floats of a graph 16 bits wide, and keeps in float32 what 16 bits would ruin.

Squares overflow float16 from 256 on, the epsilon of a norm vanishes in it, and positions above 2,048 are rounded.
PyTorch's models compute such parts in float32 whatever the type of their weights; so does the graph.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from triform.export.graph.linear import matrix
from triform.export.graph.nodes import attribute, insert, sweep
from triform.runtime.bundle.manifest import GpuDtype

_TYPES = {"float16": (ir.DataType.FLOAT16, torch.float16), "bfloat16": (ir.DataType.BFLOAT16, torch.bfloat16)}
# Their results overflow or underflow in 16 bits, or lose more digits than a product does.
_WIDE = {
    "Pow", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Sqrt", "Reciprocal", "Exp", "Log", "Softplus",
    "Sin", "Cos", "CumSum", "Range",
}  # fmt: skip
_ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Neg", "Max", "Min", "Clip"}
# What computes from wide values alone stays wide, if it is one of these.
_BETWEEN = {*_ARITHMETIC, "MatMul", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Concat", "Expand", "Slice"}
# By operator, the inputs that are float32 whatever the others are.
_FLOAT_INPUTS = {"Resize": (1, 2)}
# Prefixes of the inputs and outputs that have 16 bits, too: keys and values. Those that an encoder computes for its
# decoder never leave the device either.
CACHE = ("past_key_values.", "present.", "cross_key_values.")


def to_half(model: ir.Model, dtype: GpuDtype) -> None:
    """Make every float32 of a graph 16 bits wide.

    Inputs and outputs stay float32, except for keys and values. Constants beyond the range, such as masks of -3e38,
    become its ends.

    Args:
        model: changed in place; its operators are those of ONNX Runtime.
        dtype: of the 16 bits.
    """
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    graph, narrow = model.graph, _TYPES[dtype][0]
    wide = _wide_nodes(graph)
    for value in [*graph.inputs, *graph.outputs]:
        if _is_float(value) and not str(value.name).startswith(CACHE):
            _cast_outside(graph, value, narrow)
    for initializer in list(graph.initializers.values()):
        if _is_float(initializer):
            _narrow_constant(graph, initializer, wide, dtype)
    for node in list(graph):
        if node in wide:
            _widen(graph, node, wide, narrow)
        else:
            _narrow_node(node, narrow)
    for value in [*graph.inputs, *graph.outputs]:
        if _is_float(value) and str(value.name).startswith(CACHE):
            value.type = ir.TensorType(narrow)
    sweep(model)


def round_constants(model: ir.Model, dtype: GpuDtype) -> None:
    """Round every float32 constant as `to_half` does, and leave it in float32."""
    for value in model.graph.initializers.values():
        if _is_float(value):
            rounded = _rounded(value, dtype).float().numpy()
            value.const_value = ir.tensor(rounded, name=str(value.name))


def _rounded(value: ir.Value, dtype: GpuDtype) -> torch.Tensor:
    narrow = _TYPES[dtype][1]
    top = torch.finfo(narrow).max
    return matrix(value).clamp(-top, top).to(narrow)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _wide_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that stay in float32."""
    sources: set[ir.Node] = set()
    joins: set[ir.Node] = set()
    for node in graph:
        if not any(map(_is_float, node.outputs)):
            continue
        from_wide = [value.producer() in sources for value in node.inputs if value is not None and _is_computed(value)]
        if node.op_type in _WIDE or _counts(node) or (node.op_type in _BETWEEN and from_wide and all(from_wide)):
            sources.add(node)
        elif node.op_type in _ARITHMETIC and any(from_wide):
            joins.add(node)
    return sources | joins


def _is_computed(value: ir.Value) -> bool:
    """Whether a value is a float that is no constant."""
    return _is_float(value) and not value.is_initializer()


def _counts(node: ir.Node) -> bool:
    """Whether a node makes floats of integers, such as positions."""
    source = node.inputs[0] if node.op_type == "Cast" else None
    return source is not None and source.dtype is not None and source.dtype.is_integer()


def _cast_outside(graph: ir.Graph, value: ir.Value, narrow: ir.DataType) -> None:
    """Keep an input or output in float32, with a Cast between it and the graph."""
    if value.is_graph_input():
        first = next(iter(graph))
        inner = insert(graph, first, "Cast", [value], attributes={"to": narrow}).outputs[0]
        inner.type, inner.shape = ir.TensorType(narrow), value.shape
        for use in [use for use in value.uses() if use.node is not inner.producer()]:
            use.node.replace_input_with(use.idx, inner)
        return
    outer = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
    graph.append(outer)
    result, name = outer.outputs[0], value.name
    result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    graph.outputs[list(graph.outputs).index(value)] = result
    value.name, result.name = f"{name}.half", name


def _narrow_constant(graph: ir.Graph, value: ir.Value, wide: set[ir.Node], dtype: GpuDtype) -> None:
    """Store a constant in 16 bits; beside it in float32 for wide nodes, or only so if no others read it."""
    readers = [use for use in value.uses() if use.node not in wide and use.idx not in _float_inputs(use.node)]
    if not readers:
        return
    narrow, numbers = _TYPES[dtype][0], _rounded(value, dtype)
    array = numbers.numpy() if dtype == "float16" else numbers
    name = str(value.name)
    if len(readers) < len(list(value.uses())):
        halved = ir.Value(name=f"{name}.half", shape=value.shape)
        halved.const_value, halved.type = ir.tensor(array, name=halved.name), ir.TensorType(narrow)
        graph.register_initializer(halved)
        for use in readers:
            use.node.replace_input_with(use.idx, halved)
        return
    value.const_value, value.type = ir.tensor(array, name=name), ir.TensorType(narrow)


def _float_inputs(node: ir.Node) -> tuple[int, ...]:
    return _FLOAT_INPUTS.get(node.op_type, ())


def _widen(graph: ir.Graph, node: ir.Node, wide: set[ir.Node], narrow: ir.DataType) -> None:
    """Give a wide node float32 inputs, and those of its readers that are narrow 16 bits."""
    for index, value in enumerate(node.inputs):
        if value is not None and value.dtype == narrow:
            cast = insert(graph, node, "Cast", [value], attributes={"to": ir.DataType.FLOAT}).outputs[0]
            cast.type, cast.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
            node.replace_input_with(index, cast)
    for output in node.outputs:
        readers = [use for use in output.uses() if use.node not in wide]
        if not _is_float(output) or not readers:
            continue
        cast_node = ir.node("Cast", [output], {"to": narrow})
        graph.insert_after(node, [cast_node])
        cast_node.outputs[0].type, cast_node.outputs[0].shape = ir.TensorType(narrow), output.shape
        for use in readers:
            use.node.replace_input_with(use.idx, cast_node.outputs[0])


def _narrow_node(node: ir.Node, narrow: ir.DataType) -> None:
    if node.op_type == "Cast" and attribute(node, "to") == ir.DataType.FLOAT and not _leaves(node):
        node.attributes["to"] = ir.AttrInt64("to", int(narrow))
    if node.op_type == "ConstantOfShape":
        filled = attribute(node, "value")
        if filled is None or filled.dtype == ir.DataType.FLOAT:
            number = np.zeros(1, np.float32) if filled is None else filled.numpy()
            numbers = torch.from_numpy(np.array(number)).to(
                torch.float16 if narrow == ir.DataType.FLOAT16 else torch.bfloat16
            )
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(numbers))
    if not _leaves(node):
        for output in node.outputs:
            if _is_float(output):
                output.type = ir.TensorType(narrow)


def _leaves(node: ir.Node) -> bool:
    """Whether a node gives an output of the graph that stays in float32."""
    return (
        any(output.is_graph_output() and not str(output.name).startswith(CACHE) for output in node.outputs)
        and node.op_type == "Cast"
    )
