"""Replaces tables of cosines and sines of positions by nodes that compute them.

A table for 32,768 positions takes as much room as a small model. ONNX Runtime computes nodes whose inputs are constants
once, when it opens a graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch

from triform.export.graph.nodes import add_initializer, insert, nodes, replace, set_type, sweep
from triform.export.graph.weights import matrix, shape_of

_COS, _SIN = 7, 8
# Smaller tables stay: they are opened faster than they are computed.
_LARGE = 2**22
# What sines of float32 angles may differ by from one implementation to another.
_TOLERANCE = 1e-6
# The base of the frequencies of sinusoids (Vaswani et al. 2017, section 3.5).
_BASE = 10_000.0


def compute_rotary_tables(model: ir.Model, frequencies: Sequence[torch.Tensor]) -> None:
    """Replace the large tables that one of the frequencies explains; others stay as they are.

    Args:
        model: changed in place.
        frequencies: inverse frequencies, float32 (rotary_dim / 2,) each.
    """
    start = next(iter(model.graph))
    tables = {
        (node.inputs[_COS], node.inputs[_SIN])
        for node in nodes(model.graph, "GroupQueryAttention")
        if len(node.inputs) > _SIN
    }
    for cos, sin in tables:
        if cos is None or sin is None or not (cos.is_initializer() and sin.is_initializer()):
            continue
        explanation = _explain(matrix(cos), matrix(sin), frequencies) if matrix(cos).nbytes >= _LARGE else None
        if explanation is not None:
            _insert(model.graph, start, cos, sin, explanation)
    sweep(model)


def _explain(cos: torch.Tensor, sin: torch.Tensor, frequencies: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The frequencies that give two tables, times a factor that both have."""
    factor = cos[0, 0]
    for inverse in frequencies:
        if inverse.shape != cos.shape[1:]:
            continue
        angles = torch.arange(len(cos), dtype=torch.float32)[:, None] * inverse.float()
        pairs = ((angles.cos() * factor, cos), (angles.sin() * factor, sin))
        if all(torch.allclose(made, table, rtol=0, atol=_TOLERANCE * float(factor)) for made, table in pairs):
            return inverse.float()
    return None


def _insert(graph: ir.Graph, start: ir.Node, cos: ir.Value, sin: ir.Value, inverse: torch.Tensor) -> None:
    factor = float(matrix(cos)[0, 0])
    angles = _angles(graph, start, str(cos.name), range(len(matrix(cos))), inverse)
    for table, function in ((cos, "Cos"), (sin, "Sin")):
        made = insert(graph, start, function, [angles]).outputs[0]
        if factor != 1:
            made = insert(graph, start, "Mul", [made, _number(graph, f"{table.name}.factor", factor)]).outputs[0]
        replace(table, made)


def _angles(graph: ir.Graph, start: ir.Node, name: str, positions: range, inverse: torch.Tensor) -> ir.Value:
    """The products of positions and frequencies, float32 (positions, frequencies)."""
    limits = {"first": positions.start, "end": positions.stop, "step": positions.step}
    numbers = [_number(graph, f"{name}.{limit}", value) for limit, value in limits.items()]
    line = insert(graph, start, "Range", numbers).outputs[0]
    column = insert(graph, start, "Reshape", [line, _shape(graph, name, [-1, 1])]).outputs[0]
    row = add_initializer(graph, f"{name}.inv_freq", inverse.numpy()[None])
    angles = insert(graph, start, "Mul", [column, row]).outputs[0]
    count = len(positions)
    for value, shape in ((line, [count]), (column, [count, 1]), (angles, [count, len(inverse)])):
        set_type(value, row, shape)
    return angles


def compute_sinusoids(model: ir.Model) -> None:
    """Replace the large tables of which a graph reads slices and whose rows are sines and cosines of a position.

    Sines and cosines take turns along a row. The positions go up from zero, or down to as far below zero as they begin
    above it, as where a row is for the distance of two tokens.

    Args:
        model: changed in place.
    """
    start = next(iter(model.graph))
    for table in list(model.graph.initializers.values()):
        users = [use.node.op_type for use in table.uses()]
        if set(users) == {"Slice"} and table.dtype == ir.DataType.FLOAT and 4 * math.prod(shape_of(table)) >= _LARGE:
            positions = _positions(matrix(table))
            if positions is not None:
                _insert_sinusoids(model.graph, start, table, positions)
    sweep(model)


def _positions(table: torch.Tensor) -> range | None:
    """The positions whose sinusoids are the rows of a table (..., positions, channels); None if they are not."""
    length, channels = table.shape[-2:] if table.dim() > 1 else (0, 1)
    if table.numel() != length * channels or channels % 2:
        return None
    table, inverse = table.reshape(length, channels), _inverse(channels)
    middle = length // 2
    for positions in (range(length), range(middle, middle - length, -1)):
        # The first row tells nearly all others apart.
        if all(_are_sinusoids(table[:count], positions[:count], inverse) for count in (1, length)):
            return positions
    return None


def _are_sinusoids(table: torch.Tensor, positions: range, inverse: torch.Tensor) -> bool:
    angles = torch.tensor(positions, dtype=torch.float32)[:, None] * inverse
    pairs = ((angles.sin(), table[:, 0::2]), (angles.cos(), table[:, 1::2]))
    return all(torch.allclose(made, given, rtol=0, atol=_TOLERANCE) for made, given in pairs)


def _inverse(channels: int) -> torch.Tensor:
    """The frequencies of sinusoids, float32 (channels / 2,), rounded as transformers rounds them."""
    return torch.exp(torch.arange(0, channels, 2).float() * -(math.log(_BASE) / channels))


def _insert_sinusoids(graph: ir.Graph, start: ir.Node, table: ir.Value, positions: range) -> None:
    shape, name = shape_of(table), str(table.name)
    angles = _angles(graph, start, name, positions, _inverse(shape[-1]))
    single = _shape(graph, name, [len(positions), -1, 1])
    pair = []
    for function in ("Sin", "Cos"):
        made = insert(graph, start, function, [angles]).outputs[0]
        made.type, made.shape = angles.type, angles.shape
        pair.append(insert(graph, start, "Reshape", [made, single]).outputs[0])
        set_type(pair[-1], table, [len(positions), shape[-1] // 2, 1])
    joined = insert(graph, start, "Concat", pair, attributes={"axis": -1}).outputs[0]
    set_type(joined, table, [len(positions), shape[-1] // 2, 2])
    replace(table, insert(graph, start, "Reshape", [joined, _shape(graph, name, shape)]).outputs[0])


def _shape(graph: ir.Graph, name: str, shape: Sequence[int]) -> ir.Value:
    return add_initializer(graph, f"{name}.shape", np.array(shape, np.int64))


def _number(graph: ir.Graph, name: str, value: float) -> ir.Value:
    return add_initializer(graph, name, np.array(value, np.float32))
