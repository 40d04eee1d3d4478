"""Quantizes matrices blockwise; knows nothing of graphs.

A row of weights is split into blocks of `block_size`. Each block stores `bits`-bit integers q, one scale s and one zero
point z; a weight is (q - z) * s. The search for scales and zero points minimizes the squared error, weighted by the
mean square of the activation that each weight multiplies (the diagonal of the layer's Hessian, as in AWQ,
arXiv:2306.00978, and llama.cpp's importance matrices).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from triform.export.quantize.threads import in_threads

# The smallest block that ONNX Runtime's operators accept.
SMALLEST_BLOCK = 16
# Fractions of the full range to try for each block: clipping the extremes leaves finer steps for the rest. More or
# finer fractions changed the divergence on SmolLM2-135M by less than 2 %.
_FRACTIONS = (0.7, 0.76, 0.82, 0.88, 0.94, 1.0)
# Without energies, more fractions do not help: of SmolLM2-135M in 4 bits all six have a divergence of 0.442, these two
# 0.406; of the same model with its channels scaled, 0.456 and 0.448.
_FRACTIONS_WITHOUT_ENERGIES = (0.8, 1.0)
# Bytes of a scale, in float16.
_SCALE = 2
# Numbers to quantize at once: the search makes a few arrays of as many, which should stay in the caches.
_AT_ONCE = 2**17
# Numbers of which candidates are tried at once, and what a part of them is a multiple of: PyTorch adds up columns in
# groups, and some in another order where a group is not full.
_IN_CACHE, _COLUMNS = 2**17, 64
# The smallest number that float16 holds with its full precision.
_SMALLEST_HALF = 2.0**-14
_LARGEST_HALF = 65504.0


class Rows(Protocol):
    """A matrix that is read some rows at a time, such as a tensor: float (out_features, in_features)."""

    @property
    def shape(self) -> Sequence[int]:
        """Both sizes."""

    def __len__(self) -> int:
        """The number of rows."""

    def __getitem__(self, rows: slice, /) -> torch.Tensor:
        """Some rows."""


@dataclass(frozen=True)
class Blocks:
    """A quantized matrix in the layout of com.microsoft::MatMulNBits.

    Attributes:
        packed: uint8 (out_features, blocks, block_size * bits / 8), two 4-bit integers a byte, low bits first.
        scales: float32 (out_features, blocks); numbers that float16 holds too, but for very small or large ones.
        zero_points: uint8 (out_features, ceil(blocks * bits / 8)), packed like the weights.
        bits: 4 or 8, as the operator reads them.
        block_size: weights per block along in_features.
        kept_bits: of each integer and zero point only so many, the upper ones, are not zero; the others need no place
            in a file.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8]
    bits: int
    block_size: int
    kept_bits: int


def operator_bits(bits: int) -> int:
    """The bits that MatMulNBits reads integers of `bits` bits in: 4 or 8."""
    return 4 if bits <= 4 else 8


def size_of(rows: int, width: int, bits: int, block_size: int) -> int:
    """Bytes of a matrix in blocks, with scales and zero points."""
    blocks = -(-width // block_size)
    return rows * (blocks * block_size * bits // 8 + blocks * _SCALE + -(-blocks * operator_bits(bits) // 8))


def fitting_block_size(width: int, bits: int, largest: int) -> int:
    """The block size of the fewest bytes a row; padding of the last block can cost more than scales of smaller blocks.

    576 weights of 8 bits take 655 bytes in five blocks of 128, and 603 in nine of 64.

    Args:
        width: in_features.
        bits: of an integer.
        largest: a power of two, at least 16.

    Returns:
        a power of two from 16 to `largest`; of those that take the same, the smallest.
    """
    sizes = [SMALLEST_BLOCK << power for power in range((largest // SMALLEST_BLOCK).bit_length())]
    return min(sizes, key=lambda size: size_of(1, width, bits, size))


def quantize_matrix(weight: Rows, importance: torch.Tensor | None, bits: int, block_size: int) -> Blocks:
    """Quantize one matrix.

    Args:
        weight: float (out_features, in_features); some rows at a time are converted to float32.
        importance: float32 (in_features,), mean square of each input channel; all channels count the same when None.
        bits: 3 to 6, or 8.
        block_size: a power of two, at least 16. The last block is padded with zeros.
    """
    missing = -weight.shape[1] % block_size
    channel = torch.ones(weight.shape[1]) if importance is None else importance / importance.mean().clamp(min=1e-12)
    # A channel that was never active in the calibration text still counts a little.
    channel = torch.nn.functional.pad(channel + 1e-4, (0, missing)).view(1, -1, block_size)
    rows, count, wide = len(weight), channel.shape[1], operator_bits(bits)
    factor = 2 ** (wide - bits)
    whole = Blocks(
        packed=np.empty((rows, count, block_size * wide // 8), np.uint8),
        scales=np.empty((rows, count), np.float32),
        zero_points=np.empty((rows, -(-count * wide // 8)), np.uint8),
        bits=wide,
        block_size=block_size,
        kept_bits=bits,
    )
    fractions = _fractions(bits, _FRACTIONS_WITHOUT_ENERGIES if importance is None else _FRACTIONS)
    step = max(1, _AT_ONCE // weight.shape[1])
    # The same for all rows.
    spread = _side_by_side(channel.expand(min(step, rows), -1, -1))

    def quantize(start: int) -> None:
        stop = min(start + step, rows)
        weights = _side_by_side(_in_blocks(weight[start:stop], missing, block_size))
        grid = _best_grid(weights, spread[:, : weights.shape[1]], bits, fractions)
        integers = _integers(weights, grid, bits)
        if factor > 1:
            integers *= factor
        whole.packed[start:stop] = _packed(integers, wide).reshape(stop - start, count, -1)
        whole.scales[start:stop] = (grid.scales / factor).view(-1, count).numpy()
        whole.zero_points[start:stop] = _packed_zeros(grid.zeros.view(-1, count) * factor, wide)

    for _ in in_threads(quantize, range(0, rows, step)):
        pass
    return whole


def join_blocks(
    integers: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int, block_size: int
) -> Blocks:
    """The results of `search_blocks` in the operator's layout, integers in the upper bits."""
    wide = operator_bits(bits)
    factor = 2 ** (wide - bits)
    return Blocks(
        packed=_pack(integers * factor, wide),
        scales=(scales / factor).squeeze(-1).numpy(),
        zero_points=_packed_zeros(zeros.squeeze(-1) * factor, wide),
        bits=wide,
        block_size=block_size,
        kept_bits=bits,
    )


def stack_blocks(parts: Sequence[Blocks]) -> Blocks:
    """The rows of several matrices, with blocks of the same size and bits, one below the other."""
    return Blocks(
        np.concatenate([part.packed for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate([part.zero_points for part in parts]),
        parts[0].bits,
        parts[0].block_size,
        parts[0].kept_bits,
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
        bits: 3 to 6, or 8.

    Returns:
        integers uint8 (rows, blocks, block_size), scales and zero points float32 (rows, blocks, 1).
    """
    weights = _side_by_side(rows)
    grid = _best_grid(weights, _side_by_side(channel.expand_as(rows)), bits, _fractions(bits, _FRACTIONS))
    integers = _integers(weights, grid, bits).to(torch.uint8)
    shape = (*rows.shape[:2], 1)
    return integers.T.reshape(rows.shape), grid.scales.view(shape), grid.zeros.view(shape)


@dataclass(frozen=True)
class _Grid:
    """How some blocks are rounded: weights are divided by `steps`, rounded, and stand for integers times `scales`.

    Attributes:
        scales: float32 (blocks,).
        zeros: float32 (blocks,), the integers that stand for 0.
        steps: float32 (blocks,).
    """

    scales: torch.Tensor
    zeros: torch.Tensor
    steps: torch.Tensor


def _side_by_side(blocks: torch.Tensor) -> torch.Tensor:
    """Blocks (rows, blocks, block_size) as (block_size, rows * blocks), so that sums over a block add whole vectors."""
    return blocks.reshape(-1, blocks.shape[-1]).T.contiguous()


def _fractions(bits: int, below_8: Sequence[float]) -> Sequence[float]:
    return below_8 if bits < 8 else (1.0,)


def _best_grid(weights: torch.Tensor, importance: torch.Tensor, bits: int, fractions: Sequence[float]) -> _Grid:
    """The grid with the smallest weighted error of each block.

    Args:
        weights: float32 (block_size, blocks).
        importance: float32 (block_size, blocks).
        bits: 4 or 8.
        fractions: of the full range, to try.
    """
    levels = 2**bits - 1
    low = weights.amin(0).clamp_(max=0)
    span = (weights.amax(0).clamp_(min=0) - low).clamp_(min=1e-12)
    steps = torch.stack([span * (fraction / levels) for fraction in fractions])
    zeros = torch.stack([-low * fraction for fraction in fractions]).div_(steps).round_().clamp_(0, levels)
    dots, norms = _fits(weights, importance, steps, -zeros, levels - zeros)
    # With the integers fixed, the best scale is a least-squares fit.
    scales = dots / norms.clamp(min=1e-30)
    positive = norms > 0
    if not positive.all():
        # Where all integers are zero any scale will do; 1 is one that float16 holds.
        scales = torch.where(positive, scales, 1.0)
    scales = as_half(scales)
    # How much smaller the error is than that of zeros: sum(c * w^2) - sum(c * (w - scale * q)^2).
    gains = scales * (2 * dots - scales * norms)
    best_gain = torch.full_like(span, float("-inf"))
    best = torch.stack([torch.ones_like(span), torch.zeros_like(span), torch.ones_like(span)])
    for gain, grid in zip(gains, torch.stack([scales, zeros, steps], 1), strict=True):
        better = gain > best_gain
        best_gain, best = torch.where(better, gain, best_gain), torch.where(better, grid, best)
    return _Grid(*best)


def _fits(
    weights: torch.Tensor, importance: torch.Tensor, steps: torch.Tensor, lowest: torch.Tensor, highest: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round blocks with each of several steps, for the sums that the best scales follow from.

    Args:
        weights: float32 (block_size, blocks).
        importance: float32 (block_size, blocks).
        steps: float32 (candidates, blocks).
        lowest: float32 (candidates, blocks), where rounded numbers are cut off.
        highest: float32 (candidates, blocks).

    Returns:
        of the rounded numbers q, sum(c * q * w) and sum(c * q^2), float32 (candidates, blocks) each.
    """
    dots, norms = torch.empty_like(steps), torch.empty_like(steps)
    candidates = list(zip(steps, lowest, highest, dots, norms, strict=True))
    width = max(_COLUMNS, _IN_CACHE // len(weights) // _COLUMNS * _COLUMNS)
    # What is computed for one candidate after another is written over, and stays in the caches.
    for columns in (slice(start, start + width) for start in range(0, weights.shape[1], width)):
        own, channel = weights[:, columns], importance[:, columns]
        weighted, rounded, product = own * channel, torch.empty_like(own), torch.empty_like(own)
        for step, low, high, dot, norm in candidates:
            torch.div(own, step[columns], out=rounded).round_().clamp_(low[columns], high[columns])
            torch.sum(torch.mul(rounded, weighted, out=product), 0, out=dot[columns])
            torch.sum(torch.mul(rounded, rounded, out=product).mul_(channel), 0, out=norm[columns])
    return dots, norms


def _integers(weights: torch.Tensor, grid: _Grid, bits: int) -> torch.Tensor:
    """What the weights are rounded to, float32 (block_size, blocks)."""
    return torch.div(weights, grid.steps).round_().add_(grid.zeros).clamp_(0, 2**bits - 1)


def as_half(scales: torch.Tensor) -> torch.Tensor:
    """Rounded to float16 where that keeps 11 bits; as float32."""
    halves = scales.half().float()
    if len(scales) and scales.amin() >= _SMALLEST_HALF and scales.amax() <= _LARGEST_HALF:
        return halves
    return torch.where((scales >= _SMALLEST_HALF) & halves.isfinite(), halves, scales)


def _packed(integers: torch.Tensor, bits: int) -> NDArray[np.uint8]:
    """Integers in blocks side by side, float32 (block_size, blocks), as uint8 (blocks, block_size * bits / 8)."""
    if bits == 4:
        # Bytes are made once two integers are one: that is the slowest step.
        integers = torch.add(integers[::2], integers[1::2], alpha=16)
    packed: NDArray[np.uint8] = integers.to(torch.uint8).T.contiguous().numpy()
    return packed


def _packed_zeros(zeros: torch.Tensor, bits: int) -> NDArray[np.uint8]:
    """Zero points, (rows, blocks), as uint8 (rows, ceil(blocks * bits / 8))."""
    return _pack(_even(zeros.to(torch.uint8), bits), bits)


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
