"""Measures the energy of every input channel of every Linear and of experts, in the graph itself.

The float graph gets one more output per Linear, or layer of experts: the sum of squares of its input over all tokens,
one number per channel. This needs no module names, so it works for every architecture.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from triform.export.graph.experts import EXPERTS
from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import add_initializer, insert, nodes, set_type
from triform.export.runners import DecoderRunner

_PREFIX = "energy."


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


def energies(runner: DecoderRunner, ids: list[int], window: int) -> dict[str, torch.Tensor]:
    """Sums of squares of the Linear inputs over `ids`, by output name; each window starts with an empty cache."""
    total: dict[str, torch.Tensor] = {}
    for start in range(0, len(ids), window):
        chunk = np.array([ids[start : start + window]])
        runner.start(1, chunk.shape[1])
        _, extra = runner.feed(chunk, np.zeros((1, 1)))
        for name, value in extra.items():
            if name.startswith(_PREFIX):
                total[name] = total.get(name, torch.zeros(value.shape)) + torch.from_numpy(value)
    return total
