"""How strongly each input channel of each Linear is driven, measured by the graph itself.

The float graph gets one more output per Linear: the sum of squares of its input over all tokens, one number a channel.
Every architecture and form is calibrated the same way, without knowing a module's name.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import add_initializer, describe, insert, nodes
from triform.export.runners import GraphRunner

PREFIX = "energy."


def add_energy_outputs(model: ir.Model) -> dict[str, str]:
    """Add the outputs, before the Linear nodes are lowered.

    Returns:
        weight name by output name.
    """
    graph, found, made = model.graph, {}, {}
    for index, node in enumerate(nodes(graph, LINEAR)):
        x, weight = node.inputs[:2]
        if x is None or weight is None or x.shape is None:
            continue
        if id(x) not in made:
            axes = add_initializer(graph, f"{PREFIX}axes.{index}", np.arange(len(x.shape) - 1))
            output = insert(graph, node, "ReduceSumSquare", [x, axes], attributes={"keepdims": 0}).outputs[0]
            output.name = f"{PREFIX}{index}"
            describe(output, x, [x.shape[-1]])
            graph.outputs.append(output)
            made[id(x)] = output.name
        found[str(weight.name)] = made[id(x)]
    return found


def energies(runner: GraphRunner, ids: list[int], window: int) -> dict[str, torch.Tensor]:
    """Sums of squares of the Linear inputs over `ids`, read in windows; see `measure.py`."""
    total: dict[str, torch.Tensor] = {}
    for start in range(0, len(ids), window):
        chunk = np.array([ids[start : start + window]])
        runner.start(1, chunk.shape[1])
        _, extra = runner.feed(chunk, np.zeros((1, 1)))
        for name in [one for one in extra if one.startswith(PREFIX)]:
            value = extra[name]
            total[name] = total.get(name, torch.zeros(value.shape)) + torch.from_numpy(value)
    return total
