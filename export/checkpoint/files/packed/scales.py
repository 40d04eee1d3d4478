"""Matrices of 8-bit numbers with scales: of all of it, of rows, of groups of columns, or of blocks of both."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BlockLengths:
    """How many numbers along an axis may share a scale, as a quantization_config says; the last ones may be fewer.

    Attributes:
        rows: along the first axis.
        columns: along the second one.
    """

    rows: frozenset[int] = frozenset()
    columns: frozenset[int] = frozenset()


def scaled(
    numbers: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None = None, lengths: BlockLengths | None = None
) -> torch.Tensor:
    """Scale a matrix.

    Args:
        numbers: float (rows, columns).
        scales: float, of no axis for all, (rows,), or (rows or blocks of them, groups of columns).
        zeros: float, as `scales`; taken off the numbers before.
        lengths: of the blocks; equally long where they are not known.

    Returns:
        float32 (rows, columns).

    Raises:
        ValueError: no known length gives as many blocks, and they cannot be equally long.
    """
    lengths, (rows, width) = lengths or BlockLengths(), numbers.shape
    factors = scales if scales.dim() == 2 else scales.reshape(-1, 1)
    if factors.shape[0] not in (1, rows):
        factors = _spread(factors, rows, 0, lengths.rows)
        zeros = None if zeros is None else _spread(zeros, rows, 0, lengths.rows)
    if zeros is not None:
        numbers = numbers - _spread(zeros if zeros.dim() == 2 else zeros.reshape(-1, 1), width, 1, lengths.columns)
    return numbers * _spread(factors, width, 1, lengths.columns).float()


def _spread(values: torch.Tensor, size: int, axis: int, lengths: frozenset[int]) -> torch.Tensor:
    """Repeat the values of groups or blocks along an axis, which one value stands for as it is."""
    count = values.shape[axis]
    if count == 1:
        return values
    fitting = {length for length in lengths if -(-size // length) == count}
    if not fitting and size % count == 0:
        fitting = {size // count}
    if len(fitting) != 1:
        raise ValueError("blocks of an unknown length")
    return values.repeat_interleave(fitting.pop(), axis).narrow(axis, 0, size)
