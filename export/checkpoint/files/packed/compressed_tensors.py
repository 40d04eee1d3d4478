"""The files of compressed-tensors, as llm-compressor writes them: packed integers, or numbers of 8 bits with scales."""

from __future__ import annotations

from functools import partial

import torch

from triform.export.checkpoint.files.packed.packing import PackedTensors, Packing, integers

# What activations are rounded with in other engines; floats are not rounded here.
_OF_ACTIVATIONS = ("input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point")
_OTHERS = ("weight_zero_point", "weight_g_idx")


def compressed_packings(bits: int) -> tuple[Packing, ...]:
    """How matrices are stored.

    Args:
        bits: of packed numbers.
    """
    packed = ("weight_scale", "weight_shape", *_OTHERS)
    return (
        Packing("weight_packed", packed, partial(_unpack, bits), _OF_ACTIVATIONS),
        Packing("weight_scale", ("weight", *_OTHERS), _scaled, _OF_ACTIVATIONS),
    )


def _unpack(bits: int, parts: PackedTensors) -> torch.Tensor:
    """Unpack a matrix.

    weight_packed is int32 (out_features, in_features / n) with n numbers an integer, weight_shape the matrix's shape,
    weight_zero_point int32 (out_features / n, groups) in the same way. Numbers have half of their range added.
    """
    rows, width = (int(size) for size in parts["weight_shape"].tolist())
    half = 2 ** (bits - 1)
    numbers = integers(parts["weight_packed"], bits)[:, :width] - half
    zeros = None
    if "weight_zero_point" in parts:
        zeros = integers(parts["weight_zero_point"].T, bits).T[:rows] - half
    if numbers.shape != (rows, width):
        raise ValueError("their shapes do not fit")
    return _times_scales(numbers, zeros, parts)


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
    group = parts.get("weight_g_idx")
    if group is not None and len(group) != width:
        raise ValueError("their shapes do not fit")
    factors = _spread(factors, width, 1) if group is None else factors[:, group.long()]
    if zeros is not None:
        zeros = zeros if zeros.dim() == 2 else zeros.reshape(-1, 1)
        numbers = numbers - (_spread(zeros, width, 1) if group is None else zeros[:, group.long()])
    return (numbers * factors.float()).to(scales.dtype)


def _spread(values: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    """Repeat the values of groups or blocks along an axis, which one value stands for as it is."""
    count = values.shape[axis]
    if count == 1:
        return values
    return values.repeat_interleave(-(-size // count), axis).narrow(axis, 0, size)
