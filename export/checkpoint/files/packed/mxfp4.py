"""The files of MXFP4, as gpt-oss has them: 4-bit floats in blocks of 32, with a power of two for each.

transformers unpacks them; it takes bytes for granted, and floats of the same name before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from triform.runtime.errors import ExportError

_BLOCKS, _SCALES = "_blocks", "_scales"


def as_bytes(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors, with blocks and scales as the bytes that they are, whatever type of 8 bits they are stored as.

    Args:
        tensors: by name, or slices of files.

    Raises:
        ExportError: blocks or scales are of a larger type, or the same matrix is stored as floats, too.
    """
    found = dict(tensors)
    for blocks in [name for name in tensors if name.endswith(_BLOCKS)]:
        name = blocks.removesuffix(_BLOCKS)
        if name in tensors:
            raise ExportError(f"{name} is stored twice, in blocks and by itself; fetch the model again")
        for part in (blocks, f"{name}{_SCALES}"):
            if part in tensors:
                found[part] = _bytes(part, tensors[part])
    return found


def _bytes(name: str, tensor: Any) -> Any:
    if hasattr(tensor, "get_dtype") and tensor.get_dtype() == "U8":
        # A slice of a file, which stays there until transformers reads it.
        return tensor
    numbers: torch.Tensor = tensor[...]
    if numbers.element_size() != 1:
        kind = str(numbers.dtype).removeprefix("torch.")
        raise ExportError(f"{name} is stored as {kind}, not as bytes; fetch the model again")
    return numbers.view(torch.uint8)
