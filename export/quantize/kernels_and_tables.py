"""Stores large constants that no scheme quantizes in fewer bytes: kernels of convolutions, and tables of positions."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import torch

from triform.export.graph.nodes import add_initializer, insert, replace, set_type, sweep, widened
from triform.export.graph.weights import shape_of
from triform.export.quantize.blocks import is_token_table

# Smaller constants, with fewer numbers, are not worth the nodes that widen them.
_LARGE = 2**14
# Numbers of a kernel that share a scale, at most.
_BLOCK_SIZE = 64
# How far rounding may move a constant, as a share of its norm. The kernels of Whisper move by 0.7 and 0.9 %, and the
# matrices of its products, in 8 bits by column, by 1.0 to 1.2 %. Float16 moves numbers by half of this at most, unless
# they are too small for it.
_CLOSE_IN_8_BITS = 0.015
_CLOSE_IN_FLOAT16 = 2.0**-10
_LARGEST_OF_8_BITS = 127


def narrow_kernels_and_tables(model: ir.Model) -> None:
    """Store the large kernels of convolutions in 8 bits and the large tables that are not of tokens in float16.

    A kernel has a scale, in float16, for at most 64 numbers of one output channel; where 8 bits move it too far it is
    stored in float16, and a constant that float16 moves too far stays in float32. ONNX Runtime widens all of them once,
    when it opens the graph.

    Args:
        model: changed in place; kernels are (out_channels, in_channels / groups, *sizes), tables (rows, columns).
    """
    graph = model.graph
    first = next(iter(graph))
    for value in list(graph.initializers.values()):
        if value.dtype != ir.DataType.FLOAT or math.prod(shape_of(value)) < _LARGE:
            continue
        operators = {(use.node.op_type, use.idx) for use in value.uses()}
        if operators == {("Conv", 1)}:
            wide = _in_8_bits(graph, first, value) or _in_float16(graph, first, value)
        elif operators == {("Gather", 0)} and not _is_of_tokens(model, value):
            wide = _in_float16(graph, first, value)
        else:
            continue
        if wide is not None:
            set_type(wide, value)
            replace(value, wide)
    sweep(model)


def _is_of_tokens(model: ir.Model, table: ir.Value) -> bool:
    ids = [use.node.inputs[1] for use in table.uses()]
    return any(value is not None and is_token_table(model, table, value) for value in ids)


def _in_8_bits(graph: ir.Graph, before: ir.Node, kernel: ir.Value) -> ir.Value | None:
    weight = _numbers(kernel)
    channel = weight[0].numel()
    size = max(size for size in range(1, _BLOCK_SIZE + 1) if channel % size == 0)
    blocks = weight.reshape(len(weight), -1, size)
    scales = (blocks.abs().amax(2, keepdim=True) / _LARGEST_OF_8_BITS).half()
    # Blocks of zeros have any scale, and so have those whose numbers are too small for one in float16.
    scales[scales == 0] = 1
    integers = (blocks / scales.float()).round().clamp(-_LARGEST_OF_8_BITS, _LARGEST_OF_8_BITS)
    if not _is_close(integers * scales.float(), blocks, _CLOSE_IN_8_BITS):
        return None
    stored = add_initializer(graph, f"{kernel.name}.int8", integers.to(torch.int8).numpy())
    factors = add_initializer(graph, f"{kernel.name}.scales", scales.numpy())
    shape = add_initializer(graph, f"{kernel.name}.shape", np.array(weight.shape))
    product = insert(graph, before, "Mul", [widened(graph, before, value) for value in (stored, factors)]).outputs[0]
    return insert(graph, before, "Reshape", [product, shape]).outputs[0]


def _in_float16(graph: ir.Graph, before: ir.Node, value: ir.Value) -> ir.Value | None:
    numbers = _numbers(value)
    halves = numbers.half()
    if not _is_close(halves.float(), numbers, _CLOSE_IN_FLOAT16):
        return None
    return widened(graph, before, add_initializer(graph, f"{value.name}.float16", halves.numpy()))


def _numbers(value: ir.Value) -> torch.Tensor:
    if value.const_value is None:
        raise ValueError(f"{value.name} is no constant")
    return torch.from_numpy(np.array(value.const_value.numpy()))


def _is_close(rounded: torch.Tensor, numbers: torch.Tensor, share: float) -> bool:
    # Numbers that are too large become infinite, and the comparison false.
    return bool((rounded - numbers).norm() <= share * numbers.norm())
