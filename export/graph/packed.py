"""Integers of few bits, which are kept and stored packed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from triform.runtime.graphs.packed_weights import unpack

# By the bits of a number, and the 4 or 8 bits that an operator reads it in: the fields of each byte, which holds two
# numbers or one; see `packed_weights`.
_FIELDS = {
    (2, 4): ((2, 6), (2, 2)),
    (3, 4): ((2, 6), (2, 2), (1, 5), (1, 1)),
    (2, 8): ((2, 6),),
    (3, 8): ((2, 6), (1, 5)),
    (4, 8): ((4, 4),),
    (5, 8): ((4, 4), (1, 3)),
    (6, 8): ((4, 4), (2, 2)),
}


class PackedTensor(ir.LazyTensor):
    """A constant whose bytes have gaps, kept without them.

    Attributes:
        packed: uint8, see `packed_weights`.
        fields: width and place of each field.
    """

    def __init__(self, packed: NDArray[np.uint8], fields: Sequence[Sequence[int]], shape: Sequence[int]) -> None:
        """Take the packed bytes of a constant of this shape, in bytes."""
        self.packed, self.fields = packed, fields
        size = int(np.prod(shape))
        super().__init__(
            lambda: ir.tensor(unpack(packed, fields, size).reshape(shape)),
            dtype=ir.DataType.UINT8,
            shape=ir.Shape(shape),
        )

    def reshaped(self, shape: Sequence[int]) -> PackedTensor:
        """The same bytes in another shape, of which one dimension may be -1 for what is left."""
        return PackedTensor(self.packed, self.fields, np.empty(self.shape.numpy(), np.bool_).reshape(shape).shape)


def packed(integers: NDArray[np.uint8], own: int, bits: int) -> PackedTensor:
    """Pack integers as an operator reads them.

    Args:
        integers: a byte, or two in a byte, each in the upper bits; the lower ones are zero.
        own: bits that are not always zero.
        bits: 4 or 8, of each integer.
    """
    fields = _FIELDS[own, bits]
    parts = [pack_apart((integers >> np.uint8(place)) & np.uint8(2**width - 1), width) for width, place in fields]
    return PackedTensor(np.concatenate(parts), fields, integers.shape)


def pack_apart(numbers: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Pack numbers of `width` bits so that numbers in a byte are far apart, and long runs are unpacked at once.

    Args:
        numbers: uint8, as many as fill whole bytes.
        width: 1, 2 or 4.

    Returns:
        uint8 (bytes,): a byte has, lowest first, a number of each of `8 / width` equal parts of all.
    """
    parts = numbers.reshape(8 // width, -1)
    joined = parts[0].copy()
    for place, part in enumerate(parts[1:], 1):
        joined |= part << np.uint8(place * width)
    return joined
