"""Turns a decoder's graph into one that a GPU runs without the host: docs/bundle.md describes the result.

On CUDA, ONNX Runtime computes lengths and shapes on the host. So lengths come from outside, positions are counted on
the device, and the likeliest token is chosen in the graph: a step then needs a few numbers from the host, gives a few
back, and can be recorded as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from triform.export.gpu.half import to_half
from triform.export.graph.nodes import add_initializer, attribute, constant, insert, nodes, set_type, sweep
from triform.models.errors import UnsupportedModelError
from triform.runtime.bundle.manifest import GpuDtype

# Inputs of GroupQueryAttention.
_SEQLENS, _TOTAL, _BIAS = 5, 6, 10
# The widest heads that CUDA's attention takes.
_WIDEST_HEAD = 256


def check_gpu_decoder(model: ir.Model) -> None:
    """Refuse a graph with attention that ONNX Runtime has no CUDA kernel for.

    Raises:
        UnsupportedModelError: it says which.
    """
    for node in nodes(model.graph, "GroupQueryAttention"):
        if len(node.inputs) > _BIAS and node.inputs[_BIAS] is not None:
            raise UnsupportedModelError(
                "its attention adds a bias to the scores (ALiBi or relative positions), for which ONNX Runtime has no "
                "kernel on GPUs"
            )
        past = node.inputs[3]
        width = None if past is None or past.shape is None else past.shape[3]
        if isinstance(width, int) and width > _WIDEST_HEAD:
            raise UnsupportedModelError(
                f"its heads are {width} wide; on GPUs ONNX Runtime's attention takes up to {_WIDEST_HEAD}"
            )
    if nodes(model.graph, "TopK"):
        # Where two experts are about as good, rounding decides; and their operators were not tried on a GPU.
        raise UnsupportedModelError("it chooses among experts, which bundles for GPUs do not have yet")
    if any(str(value.name).startswith("past_states.") for value in model.graph.inputs):
        raise UnsupportedModelError("it has states of fixed size, which bundles for GPUs do not have yet")


def to_gpu_decoder(model: ir.Model, dtype: GpuDtype) -> None:
    """Make a decoder's graph one for GPUs.

    Args:
        model: checked by `check_gpu_decoder`; changed in place. Its products are those of ONNX Runtime.
        dtype: of activations, keys and values.
    """
    lengths_outside(model)
    to_half(model, dtype)
    choose_inside(model.graph)


def lengths_outside(model: ir.Model) -> None:
    """Take from outside what is computed from lengths: see docs/bundle.md."""
    graph = model.graph
    _undo_additions(graph)
    attention = nodes(graph, "GroupQueryAttention")[0]
    for place, name, shape in ((_SEQLENS, "seqlens_k", ["batch"]), (_TOTAL, "total_sequence_length", [1])):
        value = _input(name, ir.DataType.INT32, shape)
        graph.inputs.append(value)
        ir.convenience.replace_all_uses_with(_required(attention, place), value)
    _count_on_the_device(graph)
    _pick_rows(graph)
    sweep(model)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)


def _undo_additions(graph: ir.Graph) -> None:
    """Replace (a + b) - b by a: some models compute the past length so from the whole, which CUDA does on the host."""
    for node in nodes(graph, "Sub"):
        total, taken = node.inputs
        added = None if total is None else total.producer()
        if added is not None and added.op_type == "Add" and _same(added.inputs[1], taken):
            ir.convenience.replace_all_uses_with(node.outputs[0], _required(added, 0))


def _same(first: ir.Value | None, second: ir.Value | None) -> bool:
    """Whether two values are computed alike."""
    if first is None or second is None or first is second:
        return first is second
    one, other = first.producer(), second.producer()
    if one is None or other is None or one.op_type != other.op_type or len(one.inputs) != len(other.inputs):
        return False
    alike = dict(one.attributes) == dict(other.attributes) and first.index() == second.index()
    return alike and all(_same(*pair) for pair in zip(one.inputs, other.inputs, strict=True))


def _input(name: str, dtype: ir.DataType, shape: Sequence[str | int]) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def _required(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    if value is None:
        raise ValueError(f"{node.name} has no input {place}")
    return value


def _count_on_the_device(graph: ir.Graph) -> None:
    """Replace each count 0, 1, … up to a length by a sum of ones, which CUDA computes; it has no Range."""
    for node in nodes(graph, "Range"):
        start, limit, step = node.inputs[0], node.inputs[1], node.inputs[2]
        if limit is None or constant(limit) is not None or not (_is(start, 0) and _is(step, 1)):
            continue
        one = add_initializer(graph, "count.shape", np.array([1]))
        shape = insert(graph, node, "Reshape", [limit, one])
        ones = insert(
            graph, node, "ConstantOfShape", shape.outputs, attributes={"value": ir.tensor(np.ones(1, np.int64))}
        )
        axis = add_initializer(graph, "count.axis", np.array(0))
        counted = insert(graph, node, "CumSum", [ones.outputs[0], axis], attributes={"exclusive": 1})
        for value, size in ((shape.outputs[0], [1]), (ones.outputs[0], [None]), (counted.outputs[0], [None])):
            set_type(value, node.outputs[0], size)
        ir.convenience.replace_all_uses_with(node.outputs[0], counted.outputs[0])


def _is(value: ir.Value | None, number: int) -> bool:
    array = constant(value)
    return array is not None and array.size == 1 and bool(array == number)


def _pick_rows(graph: ir.Graph) -> None:
    """Replace the picks of (batch, num_logits, …) by picks of flat rows, (num_logits, 1, …).

    GatherND reads sizes on the host, which a recorded CUDA graph cannot do.
    """
    rows = _input("logits_rows", ir.DataType.INT64, ["num_logits"])
    graph.inputs.append(rows)
    _pick_along_the_first_axis(graph)
    for node in nodes(graph, "GatherND"):
        data, width = _required(node, 0), _width(node)
        if attribute(node, "batch_dims", 0) != 1 or width is None:
            raise UnsupportedModelError("it picks the tokens to compute logits for in an unknown way")
        flat = insert(graph, node, "Reshape", [data, add_initializer(graph, "flat_rows", np.array([-1, 1, width]))])
        picked = insert(graph, node, "Gather", [flat.outputs[0], rows], attributes={"axis": 0})
        for value, size in ((flat, "tokens"), (picked, "num_logits")):
            set_type(value.outputs[0], data, [size, 1, width])
        ir.convenience.replace_all_uses_with(node.outputs[0], picked.outputs[0])
    logits = _logits(graph)
    if logits.shape is not None:
        logits.shape = ir.Shape(["num_logits", 1, logits.shape[-1]])


def _width(pick: ir.Node) -> int | None:
    """The last axis of what is picked, or of the matrix that it is multiplied with: tracing may have lost one."""
    products = [use.node for use in pick.outputs[0].uses() if use.node.op_type == "FusedMatMul"]
    values = [pick.inputs[0], pick.outputs[0], *(product.inputs[1] for product in products)]
    shapes = [value.shape for value in values if value is not None and value.shape is not None]
    return next((shape[-1] for shape in shapes if isinstance(shape[-1], int)), None)


def _pick_along_the_first_axis(graph: ir.Graph) -> None:
    """Replace GatherND by Gather where constant indices have one number each, such as those of alignment heads."""
    for node in nodes(graph, "GatherND"):
        indices = constant(node.inputs[1])
        if indices is None or indices.ndim != 2 or indices.shape[1] != 1 or attribute(node, "batch_dims", 0):
            continue
        flat = add_initializer(graph, f"{node.name}.indices", indices[:, 0])
        picked = insert(graph, node, "Gather", [_required(node, 0), flat], attributes={"axis": 0})
        picked.outputs[0].shape, picked.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_all_uses_with(node.outputs[0], picked.outputs[0])
        graph.remove(node, safe=True)


def _logits(graph: ir.Graph) -> ir.Value:
    return next(value for value in graph.outputs if value.name == "logits")


def choose_inside(graph: ir.Graph) -> None:
    """Add the output next_ids, int64 (num_logits, 1): the likeliest tokens, or -1 where logits are not numbers."""
    logits = _logits(graph)
    last = _Appender(graph)
    best = last("ArgMax", logits, axis=-1, keepdims=0)
    axes = add_initializer(graph, "choice.axes", np.array([-1]))
    total = last("ReduceSum", logits, axes, keepdims=0)
    # False for infinity and for NaN.
    numbers = last("Less", total, add_initializer(graph, "choice.infinity", np.array(np.inf, np.float32)))
    chosen = last("Where", numbers, best, add_initializer(graph, "choice.none", np.array(-1)))
    chosen.name, chosen.shape, chosen.type = "next_ids", ir.Shape(["num_logits", 1]), ir.TensorType(ir.DataType.INT64)
    graph.outputs.append(chosen)


class _Appender:
    """Appends operators to a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        node = ir.node(op_type, inputs, attributes)
        self._graph.append(node)
        return node.outputs[0]
