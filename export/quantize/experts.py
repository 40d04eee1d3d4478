"""Replaces the experts of a mixture by com.microsoft::QMoE, with weights quantized blockwise.

The operator is described in docs/ContribOperators.md of ONNX Runtime. It reads only the experts that are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch

from triform.export.graph.experts import EXPERTS, expert_attributes, expert_weights
from triform.export.graph.nodes import MICROSOFT, add_initializer, insert, nodes, replace, sweep
from triform.export.quantize.blockwise import SMALLEST_BLOCK, Blocks, quantize_matrix


def lower_experts(
    model: ir.Model, bits: int, block_size: int, accuracy_level: int, importance: Mapping[str, torch.Tensor]
) -> int:
    """Quantize the weights of every Experts node; those that no block size divides stay as they are.

    Args:
        model: changed in place.
        bits: 4 or 8.
        block_size: weights that share a scale; smaller where it does not divide the sizes of an expert.
        accuracy_level: of QMoE; 4 computes with 8-bit activations, 1 with float32 where the weights have 4 bits.
        importance: by weight name, the energy of each input channel, float32 (in_features,), see `energies`; or of each
            expert, float32 (num_experts, in_features).

    Returns:
        how many matrices were quantized, one for each expert and product.
    """
    count = 0
    for node in nodes(model.graph, EXPERTS):
        weights = expert_weights(node)
        size = largest_block(block_size, weights.up.shape[2], weights.down.shape[2])
        if size is not None:
            count += lower_layer(model.graph, node, bits, size, accuracy_level, importance)
    sweep(model)
    return count


def lower_layer(
    graph: ir.Graph,
    node: ir.Node,
    bits: int,
    block_size: int,
    accuracy_level: int,
    importance: Mapping[str, torch.Tensor],
) -> int:
    """Quantize the weights of one Experts node; arguments and result as `lower_experts`, whose sizes the blocks divide.

    What is left over is not removed from the graph.
    """
    weights, (name, down_name) = expert_weights(node), names_of(node)
    up = _quantized(weights.up, importance.get(name), bits, block_size)
    down = _quantized(weights.down, importance.get(down_name), bits, block_size)
    inputs = [
        node.inputs[0], node.inputs[1],
        *_product(graph, f"{name}.up", up, weights.up_bias),
        *_product(graph, f"{name}.down", down, weights.down_bias),
        None, None, None,
        _zero_points(graph, f"{name}.up", up), _zero_points(graph, f"{name}.down", down), None,
        node.inputs[1],
    ]  # fmt: skip
    attributes = expert_attributes(node) | {
        "expert_weight_bits": bits, "block_size": block_size, "accuracy_level": accuracy_level, "weights_prepacked": 0,
    }  # fmt: skip
    mixed = insert(graph, node, "QMoE", inputs, domain=MICROSOFT, attributes=attributes)
    replace(node.outputs[0], mixed.outputs[0])
    return len(weights.up) + len(weights.down)


def names_of(node: ir.Node) -> tuple[str, str]:
    """The names of the weights of both products of an Experts node."""
    up, down = node.inputs[2], node.inputs[4]
    if up is None or down is None:
        raise ValueError(f"{node.name} lacks its weights")
    return str(up.name), str(down.name)


def largest_block(most: int, *widths: int) -> int | None:
    """The largest block size that divides every width; None if there is none."""
    size = most
    while size >= SMALLEST_BLOCK:
        if all(width % size == 0 for width in widths):
            return size
        size //= 2
    return None


def _quantized(weights: torch.Tensor, importance: torch.Tensor | None, bits: int, block_size: int) -> list[Blocks]:
    """The blocks of each expert's matrix."""
    each = [importance] * len(weights) if importance is None or importance.dim() == 1 else list(importance)
    return [
        quantize_matrix(matrix.contiguous(), energies, bits, block_size)
        for matrix, energies in zip(weights, each, strict=True)
    ]


def _product(
    graph: ir.Graph, name: str, blocks: list[Blocks], bias: torch.Tensor | None
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    packed = np.stack([item.packed.reshape(len(item.packed), -1) for item in blocks])
    scales = np.stack([item.scales for item in blocks])
    return (
        add_initializer(graph, f"{name}.blocks", packed),
        add_initializer(graph, f"{name}.scales", scales),
        None if bias is None else add_initializer(graph, f"{name}.bias", bias.contiguous().numpy()),
    )


def _zero_points(graph: ir.Graph, name: str, blocks: list[Blocks]) -> ir.Value:
    return add_initializer(graph, f"{name}.zero_points", np.stack([item.zero_points for item in blocks]))
