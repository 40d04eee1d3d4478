"""Makes the floats of a graph 16 bits wide, and keeps in float32 what 16 bits would ruin.

Squares overflow float16 from 256 on, the epsilon of a norm vanishes in it, and positions above 2,048 are rounded.
PyTorch's models compute such parts in float32 whatever the type of their weights; so does the graph. Parts without a
CUDA kernel for the type stay in float32 too. `twin.py` says what the graph computes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from triform.export.graph.nodes import attribute, insert, nodes, replace, sweep
from triform.export.graph.weights import matrix
from triform.runtime.bundle.manifest import GpuDtype
from triform.runtime.errors import ExportError, option

TYPES = {"float16": (ir.DataType.FLOAT16, torch.float16), "bfloat16": (ir.DataType.BFLOAT16, torch.bfloat16)}
# Their results overflow or underflow in 16 bits, or lose more digits than a product does; or CUDA has no kernel.
_WIDE = {
    "Pow", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "Sqrt", "Reciprocal", "Exp", "Log", "Softplus",
    "Sin", "Cos", "CumSum", "Range", "GridSample", "RoiAlign", "ScatterElements",
}  # fmt: skip
# The operators with a CUDA kernel for bfloat16, by docs/OperatorKernels.md of ONNX Runtime; others stay in float32.
_IN_BFLOAT16 = {
    "Add", "Sub", "Mul", "Div", "Neg", "Max", "Min", "Cast", "Concat", "ConstantOfShape", "Erf", "Exp", "Expand",
    "Flatten", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "Identity", "LayerNormalization", "MatMul",
    "Relu", "Reshape", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign", "SimplifiedLayerNormalization",
    "Size", "Slice", "Softmax", "Split", "Squeeze", "Sum", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
    "BiasGelu", "FastGelu", "FusedMatMul", "GatherBlockQuantized", "GroupQueryAttention", "MatMulNBits", "MoE", "QMoE",
    "MultiHeadAttention", "QuickGelu", "RotaryEmbedding", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
}  # fmt: skip
_ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Neg", "Max", "Min", "Clip"}
# What computes from wide values alone stays wide, if it is one of these.
_BETWEEN = {
    *_ARITHMETIC, "Floor", "Ceil", "Round", "Mod", "MatMul", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Concat",
    "Expand", "Slice",
}  # fmt: skip
# Their results have a type of their own; those of others have that of what they compute with.
_OTHER_TYPES = {
    "Shape", "Size", "NonZero", "ArgMax", "ArgMin", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not",
    "And", "Or", "Xor", "IsNaN", "IsInf", "Cast", "Range", "ConstantOfShape", "OneHot", "If", "Loop", "Scan",
}  # fmt: skip
# By operator, the inputs that are float32 whatever the others are.
_FLOAT_INPUTS = {"Resize": (1, 2)}
# Numbers that stand for minus infinity in masks have this size at least; they end up in 16 bits somewhere.
_MASKED = 1e30
# What reads weights, and no masks.
_OF_WEIGHTS = ("Gather", "MatMul", "Gemm", "Conv")
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
    graph, narrow = model.graph, TYPES[dtype][0]
    _complete_types(graph)
    wide = _wide_nodes(graph, dtype)
    _keep_outside(graph, wide, narrow)
    for initializer in list(graph.initializers.values()):
        if _is_float(initializer):
            _narrow_constant(graph, initializer, wide, dtype)
    for node in list(graph):
        if node in wide:
            _widen(graph, node, wide, narrow)
        else:
            _narrow_node(node, dtype)
    for value in [*graph.inputs, *graph.outputs]:
        if _is_float(value) and _is_cache(value):
            value.type = ir.TensorType(narrow)
    _share_casts(model)
    sweep(model)


def _rounded(value: ir.Value, dtype: GpuDtype) -> torch.Tensor:
    narrow = TYPES[dtype][1]
    top = torch.finfo(narrow).max
    return matrix(value).clamp(-top, top).to(narrow)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _is_cache(value: ir.Value) -> bool:
    return str(value.name).startswith(CACHE)


def _complete_types(graph: ir.Graph) -> None:
    """Find the types of values that tracing left without one; a float among them would be taken for something else."""
    for node in graph:
        sources = node.inputs[1:2] if node.op_type == "Where" else node.inputs
        known = next((value.type for value in sources if value is not None and value.type is not None), None)
        for output in node.outputs:
            if output.type is None and output.uses() and node.op_type == "Cast":
                output.type = ir.TensorType(ir.DataType(attribute(node, "to")))
            elif output.type is None and output.uses() and node.op_type not in _OTHER_TYPES:
                output.type = known


def _wide_nodes(graph: ir.Graph, dtype: GpuDtype) -> set[ir.Node]:
    """The nodes that stay in float32."""
    sources: set[ir.Node] = set()
    joins: set[ir.Node] = set()
    for node in graph:
        if not any(map(_is_float, node.outputs)):
            continue
        from_wide = [value.producer() in sources for value in node.inputs if value is not None and _is_computed(value)]
        between = node.op_type in _BETWEEN and bool(from_wide) and all(from_wide)
        if between or _must_be_wide(node, dtype):
            sources.add(node)
        elif node.op_type in _ARITHMETIC and any(from_wide):
            joins.add(node)
    return sources | joins


def _must_be_wide(node: ir.Node, dtype: GpuDtype) -> bool:
    if dtype == "bfloat16" and node.op_type not in _IN_BFLOAT16:
        return True
    return node.op_type in _WIDE or _counts(node) or _squares(node) or _has_vanishing_constant(node, dtype)


def _is_computed(value: ir.Value) -> bool:
    """Whether a value is a float that is no constant."""
    return _is_float(value) and not value.is_initializer()


def _counts(node: ir.Node) -> bool:
    """Whether a node makes floats of integers, such as positions."""
    source = node.inputs[0] if node.op_type == "Cast" else None
    return source is not None and source.dtype is not None and source.dtype.is_integer()


def _squares(node: ir.Node) -> bool:
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def _has_vanishing_constant(node: ir.Node, dtype: GpuDtype) -> bool:
    """Whether a constant of an addition, a product or a bound, such as an epsilon, would become zero."""
    if node.op_type not in _ARITHMETIC:
        return False
    for value in node.inputs:
        if value is not None and value.is_initializer() and _is_float(value) and _is_scalar(value):
            number = matrix(value).float()
            if bool(((number != 0) & (number.to(TYPES[dtype][1]) == 0)).any()):
                return True
    return False


def _is_scalar(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size == 1


def _keep_outside(graph: ir.Graph, wide: set[ir.Node], narrow: ir.DataType) -> None:
    """Keep the graph's inputs and outputs in float32, but for keys and values."""
    for value in list(graph.inputs):
        if _is_float(value) and not _is_cache(value):
            _cast_input(graph, value, wide, narrow)
    for value in list(graph.outputs):
        if _is_float(value) and not _is_cache(value) and value.producer() not in wide:
            _cast_output(graph, value)


def _cast_input(graph: ir.Graph, value: ir.Value, wide: set[ir.Node], narrow: ir.DataType) -> None:
    """Keep an input in float32, with a Cast between it and its narrow readers."""
    readers = _narrow_readers(value, wide)
    if not readers:
        return
    inner = insert(graph, next(iter(graph)), "Cast", [value], attributes={"to": narrow}).outputs[0]
    inner.type, inner.shape = ir.TensorType(narrow), value.shape
    for reader, place in readers:
        reader.replace_input_with(place, inner)


def _cast_output(graph: ir.Graph, value: ir.Value) -> None:
    """Keep an output that is computed in 16 bits in float32, with a Cast between it and the graph."""
    outer, source = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}), value.producer()
    if source is None:
        graph.append(outer)
    else:
        graph.insert_after(source, [outer])
    result, name = outer.outputs[0], value.name
    result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    graph.outputs[list(graph.outputs).index(value)] = result
    value.name, result.name = f"{name}.half", name


def _narrow_readers(value: ir.Value, wide: set[ir.Node]) -> list[tuple[ir.Node, int]]:
    """The nodes that read a value in 16 bits, each with the place of that input."""
    return [
        (use.node, use.idx) for use in value.uses() if use.node not in wide and use.idx not in _float_inputs(use.node)
    ]


def _narrow_constant(graph: ir.Graph, value: ir.Value, wide: set[ir.Node], dtype: GpuDtype) -> None:
    """Store a constant in 16 bits; beside it in float32 for wide nodes, or only so if no others read it."""
    readers = _narrow_readers(value, wide)
    if any(node.op_type in _OF_WEIGHTS for node, _ in readers):
        _check_holds(value, dtype)
    if len(readers) == len(list(value.uses())):
        _fill(value, _rounded(value, dtype), dtype)
        return
    if readers:
        halved = ir.Value(name=f"{value.name}.half", shape=value.shape)
        _fill(halved, _rounded(value, dtype), dtype)
        graph.register_initializer(halved)
        for reader, place in readers:
            reader.replace_input_with(place, halved)
    numbers = matrix(value)
    if bool((numbers.abs() >= _MASKED).any()):
        top = torch.finfo(TYPES[dtype][1]).max
        value.const_value = ir.tensor(numbers.clamp(-top, top), name=value.name)


def _check_holds(value: ir.Value, dtype: GpuDtype) -> None:
    """Refuse a weight that 16 bits would change: of a row that no sample has, no comparison would show it.

    Constants of other nodes may be masks, which are as good as their largest number.
    """
    largest = float(matrix(value).abs().max()) if value.shape and 0 not in value.shape else 0.0
    if torch.finfo(TYPES[dtype][1]).max < largest < _MASKED:
        raise ExportError(
            f"{value.name} has numbers of up to {largest:.3g}, which {dtype} cannot hold; export with "
            f"{option('dtype')} bfloat16"
        )


def _fill(value: ir.Value, numbers: torch.Tensor, dtype: GpuDtype) -> None:
    """Give a constant its numbers in 16 bits."""
    value.const_value = ir.tensor(numbers.numpy() if dtype == "float16" else numbers, name=value.name)
    value.type = ir.TensorType(TYPES[dtype][0])


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
        readers = _narrow_readers(output, wide)
        if not _is_float(output) or not readers:
            continue
        cast_node = ir.node("Cast", [output], {"to": narrow})
        graph.insert_after(node, [cast_node])
        cast_node.outputs[0].type, cast_node.outputs[0].shape = ir.TensorType(narrow), output.shape
        for reader, place in readers:
            reader.replace_input_with(place, cast_node.outputs[0])


def _narrow_node(node: ir.Node, dtype: GpuDtype) -> None:
    narrow, torch_dtype = TYPES[dtype]
    leaves = _leaves(node)
    if node.op_type == "Cast" and attribute(node, "to") == ir.DataType.FLOAT and not leaves:
        node.attributes["to"] = ir.AttrInt64("to", int(narrow))
    if node.op_type == "ConstantOfShape":
        filled = attribute(node, "value")
        if filled is None or filled.dtype == ir.DataType.FLOAT:
            number = np.zeros(1, np.float32) if filled is None else filled.numpy()
            top = torch.finfo(torch_dtype).max
            numbers = torch.from_numpy(np.array(number)).clamp(-top, top).to(torch_dtype)
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(numbers))
    for output in node.outputs:
        if _is_float(output) and not leaves:
            output.type = ir.TensorType(narrow)


def _leaves(node: ir.Node) -> bool:
    """Whether a node gives an output of the graph that stays in float32."""
    return node.op_type == "Cast" and any(output.is_graph_output() and not _is_cache(output) for output in node.outputs)


def _share_casts(model: ir.Model) -> None:
    """Convert each value to a type once, however many read it."""
    first: dict[tuple[ir.Value, int], ir.Value] = {}
    for node in nodes(model.graph, "Cast"):
        source, output = node.inputs[0], node.outputs[0]
        if source is None:
            continue
        shared = first.setdefault((source, int(attribute(node, "to"))), output)
        if shared is not output and not output.is_graph_output():
            replace(output, shared)
