"""The files of compressed-tensors, as llm-compressor writes them: packed integers, or numbers of 8 bits with scales."""

from __future__ import annotations

from functools import partial

import torch

from triform.export.checkpoint.files.packed.packing import Grid, PackedTensors, Packing, column_groups, integers

# What activations are rounded with in other engines; floats are not rounded here.
_OF_ACTIVATIONS = ("input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point")


def scaled_packings() -> tuple[Packing, ...]:
    """How matrices of 8-bit numbers are stored."""
    return (Packing("weight_scale", ("weight", "weight_zero_point"), _scaled, _OF_ACTIVATIONS),)


def grid_packings(bits: int) -> tuple[Packing, ...]:
    """How matrices of integers of so many bits are packed; others are stored as `scaled_packings` says."""
    others = ("weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")
    grid = Packing("weight_packed", others, partial(_unpack, bits), _OF_ACTIVATIONS, as_grid=True)
    return (grid, *scaled_packings())


def _unpack(bits: int, parts: PackedTensors) -> Grid:
    """Unpack a matrix.

    weight_packed is int32 (out_features, in_features / n) with n numbers an integer, weight_shape the matrix's shape,
    weight_zero_point int32 (out_features / n, groups) in the same way. Numbers have half of their range added.
    """
    rows, width = (int(size) for size in parts["weight_shape"].tolist())
    numbers, scales = integers(parts["weight_packed"], bits)[:, :width], parts["weight_scale"]
    if numbers.shape != (rows, width):
        raise ValueError("numbers of another shape")
    zeros = torch.full(scales.shape, 2 ** (bits - 1), dtype=torch.int32)
    if "weight_zero_point" in parts:
        zeros = integers(parts["weight_zero_point"].T, bits).T[:rows]
    group = parts.get("weight_g_idx")
    if group is not None and bool((group == -1).any()):
        # Of columns in their own order.
        group = None
    return Grid(numbers, zeros, scales, bits, column_groups(group, width, scales.shape[1]))


def _scaled(parts: PackedTensors) -> torch.Tensor:
    """Scale a matrix: weight is int8 or an 8-bit float, weight_scale float, of all, of groups or of blocks."""
    zeros = parts.get("weight_zero_point")
    return _times_scales(parts["weight"].float(), None if zeros is None else zeros.float(), parts)


def _times_scales(numbers: torch.Tensor, zeros: torch.Tensor | None, parts: PackedTensors) -> torch.Tensor:
    scales, (rows, width) = parts["weight_scale"], numbers.shape
    factors = scales if scales.dim() == 2 else scales.reshape(-1, 1)
    if factors.shape[0] not in (1, rows):
        # Of blocks of rows and columns.
        factors = _spread(factors, rows, 0)
        zeros = None if zeros is None else _spread(zeros, rows, 0)
    if zeros is not None:
        numbers = numbers - _spread(zeros if zeros.dim() == 2 else zeros.reshape(-1, 1), width, 1)
    return (numbers * _spread(factors, width, 1).float()).to(scales.dtype)


def _spread(values: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    """Repeat the values of groups or blocks along an axis, which one value stands for as it is."""
    count = values.shape[axis]
    if count == 1:
        return values
    return values.repeat_interleave(-(-size // count), axis).narrow(axis, 0, size)
