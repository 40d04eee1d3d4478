"""Lets a graph give the logits at ``logits_positions`` only, and computes no others where that is possible."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from triform.export.graph.nodes import add_initializer, constant, only_user, producer

# What may stand behind the product with the vocabulary: each works on one number at a time.
_ELEMENTWISE = ("Cast", "Add", "Mul", "Div", "Tanh", "Sub")
_BATCH, _POSITIONS = "batch", "num_logits"


def pick_logits(graph: ir.Graph, logits: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Add the input ``logits_positions``, int64 (batch, num_logits).

    Args:
        graph: changed in place; its outputs are left to the caller.
        logits: (batch, sequence, vocab_size), of any float type.

    Returns:
        this input, and the new output ``logits``, float32 (batch, num_logits, vocab_size).
    """
    positions = ir.val("logits_positions", ir.DataType.INT64, [_BATCH, _POSITIONS])
    graph.inputs.append(positions)
    width = (logits.shape or [None])[-1]
    product = _last_product(logits)
    columns = add_initializer(graph, "columns", np.array([0, -1, 1], np.int64))
    states = logits if product is None else product.inputs[0]
    column = ir.node("Reshape", [positions, columns])
    pick = ir.node("GatherND", [states, column.outputs[0]], {"batch_dims": 1})
    if product is None:
        graph.extend([column, pick])
        result = pick.outputs[0]
    else:
        if states is not None:
            pick.outputs[0].type = states.type
        graph.insert_before(product, [column, pick])
        product.replace_input_with(0, pick.outputs[0])
        _forget_shapes(product, logits)
        result = logits
    if result.dtype != ir.DataType.FLOAT and logits.dtype != ir.DataType.FLOAT:
        wide = ir.node("Cast", [result], {"to": int(ir.DataType.FLOAT)})
        graph.append(wide)
        result = wide.outputs[0]
    result.name, result.type = "logits", ir.TensorType(ir.DataType.FLOAT)
    result.shape = ir.Shape([_BATCH, _POSITIONS, width])
    return positions, result


def _last_product(logits: ir.Value) -> ir.Node | None:
    """The product with the vocabulary, if only the logits come of it and it has an axis for tokens."""
    value: ir.Value | None = logits
    while value is not None:
        node = value.producer()
        # The logits themselves are an output, which is used nowhere else.
        alone = not list(value.uses()) if value is logits else only_user(value) is not None
        if node is None or not alone:
            return None
        if producer(value, "MatMul", "MatMulNBits") is not None:
            states, *weights = node.inputs
            rank = len(states.shape) if states is not None and states.shape is not None else 0
            stored = all(weight is None or constant(weight) is not None for weight in weights)
            return node if rank == 3 and stored else None
        dynamic = [item for item in node.inputs if item is not None and constant(item) is None]
        if node.op_type not in _ELEMENTWISE or len(dynamic) != 1:
            return None
        [value] = dynamic
    return None


def _forget_shapes(product: ir.Node, logits: ir.Value) -> None:
    """The values between have as many tokens as are picked, and not as before."""
    value = product.outputs[0]
    while value is not logits:
        value.shape = None
        user = only_user(value)
        if user is None:
            return
        value = user.outputs[0]
