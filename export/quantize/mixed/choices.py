"""Estimates what each way of storing a matrix costs in bytes and in the model's predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from triform.export.graph.weights import Scaling
from triform.export.quantize.blockwise import dequantize, quantize_matrix, size_of
from triform.export.quantize.mixed.allocation import Choice
from triform.export.quantize.mixed.times import product_time

# Where 8 bits should take the same time as 4: interpolated between products of 576 by 3,072, where 8 bits are faster,
# and 2,048 by 8,192, where they take 1.26 times as long. SmolLM2-135M (576 wide) in int8 decodes at 0.79 times the
# speed of int4, reads prompts at 1.16 times, and loses 0.3 % of perplexity instead of 19 %. See docs/quantization.md.
WIDEST_IN_8_BITS = 1024
# Bits and block sizes. Of SmolLM2-135M's products, 4 bits in blocks of 128 save 3 % of what blocks of 64 take.
_SCHEMES = ((3, 64), (3, 32), (4, 64), (4, 32), (4, 16), (8, 128), (8, 32))
# What is unpacked to 8 bits: in a larger matrix it would be slower than 4 bits, and take the memory of 8.
_UNPACKED_TO_8 = ((5, 64), (5, 32), (6, 128), (6, 64), (6, 32))
# As many rows of a part tell enough of its error.
_SAMPLED_ROWS = 256


@dataclass(frozen=True)
class Part:
    """Rows of a stored matrix that were a matrix of their own in PyTorch.

    Attributes:
        weight: float (rows, in_features), as PyTorch has it.
        moments: float32 (in_features, in_features), see `Moments.inputs`.
        rows: float32 (rows,), the share of each row's outputs in the damage; all of a part's add up to 1.
        scaling: of the matrix that is stored; None where that is as PyTorch has it.
    """

    weight: torch.Tensor
    moments: torch.Tensor
    rows: torch.Tensor
    scaling: Scaling | None = None

    def scaled_weight(self) -> torch.Tensor:
        """The rows that are stored: float (rows, in_features)."""
        return self.weight if self.scaling is None else self.scaling.applied_to(self.weight)

    def importance(self) -> torch.Tensor:
        """The diagonal of `scaled_moments`."""
        diagonal = self.moments.diagonal()
        return diagonal if self.scaling is None else diagonal / self.scaling.columns.square()

    def scaled_moments(self) -> torch.Tensor:
        """Of what the stored rows are multiplied by."""
        if self.scaling is None:
            return self.moments
        inverse = self.scaling.columns.reciprocal()
        return self.moments * inverse * inverse[:, None]


def sampled(part: Part) -> Part:
    """Some of the rows, enough to tell the error of all; factors of rows change nothing of that."""
    chosen = torch.linspace(0, len(part.weight) - 1, min(_SAMPLED_ROWS, len(part.weight))).round().long()
    scaling = None if part.scaling is None else Scaling(torch.ones(len(chosen)), part.scaling.columns)
    return Part(part.weight[chosen].float(), part.moments, part.rows[chosen], scaling)


def damage_of_rounding(part: Part, bits: int, block_size: int) -> float:
    """Of plain rounding; with error feedback it is smaller, by about the same factor everywhere."""
    sample = sampled(part)
    weight, importance = sample.scaled_weight(), sample.importance()
    blocks = quantize_matrix(weight, importance, bits, block_size)
    stored = torch.from_numpy(dequantize(blocks, weight.shape[1]))
    errors = ((stored - weight).square() * importance).sum(-1)
    return float(0.5 * (errors * sample.rows).sum() / sample.rows.sum().clamp(min=1e-30))


def choices_of(
    parts: Sequence[Part],
    *,
    looked_up: bool,
    timed: bool,
    damage: Callable[[Part, int, int], float] = damage_of_rounding,
) -> list[Choice]:
    """What each scheme costs and damages for one matrix.

    Args:
        parts: of the matrix.
        looked_up: whether rows are looked up, which whole blocks suit.
        timed: whether the time of its product counts.
        damage: of a part in so many bits and blocks of a size.
    """
    rows, width = sum(len(part.weight) for part in parts), parts[0].weight.shape[1]
    every = _SCHEMES + _UNPACKED_TO_8 if min(rows, width) <= WIDEST_IN_8_BITS else _SCHEMES
    return [
        Choice(
            bits,
            size,
            size_of(rows, width, bits, size),
            sum(damage(part, bits, size) for part in parts),
            rows * width * product_time(bits, size) if timed else 0.0,
        )
        for bits, size in fitting(every, width, looked_up=looked_up)
    ]


def fitting(schemes: Sequence[tuple[int, int]], width: int, *, looked_up: bool) -> list[tuple[int, int]]:
    """Those of some bits and block sizes that fit a matrix: rows that are looked up are whole blocks.

    Args:
        schemes: bits and block sizes.
        width: of the matrix.
        looked_up: whether rows are.
    """
    if not looked_up:
        return list(schemes)
    whole = [(bits, size) for bits, size in schemes if width % size == 0]
    # Blocks of 16 are padded where they do not divide the width.
    return whole if any(bits == 8 for bits, _ in whole) else [*{*whole, (4, 16), (8, 16)}]
