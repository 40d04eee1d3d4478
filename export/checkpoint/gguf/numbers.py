"""Dequantizes tensors of any format."""

from __future__ import annotations

import numpy as np
from gguf import GGMLQuantizationType as Format
from gguf import dequantize
from numpy.typing import NDArray

from triform.export.checkpoint.gguf.blocks import can_decode, decode
from triform.export.checkpoint.gguf.container import Tensor
from triform.runtime.errors import ExportError

# Formats of plain floats.
FLOATS = (Format.F32, Format.F16, Format.BF16, Format.F64)


def values_of(tensor: Tensor) -> NDArray[np.float32]:
    """The values of a tensor, float32 in its shape.

    Raises:
        ExportError: its format cannot be decoded.
    """
    if len(tensor.shape) == 2 and can_decode(tensor.format):
        return decode(tensor).values
    try:
        if tensor.format is Format.F64:
            values = tensor.data.view(np.float64).astype(np.float32)
        else:
            values = dequantize(np.ascontiguousarray(tensor.data), tensor.format)
    except NotImplementedError:
        raise ExportError(f"{tensor.name} is stored as {tensor.format.name}, which cannot be decoded here") from None
    # A view of the file is copied, because PyTorch could not write to it.
    return np.array(values, np.float32).reshape(tensor.shape)
