"""Replaces Linear nodes by products of 4-bit weights, or 8-bit weights where 4 bits lose most."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch

from triform.export.graph.weights import matrix
from triform.export.quantize.blocks import Scheme, lower_product, lower_to_float
from triform.export.quantize.blockwise import Blocks, dequantize, fitting_block_size
from triform.export.quantize.columns.products import lower_products_to_int8, quantizable
from triform.export.quantize.error_feedback import quantize_with_gptq
from triform.export.quantize.threads import in_threads
from triform.export.report import Counted, uncounted

# The share of products that get 8 bits. With all products of all-MiniLM-L6-v2 in 4 bits the cosine to float32 is 0.985,
# with a third of them in 8 bits 0.991, with half 0.993.
_8_BIT_SHARE = 0.5


def lower_to_int4(
    model: ir.Model,
    scheme: Scheme,
    inputs: Mapping[str, torch.Tensor],
    rows_worth: float,
    counted: Counted = uncounted,
) -> tuple[int, dict[str, str]]:
    """Quantize every Linear to 4 bits, or to 8 bits if its 4-bit error is among the largest.

    Args:
        model: changed in place.
        scheme: 4 bits, the size of blocks and the accuracy level.
        inputs: by weight name, calibration inputs float32 (rows, in_features).
        rows_worth: see `choose_quantization`.
        counted: reports how many weights are done.

    Returns:
        the number of 4-bit products; and by weight name, how activations of 8-bit products are quantized.
    """
    linears = quantizable(model, inputs)

    def quantized(name: str) -> tuple[Blocks, float]:
        weight = _weight(linears[name][0])
        size = fitting_block_size(weight.shape[1], scheme.bits, scheme.block_size)
        blocks = quantize_with_gptq(weight, inputs[name], scheme.bits, size)
        return blocks, _error(inputs[name], weight, blocks)

    results = dict(zip(counted(linears), in_threads(quantized, linears), strict=True))
    blocks = {name: item for name, (item, _) in results.items()}
    worst = sorted(results, key=lambda name: -results[name][1])[: round(_8_BIT_SHARE * len(results))]
    activations = lower_products_to_int8(model, {name: linears[name] for name in worst}, inputs, rows_worth)
    for name in linears.keys() - activations.keys():
        for node in linears[name]:
            lower_product(model.graph, node, blocks[name], scheme.accuracy_level)
    lower_to_float(model)
    return len(linears) - len(activations), activations


def _weight(node: ir.Node) -> torch.Tensor:
    weight = node.inputs[1]
    if weight is None:
        raise ValueError(f"Linear node {node.name} lacks its weight")
    return matrix(weight).float()


def _error(inputs: torch.Tensor, weight: torch.Tensor, blocks: Blocks) -> float:
    """Squared error of the product, relative to its squared values."""
    actual = torch.from_numpy(dequantize(blocks, weight.shape[1]))
    return float((inputs @ (actual - weight).T).pow(2).sum() / (inputs @ weight.T).pow(2).sum().clamp(min=1e-30))
