"""GPTQ's files (arXiv:2210.17323), as AutoGPTQ and GPTQModel write them."""

from __future__ import annotations

import torch

from triform.export.checkpoint.files.packed.packing import PackedTensors, Packing, integers

# In how many bits numbers are packed without spanning two integers.
_BITS = (2, 4, 8)


def gptq_packings(zeros_less_one: bool) -> tuple[Packing, ...]:
    """How matrices are packed.

    Args:
        zeros_less_one: whether zero points are stored less one (the format "gptq"), or as they are ("gptq_v2").
    """
    return (Packing("qweight", ("qzeros", "scales", "g_idx"), lambda parts: _unpack(parts, zeros_less_one)),)


def _unpack(parts: PackedTensors, zeros_less_one: bool) -> torch.Tensor:
    """Unpack a matrix.

    qweight is int32 (in_features / n, out_features) with n numbers an integer, qzeros int32 (groups, out_features / n),
    scales float (groups, out_features), g_idx int32 (in_features,) the group of each input channel.
    """
    scales, qzeros = parts["scales"], parts["qzeros"]
    groups, rows = scales.shape
    bits = qzeros.shape[1] * 32 // rows
    if bits not in _BITS or bits * rows != qzeros.shape[1] * 32:
        raise ValueError("numbers of an unknown size")
    numbers = integers(parts["qweight"].T, bits)
    zeros = integers(qzeros, bits)
    if zeros_less_one:
        zeros = (zeros + 1) & (2**bits - 1)
    width = numbers.shape[1]
    if "g_idx" not in parts and width % groups:
        raise ValueError("their shapes do not fit")
    group = parts["g_idx"].long() if "g_idx" in parts else torch.arange(width) // (width // groups)
    if len(numbers) != rows or len(group) != width or zeros.shape != scales.shape:
        raise ValueError("their shapes do not fit")
    return ((numbers - zeros.T[:, group]) * scales.T.float()[:, group]).to(scales.dtype)
