"""Writes what a graph of 16-bit floats computes as a graph of float32, which a CPU can run.

ONNX Runtime's CPU provider has no kernels for bfloat16, and computes chains of float16 operators in float32 without
rounding what lies between them, so that nothing overflows there. The twin rounds each result, as a GPU does.
"""

from __future__ import annotations

import math

import onnx_ir as ir
import torch

from triform.export.gpu.half import TYPES
from triform.export.graph.nodes import attribute
from triform.export.graph.weights import matrix
from triform.runtime.bundle.manifest import GpuDtype

_BITS = {"float16": 11, "bfloat16": 8}
_AMPLIFIED = 4
# They move numbers; there is nothing to round.
_MOVES = {
    "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad", "Reshape", "Slice",
    "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
}  # fmt: skip


def rounded_twin(model: ir.Model, dtype: GpuDtype) -> ir.Model:
    """A graph of float32 whose every result is rounded to `dtype` where the model's is.

    Args:
        model: from `to_half`; stays as it is.
        dtype: of its 16 bits.
    """
    twin = model.clone()
    graph, narrow = twin.graph, TYPES[dtype][0]
    for value in [*graph.inputs, *graph.initializers.values()]:
        if value.dtype == narrow:
            _widen_value(value)
    for node in list(graph):
        if node.op_type == "ConstantOfShape":
            _widen_filling(node, narrow)
        for output in node.outputs:
            if output.dtype == narrow:
                _round(graph, node, output, narrow)
    return twin


def allowed_error(operators: int, dtype: GpuDtype) -> float:
    """The largest error of an output that rounding explains, as a share of the largest output.

    A number of 11 bits (float16) or 8 bits (bfloat16) is off by at most 2^-11 or 2^-8 of itself. Errors of several
    roundings are independent, and add up as the root of their number. A model amplifies some; four times are allowed.

    Args:
        operators: of the graph; each rounds, as if all were on one path.
        dtype: what it rounds to.
    """
    return float(_AMPLIFIED * 2.0 ** -_BITS[dtype] * math.sqrt(operators))


def _widen_value(value: ir.Value) -> None:
    if value.const_value is not None:
        value.const_value = ir.tensor(matrix(value).to(torch.float32), name=value.name)
    value.type = ir.TensorType(ir.DataType.FLOAT)


def _widen_filling(node: ir.Node, narrow: ir.DataType) -> None:
    filled = attribute(node, "value")
    if filled is not None and filled.dtype == narrow:
        number = matrix(ir.Value(name="filled", const_value=filled)).to(torch.float32)
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(number))


def _round(graph: ir.Graph, node: ir.Node, output: ir.Value, narrow: ir.DataType) -> None:
    """Round an output to 16 bits for all its readers, and give it back as float32."""
    is_cast = node.op_type == "Cast"
    if node.op_type in _MOVES or output.is_graph_output():
        output.type = ir.TensorType(ir.DataType.FLOAT)
        return
    after, rounded = node, output
    if not is_cast:
        output.type = ir.TensorType(ir.DataType.FLOAT)
        after = ir.node("Cast", [output], {"to": narrow})
        graph.insert_after(node, [after])
        rounded = after.outputs[0]
    back = ir.node("Cast", [rounded], {"to": ir.DataType.FLOAT})
    graph.insert_after(after, [back])
    result = back.outputs[0]
    result.type, result.shape = ir.TensorType(ir.DataType.FLOAT), output.shape
    for use in list(output.uses()):
        if use.node not in (after, back):
            use.node.replace_input_with(use.idx, result)
