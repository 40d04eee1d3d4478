"""Stores the products of a graph in 4 bits as CUDA's fused kernels read them: in symmetric blocks, without a bias.

ONNX Runtime's CUDA provider has products that unpack 4 bits while they multiply. Those of released packages take blocks
of 32 without zero points, and columns in multiples of 64 (contrib_ops/cuda/quantization/matmul_nbits.cc).
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch

from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import MICROSOFT, add_initializer, insert, nodes, replace, set_type
from triform.export.graph.weights import stored_matrix
from triform.export.quantize.blocks import linear_inputs, lower_to_float
from triform.export.quantize.blockwise import Blocks, join_blocks
from triform.runtime.bundle.manifest import Quantization

BLOCK_SIZE = 32
_COLUMNS = 64
_BITS = 4
# The integer that stands for 0.
_ZERO = 8
# Fractions of a block's largest weight to try as the end of the range; see `blockwise.py`.
_FRACTIONS = (0.76, 0.82, 0.88, 0.94, 1.0, 1.06)
_ROWS = 4096


def lower_to_gpu_blocks(model: ir.Model, importance: Mapping[str, torch.Tensor]) -> Quantization:
    """Quantize every product whose shape the kernels take; others, and embeddings, stay floats.

    Args:
        model: changed in place.
        importance: see `lower_to_blocks`.
    """
    count = 0
    for node in nodes(model.graph, LINEAR):
        x, weight, bias = linear_inputs(node)
        rows = stored_matrix(weight)
        if rows.shape[0] % _COLUMNS or rows.shape[1] % BLOCK_SIZE:
            continue
        blocks = symmetric_blocks(rows, importance.get(str(weight.name)))
        stored = [add_initializer(model.graph, f"{weight.name}.{name}", array)
                  for name, array in (("blocks", blocks.packed), ("scales", blocks.scales))]  # fmt: skip
        attributes = {"K": rows.shape[1], "N": rows.shape[0], "bits": _BITS, "block_size": BLOCK_SIZE}
        product = insert(
            model.graph, node, "MatMulNBits", [x, *stored], domain=MICROSOFT, attributes=attributes
        ).outputs[0]  # fmt: skip
        if bias is not None:
            set_type(product, node.outputs[0])
            product = insert(model.graph, node, "Add", [product, bias]).outputs[0]
        replace(node.outputs[0], product)
        count += 1
    lower_to_float(model)
    return Quantization("int4", _BITS, BLOCK_SIZE, sensitive_block_size=BLOCK_SIZE, matrices=count)


def symmetric_blocks(weight: torch.Tensor, importance: torch.Tensor | None) -> Blocks:
    """Quantize a matrix to integers from -8 to 7 times a scale, with the smallest weighted error of a few scales.

    Args:
        weight: float32 (out_features, in_features); in_features is a multiple of the block size.
        importance: see `quantize_matrix`.
    """
    channel = torch.ones(weight.shape[1]) if importance is None else importance / importance.mean().clamp(min=1e-12)
    channel = (channel + 1e-4).view(1, -1, BLOCK_SIZE)
    parts = [_search(rows.float().reshape(len(rows), -1, BLOCK_SIZE), channel) for rows in weight.split(_ROWS)]
    integers, scales = (torch.cat(group) for group in zip(*parts, strict=True))
    return join_blocks(integers, scales, torch.full_like(scales, _ZERO), _BITS, BLOCK_SIZE)


def _search(rows: torch.Tensor, channel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    largest = rows.gather(-1, rows.abs().argmax(-1, keepdim=True))
    best_error = torch.full_like(largest, float("inf"))
    best = torch.zeros_like(rows), torch.ones_like(largest)
    for fraction in _FRACTIONS:
        # The largest weight gets -8, the end of the range that has no counterpart.
        scale = largest * (-fraction / _ZERO)
        divisor = torch.where(scale == 0, 1.0, scale)
        integers = (rows / divisor).round().clamp(-_ZERO, _ZERO - 1)
        weighted = channel * integers
        norm = (weighted * integers).sum(-1, keepdim=True)
        fitted = torch.where(norm > 0, (weighted * rows).sum(-1, keepdim=True) / norm.clamp(min=1e-30), 1.0)
        fitted = fitted.half().float()
        error = (channel * (integers * fitted - rows) ** 2).sum(-1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better, integers, best[0]), torch.where(better, fitted, best[1])
    return (best[0] + _ZERO).to(torch.uint8), best[1]
