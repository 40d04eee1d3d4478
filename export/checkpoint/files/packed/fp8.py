"""8-bit floats with a scale of each block or of the whole matrix, as DeepSeek's, Qwen's and Mistral's files are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import torch

from triform.export.checkpoint.files.packed.packing import PackedTensors, Packing
from triform.export.checkpoint.files.packed.scales import BlockLengths, scaled

_FLOATS = (torch.float8_e4m3fn, torch.float8_e5m2)
# The last is AutoFP8's.
_MARKS = ("weight_scale_inv", "qscale_weight", "weight_scale")
# Of transformers, for a config that does not say; null is the whole matrix.
_BLOCKS = (128, 128)
# What activations are rounded with in other engines; floats are not rounded here.
_OF_ACTIVATIONS = ("activation_scale", "qscale_act", "input_scale")
# Of scales that are powers of two, stored as their exponents.
_BIAS = 127


def fp8_packings(settings: Mapping[str, Any]) -> tuple[Packing, ...]:
    """How matrices are stored, by a quantization_config; nothing if its sizes of blocks are no numbers."""
    sizes = settings.get("weight_block_size", _BLOCKS) or (None, None)
    known = isinstance(sizes, list | tuple) and len(sizes) == 2
    if not known or not all(size is None or (type(size) is int and size > 0) for size in sizes):
        return ()
    return _packings(*(frozenset(() if size is None else (size,)) for size in sizes))


@cache
def _packings(rows: frozenset[int], columns: frozenset[int]) -> tuple[Packing, ...]:
    lengths = BlockLengths(rows, columns)
    return tuple(Packing(mark, ("weight",), partial(_unpack, mark, lengths), _OF_ACTIVATIONS) for mark in _MARKS)


def _unpack(mark: str, lengths: BlockLengths, parts: PackedTensors) -> torch.Tensor:
    """Unpack a matrix: weight is an 8-bit float, its scales are floats or the exponents of powers of two as uint8.

    Raises:
        TypeError: the weight is something else, such as two 4-bit floats in a byte.
    """
    if parts["weight"].dtype not in _FLOATS:
        raise TypeError("no 8-bit floats")
    scales = parts[mark]
    scales = (scales.float() - _BIAS).exp2() if scales.dtype == torch.uint8 else scales.float()
    return scaled(parts["weight"].float(), scales, lengths=lengths)
