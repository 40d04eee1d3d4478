"""GPTQ's files (arXiv:2210.17323), as AutoGPTQ and GPTQModel write them."""

from __future__ import annotations

from triform.export.checkpoint.files.packed.packing import Grid, PackedTensors, Packing, column_groups, integers

_BITS = (2, 3, 4, 8)


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

    qweight is int32 (in_features / n, out_features) with n numbers an integer, qzeros int32 (groups, out_features / n);
    of 3 bits, 32 numbers are in three integers.
    scales is float (groups, out_features), g_idx int32 (in_features,) the group of each input channel.
    """
    scales, qzeros = tensors["scales"], tensors["qzeros"]
    groups, rows = scales.shape
    bits = qzeros.shape[1] * 32 // rows
    if bits not in _BITS or bits * rows != qzeros.shape[1] * 32:
        raise ValueError("numbers of an unknown size")
    numbers, zeros = integers(tensors["qweight"].T, bits), integers(qzeros, bits)
    if zeros_less_one:
        zeros = (zeros + 1) & (2**bits - 1)
    return Grid(numbers, zeros.T, scales.T, bits, column_groups(tensors.get("g_idx"), numbers.shape[1], groups))
