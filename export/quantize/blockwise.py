"""Quantizes matrices blockwise; knows nothing of graphs.

A row of weights is split into blocks of `block_size`. Each block stores `bits`-bit integers q, one scale s and one zero
point z; a weight is (q - z) * s. The search for scales and zero points minimizes the squared error, weighted by the
mean square of the activation that each weight multiplies (the diagonal of the layer's Hessian, as in AWQ,
arXiv:2306.00978, and llama.cpp's importance matrices).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from triform.export.quantize.threads import in_threads

# The smallest block that ONNX Runtime's operators accept.
SMALLEST_BLOCK = 16
# Fractions of the full range to try for each block: clipping the extremes leaves finer steps for the rest. More or
# finer fractions changed the divergence on SmolLM2-135M by less than 2 %.
_FRACTIONS = (0.7, 0.76, 0.82, 0.88, 0.94, 1.0)
# Numbers to quantize at once: the search makes a few arrays of as many, which should stay in the caches.
_AT_ONCE = 2**17
# The smallest number that float16 holds with its full precision.
_SMALLEST_HALF = 2.0**-14


@dataclass(frozen=True)
class Blocks:
    """A quantized matrix in the layout of com.microsoft::MatMulNBits.

    Attributes:
        packed: uint8 (out_features, blocks, block_size * bits / 8), two 4-bit integers a byte, low bits first.
        scales: float32 (out_features, blocks); numbers that float16 holds too, but for very small or large ones.
        zero_points: uint8 (out_features, ceil(blocks * bits / 8)), packed like the weights.
        bits: 4 or 8.
        block_size: weights per block along in_features.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]
    bits: int
    block_size: int


def quantize_matrix(weight: torch.Tensor, importance: torch.Tensor | None, bits: int, block_size: int) -> Blocks:
    """Quantize one matrix.

    Args:
        weight: float (out_features, in_features); some rows at a time are converted to float32.
        importance: float32 (in_features,), mean square of each input channel; all channels count the same when None.
        bits: 4 or 8.
        block_size: a power of two, at least 16. The last block is padded with zeros.
    """
    missing = -weight.shape[1] % block_size
    channel = torch.ones(weight.shape[1]) if importance is None else importance / importance.mean().clamp(min=1e-12)
    # A channel that was never active in the calibration text still counts a little.
    channel = torch.nn.functional.pad(channel + 1e-4, (0, missing)).view(1, -1, block_size)
    rows, count = len(weight), channel.shape[1]
    whole = Blocks(
        packed=np.empty((rows, count, block_size * bits // 8), np.uint8),
        scales=np.empty((rows, count), np.float32),
        zero_points=np.empty((rows, -(-count * bits // 8)), np.uint8),
        bits=bits,
        block_size=block_size,
    )
    step = max(1, _AT_ONCE // weight.shape[1])

    def quantize(start: int) -> None:
        stop = start + step
        integers, scales, zeros = search_blocks(_in_blocks(weight[start:stop], missing, block_size), channel, bits)
        part = join_blocks(integers, scales, zeros, bits, block_size)
        whole.packed[start:stop], whole.scales[start:stop] = part.packed, part.scales
        whole.zero_points[start:stop] = part.zero_points

    for _ in in_threads(quantize, range(0, rows, step)):
        pass
    return whole


def join_blocks(
    integers: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int, block_size: int
) -> Blocks:
    """The results of `search_blocks` in the operator's layout."""
    return Blocks(
        packed=_pack(integers, bits),
        scales=scales.squeeze(-1).numpy(),
        zero_points=_pack(_even(zeros.squeeze(-1).to(torch.uint8), bits), bits),
        bits=bits,
        block_size=block_size,
    )


def stack_blocks(parts: Sequence[Blocks]) -> Blocks:
    """The rows of several matrices, with blocks of the same size and bits, one below the other."""
    return Blocks(
        np.concatenate([part.packed for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate([part.zero_points for part in parts]),
        parts[0].bits,
        parts[0].block_size,
    )


def dequantize(blocks: Blocks, in_features: int) -> NDArray[np.float32]:
    """The dequantized matrix, float32 (out_features, in_features)."""
    count = blocks.scales.shape[1]
    integers = _unpack(blocks.packed, blocks.bits).reshape(len(blocks.scales), count, blocks.block_size)
    zeros = _unpack(blocks.zero_points, blocks.bits)[:, :count, None]
    values = (integers.astype(np.float32) - zeros) * blocks.scales[..., None]
    return values.reshape(len(blocks.scales), -1)[:, :in_features]


def _in_blocks(rows: torch.Tensor, missing: int, block_size: int) -> torch.Tensor:
    return torch.nn.functional.pad(rows.float().contiguous(), (0, missing)).view(rows.shape[0], -1, block_size)


def search_blocks(
    rows: torch.Tensor, channel: torch.Tensor, bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the scales and zero points with the smallest weighted error.

    Args:
        rows: float32 (rows, blocks, block_size).
        channel: float32 (1, blocks, block_size), the weight of an error in each input channel.
        bits: 4 or 8.

    Returns:
        integers uint8 (rows, blocks, block_size), scales and zero points float32 (rows, blocks, 1).
    """
    levels = 2**bits - 1
    # Blocks side by side, so that sums over a block add whole vectors.
    weights, importance = _side_by_side(rows), _side_by_side(channel.expand_as(rows))
    low = weights.amin(0).clamp_(max=0)
    span = (weights.amax(0).clamp_(min=0) - low).clamp_(min=1e-12)
    weighted = weights * importance
    best_gain = torch.full_like(span, float("-inf"))
    best = [torch.ones_like(span), torch.zeros_like(span), torch.ones_like(span)]
    centered, product = torch.empty_like(weights), torch.empty_like(weights)
    for fraction in _FRACTIONS if bits < 8 else _FRACTIONS[-1:]:
        step = span * (fraction / levels)
        zero = (-low * fraction / step).round_().clamp_(0, levels)
        torch.div(weights, step, out=centered).round_().clamp_(-zero, levels - zero)
        dot = torch.mul(centered, weighted, out=product).sum(0)
        norm = torch.mul(centered, centered, out=product).mul_(importance).sum(0)
        # With the integers fixed, the best scale is a least-squares fit.
        # Where all integers are zero any scale will do; 1 is one that float16 holds.
        scale = as_half(torch.where(norm > 0, dot / norm.clamp(min=1e-30), 1.0))
        # How much smaller the error is than that of zeros: sum(c * w^2) - sum(c * (w - scale * q)^2).
        gain = scale * (2 * dot - scale * norm)
        better = gain > best_gain
        best_gain = torch.where(better, gain, best_gain)
        best = [torch.where(better, new, old) for new, old in zip((scale, zero, step), best, strict=True)]
    scale, zero, step = best
    integers = torch.div(weights, step, out=centered).round_().add_(zero).clamp_(0, levels).to(torch.uint8)
    shape = (*rows.shape[:2], 1)
    return integers.T.reshape(rows.shape), scale.view(shape), zero.view(shape)


def _side_by_side(blocks: torch.Tensor) -> torch.Tensor:
    """Blocks (rows, blocks, block_size) as (block_size, rows * blocks)."""
    return blocks.reshape(-1, blocks.shape[-1]).T.contiguous()


def as_half(scales: torch.Tensor) -> torch.Tensor:
    """Rounded to float16 where that keeps 11 bits; as float32."""
    halves = scales.half().float()
    return torch.where((scales >= _SMALLEST_HALF) & halves.isfinite(), halves, scales)


def _even(zeros: torch.Tensor, bits: int) -> torch.Tensor:
    return torch.nn.functional.pad(zeros, (0, zeros.shape[1] % 2)) if bits == 4 else zeros


def _pack(integers: torch.Tensor, bits: int) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = integers.numpy()
    if bits == 8:
        return array
    joined: NDArray[np.uint8] = np.bitwise_or(array[..., 0::2], np.left_shift(array[..., 1::2], 4))
    return joined


def _unpack(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
