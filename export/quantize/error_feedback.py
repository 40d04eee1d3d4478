"""Quantizes matrices blockwise with GPTQ (arXiv:2210.17323).

Columns are rounded one after the other. The change that rounding a column makes to the layer's output is compensated,
as far as the calibration inputs allow, by changing the columns that are not rounded yet.
"""

from __future__ import annotations

import torch

from triform.export.quantize.blockwise import Blocks, join_blocks, search_blocks, stack_blocks
from triform.export.quantize.refinement import Rounded, refine

# Added to the diagonal of the inputs' second moments, as a share of its mean. Small samples need more than GPTQ's 0.01.
_DAMPING = 0.1
# Rows that are rounded at once.
_ROWS = 8192


def quantize_with_gptq(weight: torch.Tensor, inputs: torch.Tensor, bits: int, block_size: int) -> Blocks:
    """Quantize one matrix, calibrated on sample inputs.

    Args:
        weight: float32 (out_features, in_features).
        inputs: float32 (rows, in_features), calibration inputs.
        bits: 3 to 6, or 8.
        block_size: a power of two, at least 16. The last block is padded with zeros.
    """
    missing = -weight.shape[1] % block_size
    weight, inputs = (torch.nn.functional.pad(table, (0, missing)) for table in (weight, inputs))
    moments = _damped(inputs.T @ inputs / len(inputs), _DAMPING)
    return _joined(_round_columns(weight, _inverse_factor(moments), bits, block_size), bits, block_size)


def quantize_with_moments(
    weight: torch.Tensor, moments: torch.Tensor, bits: int, block_size: int, damping: float
) -> Blocks:
    """Quantize one matrix; what is rounded to fewer than 8 bits is refined, in 8 there is little to gain.

    Args:
        weight: float (out_features, in_features).
        moments: float32 (in_features, in_features), second moments of the inputs.
        bits: 3 to 6, or 8.
        block_size: a power of two, at least 16. The last block is padded with zeros.
        damping: added to the diagonal of `moments`, as a share of its mean.
    """
    missing = -weight.shape[1] % block_size
    moments = _damped(torch.nn.functional.pad(moments, (0, missing, 0, missing)), damping)
    factor, parts = _inverse_factor(moments), []
    # Not all at once, because they take several times their own memory.
    for rows in weight.split(_ROWS):
        floats = torch.nn.functional.pad(rows.float(), (0, missing))
        rounded = _round_columns(floats, factor, bits, block_size)
        parts.append(_joined(refine(floats, moments, rounded) if bits < 8 else rounded, bits, block_size))
    return stack_blocks(parts)


def _round_columns(weight: torch.Tensor, factor: torch.Tensor, bits: int, block_size: int) -> Rounded:
    """Round whole blocks of columns in turn, with the inverse factor of the damped moments."""
    # Transposed, so that a column of the matrix is contiguous in memory.
    columns = weight.T.clone(memory_format=torch.contiguous_format)
    parts = []
    for start in range(0, len(columns), block_size):
        end = start + block_size
        rounded, errors = _round_block(columns[start:end], factor[start:end, start:end], bits)
        parts.append(rounded)
        columns[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    integers, scales, zeros = (torch.cat(group, 1) for group in zip(*parts, strict=True))
    return Rounded(integers.float(), scales.squeeze(-1), zeros.squeeze(-1), 2**bits - 1)


def _joined(rounded: Rounded, bits: int, block_size: int) -> Blocks:
    integers, scales, zeros = rounded.integers.to(torch.uint8), rounded.scales[..., None], rounded.zeros[..., None]
    return join_blocks(integers, scales, zeros, bits, block_size)


def inverse_factor(moments: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper Cholesky factor of the inverse of the damped moments, float32 (in_features, in_features)."""
    return _inverse_factor(_damped(moments, damping))


def _damped(moments: torch.Tensor, damping: float) -> torch.Tensor:
    """Scaled so that the mean of the diagonal is 1, and more of it added."""
    moments = moments / moments.diagonal().mean().clamp(min=1e-30)
    moments.diagonal().add_(damping)
    return moments


def _inverse_factor(moments: torch.Tensor) -> torch.Tensor:
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    return torch.linalg.cholesky(inverse, upper=True)


_Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _round_block(block: torch.Tensor, factor: torch.Tensor, bits: int) -> tuple[_Parts, torch.Tensor]:
    """Round the columns of one block in turn.

    Args:
        block: float32 (block_size, out_features), changed in place.
        factor: the block's part of the inverse factor.
        bits: 3 to 6, or 8.

    Returns:
        integers, scales and zero points of one block, as for `join_blocks`; and each column's error divided by the
        diagonal of `factor`, float32 (block_size, out_features).
    """
    importance = factor.diagonal().reciprocal().square()
    _, scales, zeros = search_blocks(block.T[:, None].contiguous(), importance.view(1, 1, -1), bits)
    scale, zero = scales[:, 0, 0], zeros[:, 0, 0]
    integers, errors = torch.empty_like(block, dtype=torch.uint8), torch.empty_like(block)
    for index in range(len(block)):
        column = block[index]
        rounded = ((column / scale).round() + zero).clamp(0, 2**bits - 1)
        integers[index] = rounded.to(torch.uint8)
        errors[index] = (column - (rounded - zero) * scale) / factor[index, index]
        block[index + 1 :].addr_(factor[index, index + 1 :], errors[index], alpha=-1)
    return (integers.T[:, None].contiguous(), scales, zeros), errors
