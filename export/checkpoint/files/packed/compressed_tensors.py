"""The files of compressed-tensors, as llm-compressor writes them: packed integers, or numbers of 8 bits with scales."""

from __future__ import annotations

from functools import cache, partial

import torch

from triform.export.checkpoint.files.packed.packing import Grid, PackedTensors, Packing, column_groups, integers
from triform.export.checkpoint.files.packed.scales import BlockLengths, scaled
from triform.runtime.errors import ExportError

# What activations are rounded with in other engines; floats are not rounded here.
_OF_ACTIVATIONS = ("input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point")
_UNKNOWN = BlockLengths()


def scaled_packings(lengths: BlockLengths = _UNKNOWN) -> tuple[Packing, ...]:
    """How matrices of 8-bit numbers are stored, whose groups and blocks have one of these lengths."""
    return _made_once(lengths)


@cache
def _made_once(lengths: BlockLengths) -> tuple[Packing, ...]:
    return (Packing("weight_scale", ("weight", "weight_zero_point"), partial(_scaled, lengths), _OF_ACTIVATIONS),)


def grid_packings(bits: int, lengths: BlockLengths = _UNKNOWN) -> tuple[Packing, ...]:
    """How matrices of integers of so many bits are packed; others are stored as `scaled_packings` says."""
    others = ("weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx")
    grid = Packing("weight_packed", others, partial(_unpack, bits), _OF_ACTIVATIONS, as_grid=True)
    return (grid, *scaled_packings(lengths))


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


def _scaled(lengths: BlockLengths, parts: PackedTensors) -> torch.Tensor:
    """Scale a matrix: weight is int8 or an 8-bit float, weight_scale float, of all, of groups or of blocks.

    Raises:
        ExportError: the weight has its full size, and the scale is for rounding it while a model runs.
        TypeError: the scales are no floats, such as the exponents of powers of two.
    """
    zeros, scales, weight = parts.get("weight_zero_point"), parts["weight_scale"], parts["weight"]
    if weight.is_floating_point() and weight.itemsize > 1:
        raise ExportError(
            f"a matrix is stored in {str(weight.dtype).removeprefix('torch.')} beside scales that "
            "compressed-tensors rounds it with while a model runs, which no bundle does; save the model compressed "
            "(save_compressed), or give the checkpoint that it was made from"
        )
    if not scales.is_floating_point():
        raise TypeError(f"scales of {scales.dtype}")
    return scaled(weight.float(), scales, None if zeros is None else zeros.float(), lengths).to(scales.dtype)
