"""Measures the energy of every input channel of every Linear and of experts, in the graph itself.

The float graph gets one more output per Linear, or layer of experts: the sum of squares of its input over all tokens,
one number per channel. This needs no module names, so it works for every architecture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from triform.export.graph.experts import EXPERTS
from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import add_initializer, insert, nodes, set_type
from triform.export.runners import Chunk, Feeding, Result

_PREFIX = "energy."
# The head reads one token of so many: as many logits as tokens take much memory where the vocabulary is large.
_TOKENS_PER_LOGITS = 8


def add_energy_outputs(model: ir.Model) -> dict[str, str]:
    """Add the outputs, before the Linear and Experts nodes are lowered.

    Returns:
        output name by weight name.
    """
    graph = model.graph
    output_by_weight: dict[str, str] = {}
    output_by_input: dict[int, str] = {}
    for index, node in enumerate(nodes(graph, LINEAR, EXPERTS)):
        x, weight = node.inputs[0], node.inputs[1 if node.op_type == LINEAR else 2]
        if x is None or weight is None or x.shape is None:
            continue
        if id(x) not in output_by_input:
            axes = add_initializer(graph, f"{_PREFIX}axes.{index}", np.arange(len(x.shape) - 1))
            output = insert(graph, node, "ReduceSumSquare", [x, axes], attributes={"keepdims": 0}).outputs[0]
            output.name = f"{_PREFIX}{index}"
            set_type(output, x, [x.shape[-1]])
            graph.outputs.append(output)
            output_by_input[id(x)] = str(output.name)
        output_by_weight[str(weight.name)] = output_by_input[id(x)]
    return output_by_weight


def energy_feedings(ids: list[int], window: int) -> list[Feeding]:
    """A text in windows, each of which starts with an empty cache.

    The head reads tokens all over a window: the first of a text is often like no other.
    """
    windows = [np.array([ids[start : start + window]]) for start in range(0, len(ids), window)]
    return [Feeding(1, piece.shape[1], (Chunk(piece, _read_by_head(piece)),)) for piece in windows]


def _read_by_head(piece: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions from the last one back, int64 (1, num_logits)."""
    return np.arange(piece.shape[1])[None, ::-_TOKENS_PER_LOGITS]


def energies_of(results: Iterator[Result], windows: int) -> dict[str, torch.Tensor]:
    """Sums of squares of the Linear inputs, by output name.

    Args:
        results: of `energy_feedings`; what follows them is left.
        windows: how many there are.
    """
    total: dict[str, torch.Tensor] = {}
    for _, extra in itertools.islice(results, windows):
        for name, value in extra.items():
            if name.startswith(_PREFIX):
                total[name] = total.get(name, torch.zeros(value.shape)) + torch.from_numpy(value)
    return total


def without_shared(energies: Mapping[str, torch.Tensor], other: ir.Model) -> dict[str, torch.Tensor]:
    """The energies but for weights of another graph too.

    Those are stored once, so that both graphs must round them alike.

    Args:
        energies: by weight name.
        other: a graph of the same model, in which a weight has the same name.
    """
    return {name: energy for name, energy in energies.items() if name not in other.graph.initializers}
