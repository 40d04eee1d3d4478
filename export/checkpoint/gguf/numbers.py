"""A tensor's numbers in float32, whatever its format."""

from __future__ import annotations

import numpy as np
from gguf import GGMLQuantizationType as Format
from gguf import dequantize
from numpy.typing import NDArray

from triform.export.checkpoint.gguf.blocks import can_decode, decode
from triform.export.checkpoint.gguf.container import Tensor
from triform.runtime.errors import ExportError

# Formats whose numbers are no blocks: nothing is lost by leaving them.
FLOATS = (Format.F32, Format.F16, Format.BF16, Format.F64)


def values_of(tensor: Tensor) -> NDArray[np.float32]:
    """What a tensor stands for, float32 in its own shape.

    Raises:
        ExportError: there is no way to decode its format.
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
    # A copy where it is a view of the file, which PyTorch could not write to.
    return np.array(values, np.float32).reshape(tensor.shape)
