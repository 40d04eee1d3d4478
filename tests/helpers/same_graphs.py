"""Compares graphs by what they compute, whatever their values are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch


def computed(model: ir.Model) -> tuple[list[Any], list[Any]]:
    """The nodes of a graph, each with where its inputs come from, and its outputs; equal for graphs that are equal.

    A constant stands for its numbers, and for its name if a module gave it one; an input and an output for its name.
    What is computed of the same in several places stands there once: whether layers share it is of no account.
    """
    places: dict[ir.Value, Any] = {value: value.name for value in model.graph.inputs}
    places |= {value: _constant(value) for value in model.graph.initializers.values()}
    nodes: dict[Any, int] = {}
    for node in model.graph:
        attributes = tuple(sorted((name, str(item.value)) for name, item in node.attributes.items()))
        inputs = tuple(None if value is None else places[value] for value in node.inputs)
        shapes = tuple((str(value.type), str(value.shape)) for value in node.outputs)
        index = nodes.setdefault((node.domain, node.op_type, attributes, inputs, shapes), len(nodes))
        places |= {value: (index, place) for place, value in enumerate(node.outputs)}
    return list(nodes), [(value.name, places[value]) for value in model.graph.outputs]


def _constant(value: ir.Value) -> tuple[Any, ...]:
    assert value.const_value is not None
    numbers = value.const_value.numpy()
    # What no module names is called after where it is first read, and the number of those before it.
    of_module = isinstance(getattr(value.const_value, "raw", None), torch.Tensor) and "lifted_tensor_" not in str(
        value.name
    )
    return value.name if of_module else None, numbers.shape, str(numbers.dtype), np.ascontiguousarray(numbers).tobytes()
