"""How strongly each input channel of each Linear is driven, measured by the graph itself.

The float graph gets one more output per Linear: the sum of squares of its input over all tokens, one number a channel.
Every architecture and form is calibrated the same way, without knowing a module's name.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from triform.export.graph import add_initializer, describe, insert, nodes
from triform.export.linear import LINEAR

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
