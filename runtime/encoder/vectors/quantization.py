"""Quantizes vectors to float16, to 8 bits or to one bit per number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array, unit
from triform.runtime.errors import InputError

DTYPES = ("float32", "float16", "int8", "binary")


def int8_ranges(dimension: int) -> Array:
    """Return the least and the greatest value that int8 represents in each dimension: float32 (2, dimension).

    The numbers in a vector of length 1 are about ``1 / sqrt(dimension)``; 127 represents eight times that, but at most
    1. The range is fixed, so that vectors computed at different times can be compared, and the same in every dimension,
    so that cosines are preserved. It is chosen so that quantizing rounds to the nearest step.
    """
    step = min(1.0, 8 / dimension**0.5) / 127
    return np.repeat(np.array([[-128.5 * step], [126.5 * step]], np.float32), dimension, axis=1)


def quantize(vectors: Array, dtype: str, ranges: Array | None = None) -> NDArray[Any]:
    """Quantize vectors as sentence-transformers' ``quantize_embeddings`` does.

    Source: https://sbert.net/docs/package_reference/util/quantization.html

    Args:
        vectors: float32 (…, dimension).
        dtype: float32; float16; int8, which is 256 steps over `ranges`; or binary, which is one bit per number, set if
            it is above 0. The first number is the highest bit of the first byte; 128 is subtracted from each byte to
            make it int8 (…, ceil(dimension / 8)).
        ranges: for int8, the least and the greatest value in each dimension, float32 (2, dimension). When None, the
            vectors are scaled to length 1 first, and `int8_ranges` is used.

    Returns:
        the quantized vectors, of that dtype or int8 for binary.

    Raises:
        InputError: there is no such dtype.
    """
    if dtype == "binary":
        packed: NDArray[np.uint8] = np.packbits(vectors > 0, axis=-1)
        return (packed ^ np.uint8(0x80)).view(np.int8)
    if dtype == "int8":
        if ranges is None:
            vectors, ranges = unit(vectors), int8_ranges(vectors.shape[-1])
        steps = (ranges[1] - ranges[0]) / 255
        steps = np.where(steps == 0, np.float32(1), steps)
        levels: Array = np.clip(np.floor((vectors - ranges[0]) / steps), 0, 255)
        return (levels - 128).astype(np.int8)
    check_dtype(dtype)
    return vectors.astype(dtype)


def check_dtype(dtype: str) -> None:
    """Check the name of a dtype for `quantize`.

    Raises:
        InputError: there is no such dtype.
    """
    if dtype not in DTYPES:
        raise InputError(f"vectors can be {', '.join(DTYPES)}, not {dtype}")


def storage(dimensions: int, dtype: str) -> tuple[int, str]:
    """Return the length and the numpy dtype of a vector of `dimensions` numbers after `quantize`."""
    return (-(-dimensions // 8), "int8") if dtype == "binary" else (dimensions, dtype)
