"""AWQ's files (arXiv:2306.00978), as AutoAWQ writes them in its version "gemm"."""

from __future__ import annotations

import torch

from triform.export.checkpoint.files.packed.packing import Grid, PackedTensors, Packing, integers

_BITS = 4
# Which of the eight numbers of an int32 a column is, from the lowest bits on.
_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


def _unpack(tensors: PackedTensors) -> Grid:
    """Unpack a matrix.

    qweight is int32 (in_features, out_features / 8), qzeros int32 (groups, out_features / 8), scales float
    (groups, out_features).
    """
    numbers, zeros = _columns(tensors["qweight"]), _columns(tensors["qzeros"])
    return Grid(numbers.T.contiguous(), zeros.T, tensors["scales"].T, _BITS)


def _columns(packed: torch.Tensor) -> torch.Tensor:
    eights = integers(packed, _BITS).view(len(packed), -1, len(_ORDER))
    return eights[..., list(_ORDER)].flatten(1)


AWQ = (Packing("qweight", ("qzeros", "scales"), _unpack, as_grid=True),)
