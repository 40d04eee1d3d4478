"""GPTQ's files (arXiv:2210.17323), as AutoGPTQ and GPTQModel write them."""

from __future__ import annotations

import torch

from triform.export.checkpoint.files.packed.packing import Grid, PackedTensors, Packing, integers

# In how many bits numbers are packed without spanning two integers.
_BITS = (2, 4, 8)


def gptq_packings(zeros_less_one: bool) -> tuple[Packing, ...]:
    """How matrices are packed.

    Args:
        zeros_less_one: whether zero points are stored less one (the format "gptq"), or as they are ("gptq_v2").
    """
    return (
        Packing("qweight", ("qzeros", "scales", "g_idx"), lambda parts: _unpack(parts, zeros_less_one), as_grid=True),
    )


def _unpack(tensors: PackedTensors, zeros_less_one: bool) -> Grid:
    """Unpack a matrix.

    qweight is int32 (in_features / n, out_features) with n numbers an integer, qzeros int32 (groups, out_features / n),
    scales float (groups, out_features), g_idx int32 (in_features,) the group of each input channel.
    """
    scales, qzeros = tensors["scales"], tensors["qzeros"]
    groups, rows = scales.shape
    bits = qzeros.shape[1] * 32 // rows
    if bits not in _BITS or bits * rows != qzeros.shape[1] * 32:
        raise ValueError("numbers of an unknown size")
    numbers, zeros = integers(tensors["qweight"].T, bits), integers(qzeros, bits)
    if zeros_less_one:
        zeros = (zeros + 1) & (2**bits - 1)
    return Grid(numbers, zeros.T, scales.T, bits, _order(tensors.get("g_idx"), numbers.shape[1], groups))


def _order(group: torch.Tensor | None, width: int, groups: int) -> torch.Tensor | None:
    """The group of each column, None where they follow each other."""
    if group is None:
        return None
    if len(group) != width:
        raise ValueError("groups of other columns")
    follow = width % groups == 0 and torch.equal(group.long(), torch.arange(width) // (width // groups))
    return None if follow else group.long()
