"""Fuses biases into the operators that follow, because a separate Add reads and writes the whole activation again."""

from __future__ import annotations

import onnx_ir as ir

from triform.export.graph.nodes import MICROSOFT, attribute, insert, nodes, only_user, replace, sweep

# Position of the bias among the inputs of MultiHeadAttention.
_ATTENTION_BIAS = 3


def fuse_biases(model: ir.Model) -> None:
    """Move the bias of a lowered Linear into the activation or attention that follows, if that is its only user."""
    for add in nodes(model.graph, "Add"):
        product, bias = add.inputs
        user = only_user(add.outputs[0])
        if product is None or bias is None or user is None or not _is_vector(bias):
            continue
        if user.op_type == "Gelu":
            _into_gelu(model.graph, user, product, bias)
        elif user.op_type == "Split":
            _into_attention(user, product, bias)
    sweep(model)


def _is_vector(value: ir.Value) -> bool:
    return value.is_initializer() and value.shape is not None and len(value.shape) == 1


def _into_gelu(graph: ir.Graph, gelu: ir.Node, product: ir.Value, bias: ir.Value) -> None:
    exact = attribute(gelu, "approximate", "none") == "none"
    fused = insert(graph, gelu, "BiasGelu" if exact else "FastGelu", [product, bias], domain=MICROSOFT)
    replace(gelu.outputs[0], fused.outputs[0])


def _into_attention(split: ir.Node, product: ir.Value, bias: ir.Value) -> None:
    attention = only_user(split.outputs[0])
    if attention is None or attention.op_type != "MultiHeadAttention" or len(split.outputs) != 3:
        return
    if any(only_user(output) is not attention for output in split.outputs):
        return
    inputs = [*attention.inputs, None]
    if tuple(inputs[:3]) != tuple(split.outputs) or inputs[_ATTENTION_BIAS] is not None:
        return
    # Attention without padding has three inputs.
    attention.resize_inputs(max(len(attention.inputs), _ATTENTION_BIAS + 1))
    attention.replace_input_with(_ATTENTION_BIAS, bias)
    split.replace_input_with(0, product)
