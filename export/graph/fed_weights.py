"""Makes a graph take its large weights as inputs, so that it runs on the arrays of whoever holds them.

ONNX Runtime keeps initializers in memory of its own, and again as packed copies; inputs it reads where they are.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from triform.export.graph.linear import matrix

# Smaller weights stay in the graph.
_LARGE = 2**20
# Operators that compute the same whether their weights are constants or inputs.
_READERS = {"FusedMatMul", "Gather", "MoE"}


def take_weights_as_inputs(model: ir.Model) -> dict[str, NDArray[Any]]:
    """Turn the large weights of products, lookups and experts into inputs.

    Args:
        model: lowered to float; changed in place.

    Returns:
        the weights by name of the input, float32. They share the memory of the constants.
    """
    graph, weights = model.graph, {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        readers = {use.node.op_type for use in value.uses()}
        if tensor is None or tensor.nbytes < _LARGE or not readers <= _READERS or value.is_graph_output():
            continue
        weights[name] = matrix(value).numpy()
        del graph.initializers[name]
        value.const_value = None
        graph.inputs.append(value)
    return weights
