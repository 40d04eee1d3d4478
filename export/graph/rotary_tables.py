"""Replaces the tables of cosines and sines that attention reads by nodes that compute them.

A table for 32,768 positions takes as much room as a small model. ONNX Runtime computes nodes whose inputs are constants
once, when it opens a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch

from triform.export.graph.nodes import add_initializer, insert, nodes, replace, sweep
from triform.export.graph.weights import matrix

_COS, _SIN = 7, 8
# Smaller tables stay: they are opened faster than they are computed.
_LARGE = 2**22
# What sines of float32 angles may differ by from one implementation to another.
_TOLERANCE = 1e-6


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
    length, factor = len(matrix(cos)), float(matrix(cos)[0, 0])
    limits = {"first": 0, "end": length, "step": 1}
    numbers = [_number(graph, f"{cos.name}.{name}", value) for name, value in limits.items()]
    positions = insert(graph, start, "Range", numbers).outputs[0]
    column = add_initializer(graph, f"{cos.name}.column", np.array([-1, 1]))
    positions = insert(graph, start, "Reshape", [positions, column]).outputs[0]
    row = add_initializer(graph, f"{cos.name}.inv_freq", inverse.numpy()[None])
    angles = insert(graph, start, "Mul", [positions, row]).outputs[0]
    for table, function in ((cos, "Cos"), (sin, "Sin")):
        made = insert(graph, start, function, [angles]).outputs[0]
        if factor != 1:
            made = insert(graph, start, "Mul", [made, _number(graph, f"{table.name}.factor", factor)]).outputs[0]
        replace(table, made)


def _number(graph: ir.Graph, name: str, value: float) -> ir.Value:
    return add_initializer(graph, name, np.array(value, np.float32))
