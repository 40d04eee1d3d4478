"""Improves matrices that are rounded already: scales and integers in turn, each the best for the others.

The error of a product is (w - r) @ moments @ (w - r) for each row w and its rounded values r. With the integers fixed
the best scales of a row solve a linear system; with everything else fixed the best integer is the one nearest to a
number that is known. So but for the rounding of scales to float16 each step makes the error smaller, or leaves it
(coordinate descent, as in QuantEase, arXiv:2309.01885).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from triform.export.quantize.blockwise import as_half

# More rounds than two make the error smaller by less than one percent.
_ROUNDS = 2
# Numbers in the linear systems that are solved at once.
_AT_ONCE = 2**24
# Added to the diagonals of these systems, as a share of their mean.
_RIDGE = 1e-4
# The best scales of a block may lie far from those that its integers were rounded by where blocks go together; these
# are not taken, because the integers do not suit them.
_LARGEST_CHANGE = 0.5


@dataclass(frozen=True)
class Rounded:
    """A rounded matrix: weights are (integers - zeros) * scales.

    Attributes:
        integers: float32 (rows, blocks, block_size).
        scales: float32 (rows, blocks), numbers that float16 holds.
        zeros: float32 (rows, blocks).
        most: the largest integer.
    """

    integers: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    most: int

    def centered(self) -> torch.Tensor:
        """The integers without their zero points, float32 (rows, blocks, block_size)."""
        return self.integers - self.zeros[..., None]

    def values(self) -> torch.Tensor:
        """What the integers stand for, float32 (rows, blocks * block_size)."""
        return (self.centered() * self.scales[..., None]).flatten(1)


def refine(weight: torch.Tensor, moments: torch.Tensor, rounded: Rounded) -> Rounded:
    """Make the error of a rounded matrix smaller.

    Args:
        weight: float32 (rows, columns), padded to whole blocks.
        moments: float32 (columns, columns), second moments of the inputs, positive definite.
        rounded: what the weight was rounded to; its integers are changed in place.
    """
    for _ in range(_ROUNDS):
        rounded = _with_best_scales(weight, moments, rounded)
        _choose_integers(weight, moments, rounded)
    return _with_best_scales(weight, moments, rounded)


def _with_best_scales(weight: torch.Tensor, moments: torch.Tensor, rounded: Rounded) -> Rounded:
    step = max(1, _AT_ONCE // rounded.scales.shape[1] ** 2)
    parts = zip(*(table.split(step) for table in (weight, rounded.centered(), rounded.scales)), strict=True)
    scales = torch.cat([_best_scales(rows, moments, centered, before) for rows, centered, before in parts])
    return Rounded(rounded.integers, scales, rounded.zeros, rounded.most)


def _best_scales(
    weight: torch.Tensor, moments: torch.Tensor, centered: torch.Tensor, before: torch.Tensor
) -> torch.Tensor:
    """The scales of some rows, float32 (rows, blocks)."""
    rows, count, size = centered.shape
    systems, targets = torch.empty(rows, count, count), torch.empty(rows, count)
    for index in range(count):
        seen = centered[:, index] @ moments[index * size : (index + 1) * size]
        systems[:, index] = (seen.view_as(centered) * centered).sum(-1)
        targets[:, index] = (seen * weight).sum(-1)
    diagonal = systems.diagonal(dim1=1, dim2=2)
    # A block whose integers are all zero has no scale; any will do.
    diagonal.add_(_RIDGE * diagonal.mean(-1, keepdim=True) + 1e-12)
    scales = torch.linalg.solve(systems, targets)
    close = (scales / before - 1).abs() <= _LARGEST_CHANGE
    return as_half(torch.where(close, scales, before))


def _choose_integers(weight: torch.Tensor, moments: torch.Tensor, rounded: Rounded) -> None:
    """Choose each integer again, column after column, in place."""
    errors, diagonal, size = weight - rounded.values(), moments.diagonal(), rounded.integers.shape[2]
    for block in range(rounded.integers.shape[1]):
        columns = slice(block * size, (block + 1) * size)
        # What each column's error would have to be for the smallest error of the product, times the diagonal.
        slopes, inside = errors @ moments[:, columns], moments[columns, columns]
        scales, integers = rounded.scales[:, block], rounded.integers[:, block]
        for column in range(size):
            index = block * size + column
            best = (slopes[:, column] / diagonal[index] / scales + integers[:, column]).round().clamp(0, rounded.most)
            change = (best - integers[:, column]) * scales
            integers[:, column] = best
            errors[:, index] -= change
            slopes.addr_(change, inside[column], alpha=-1)
