"""AWQ's files (arXiv:2306.00978), as AutoAWQ writes them in its version "gemm"."""

from __future__ import annotations

import torch

from triform.export.checkpoint.files.packed.packing import PackedTensors, Packing, integers

_BITS = 4
# Which of the eight numbers of an int32 a column is, from the lowest bits on.
_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def _unpack(parts: PackedTensors) -> torch.Tensor:
    """Unpack a matrix.

    qweight is int32 (in_features, out_features / 8), qzeros int32 (groups, out_features / 8), scales float
    (groups, out_features).
    """
    scales = parts["scales"]
    numbers, zeros = _columns(parts["qweight"]), _columns(parts["qzeros"])
    width, (groups, rows) = len(numbers), scales.shape
    if numbers.shape[1] != rows or zeros.shape != scales.shape or width % groups:
        raise ValueError("their shapes do not fit")
    centered = numbers.view(groups, width // groups, rows) - zeros[:, None]
    return (centered * scales[:, None].float()).view(width, rows).T.to(scales.dtype).contiguous()


def _columns(packed: torch.Tensor) -> torch.Tensor:
    eights = integers(packed, _BITS).view(len(packed), -1, len(_ORDER))
    return eights[..., list(_ORDER)].flatten(1)


AWQ = (Packing("qweight", ("qzeros", "scales"), _unpack),)
