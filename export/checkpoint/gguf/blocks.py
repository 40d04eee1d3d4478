"""Unpacks quantized tensors into integers, and a scale and a minimum for each block of integers.

The values are `scale * q - minimum`, or `scale * (q - 2 ** (bits - 1))` in a format without minimums.
Layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Format
from numpy.typing import NDArray

from triform.export.checkpoint.gguf.container import Tensor

_Bytes = NDArray[np.uint8]
# The values of the 4-bit codes of IQ4_NL and IQ4_XS.
_NONLINEAR = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)


@dataclass(frozen=True)
class Factors:
    """A number for each block, in the file's own precision.

    Attributes:
        base: float16 (rows, super-blocks).
        steps: int8 or uint8 (rows, blocks), multiplied by the base of their super-block; None if a super-block is a
            single block.
    """

    base: NDArray[np.float16]
    steps: NDArray[np.integer[Any]] | None = None

    @property
    def values(self) -> NDArray[np.float32]:
        """The numbers as float32 (rows, blocks)."""
        base = self.base.astype(np.float32)
        if self.steps is None:
            return base
        rows, count = self.steps.shape
        grouped = self.steps.reshape(rows, base.shape[1], -1).astype(np.float32)
        return (base[..., None] * grouped).reshape(rows, count)

    def repeated(self, times: int) -> Factors:
        """Each factor as often, one behind the other."""
        if self.steps is None:
            return Factors(np.repeat(self.base, times, axis=1))
        return Factors(self.base, np.repeat(self.steps, times, axis=1))

    def in_rows(self, order: NDArray[np.int64]) -> Factors:
        """The factors of some rows, in their order."""
        return Factors(self.base[order], None if self.steps is None else self.steps[order])

    def in_blocks(self, order: NDArray[np.int64]) -> Factors:
        """The factors of all blocks in another order, of which a super-block may stay the same or be cut."""
        if self.steps is None:
            return Factors(self.base[:, order])
        size = self.steps.shape[1] // self.base.shape[1]
        cut = math.gcd(_run_length(order), size)
        groups = order[::cut] // size
        return Factors(self.base[:, groups], self.steps[:, order])


def _run_length(order: NDArray[np.int64]) -> int:
    """The greatest length such that an order consists of runs of that many successive numbers, each from a multiple."""
    starts = np.flatnonzero(np.diff(order, prepend=-2) != 1)
    return math.gcd(len(order), *(int(number) for number in (*starts, *order[starts])))


def block_order(order: NDArray[np.int64], block_size: int) -> NDArray[np.int64] | None:
    """The order of blocks that an order of columns is; None if it takes blocks apart."""
    return order[::block_size] // block_size if _run_length(order) % block_size == 0 else None


@dataclass(frozen=True)
class BlockMatrix:
    """A quantized matrix.

    Attributes:
        numbers: uint8 (rows, blocks, block_size), less than 2 ** bits.
        bits: bits of a number.
        scales: the scale of each block.
        minimums: the number to subtract from each block; None if the middle of the integers' range stands for 0.
    """

    numbers: _Bytes
    bits: int
    scales: Factors
    minimums: Factors | None = None

    @property
    def block_size(self) -> int:
        """Numbers in a block."""
        return int(self.numbers.shape[2])

    def in_rows(self, order: NDArray[np.int64]) -> BlockMatrix:
        """Some rows, in their order."""
        minimums = None if self.minimums is None else self.minimums.in_rows(order)
        return BlockMatrix(self.numbers[order], self.bits, self.scales.in_rows(order), minimums)

    def in_blocks(self, order: NDArray[np.int64]) -> BlockMatrix:
        """All blocks of columns in another order."""
        minimums = None if self.minimums is None else self.minimums.in_blocks(order)
        return BlockMatrix(self.numbers[:, order], self.bits, self.scales.in_blocks(order), minimums)

    def cut(self, size: int) -> BlockMatrix:
        """The same in smaller blocks, of a size that divides that of these."""
        times = self.block_size // size
        numbers = self.numbers.reshape(len(self.numbers), -1, size)
        minimums = None if self.minimums is None else self.minimums.repeated(times)
        return BlockMatrix(numbers, self.bits, self.scales.repeated(times), minimums)

    @property
    def values(self) -> NDArray[np.float32]:
        """The dequantized matrix, float32 (rows, columns)."""
        # In place, because new memory takes longer to get than what is computed.
        values = self.numbers.astype(np.float32)
        if self.minimums is None:
            values -= np.float32(2 ** (self.bits - 1))
        values *= self.scales.values[..., None]
        if self.minimums is not None:
            values -= self.minimums.values[..., None]
        return values.reshape(len(values), -1)


def can_decode(kind: Format) -> bool:
    """Whether `decode` supports a format."""
    return kind in _DECODERS


def size_of_blocks(kind: Format) -> int:
    """Numbers in a block of what `decode` returns for a format."""
    return _SIZES.get(kind, 32)


def has_minimums(kind: Format) -> bool:
    """Whether the integer 0 stands for the minimum of its block in a format that `decode` supports."""
    return kind in _WITH_MINIMUMS


def decode(tensor: Tensor) -> BlockMatrix:
    """Unpack a matrix.

    Args:
        tensor: a tensor of two dimensions, in a format that `can_decode` accepts.
    """
    rows, (length, size) = tensor.shape[0], GGML_QUANT_SIZES[tensor.format]
    blocks = np.ascontiguousarray(tensor.data).reshape(rows, tensor.shape[1] // length, size)
    return _DECODERS[tensor.format](blocks)


def _half(blocks: _Bytes, start: int) -> NDArray[np.float16]:
    return np.ascontiguousarray(blocks[..., start : start + 2]).view(np.float16)[..., 0]


def _fields(packed: _Bytes, width: int, run: int) -> _Bytes:
    """Unpack numbers of `width` bits: of each run of bytes first the lowest bits of all, then the next ones, and so on.

    Args:
        packed: uint8 (rows, blocks, bytes).
        width: bits of a number.
        run: bytes in a run.

    Returns:
        uint8 (rows, blocks, bytes * 8 / width).
    """
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    runs = packed.reshape(*packed.shape[:2], -1, 1, run)
    return ((runs >> shifts) & np.uint8(2**width - 1)).reshape(*packed.shape[:2], -1)


def _bits(packed: _Bytes) -> _Bytes:
    """One bit for each number, lowest first."""
    return np.unpackbits(packed, axis=-1, bitorder="little")


def _cut(numbers: _Bytes, block_size: int) -> _Bytes:
    return np.ascontiguousarray(numbers).reshape(len(numbers), -1, block_size)


def _q4_0(blocks: _Bytes) -> BlockMatrix:
    return BlockMatrix(_fields(blocks[..., 2:], 4, 16), 4, Factors(_half(blocks, 0)))


def _q4_1(blocks: _Bytes) -> BlockMatrix:
    return BlockMatrix(_fields(blocks[..., 4:], 4, 16), 4, Factors(_half(blocks, 0)), Factors(-_half(blocks, 2)))


def _q5(blocks: _Bytes, start: int) -> _Bytes:
    return _fields(blocks[..., start + 4 :], 4, 16) | (_bits(blocks[..., start : start + 4]) << np.uint8(4))


def _q5_0(blocks: _Bytes) -> BlockMatrix:
    return BlockMatrix(_q5(blocks, 2), 5, Factors(_half(blocks, 0)))


def _q5_1(blocks: _Bytes) -> BlockMatrix:
    return BlockMatrix(_q5(blocks, 4), 5, Factors(_half(blocks, 0)), Factors(-_half(blocks, 2)))


def _q8_0(blocks: _Bytes) -> BlockMatrix:
    # Adding 128 to a signed byte inverts its highest bit.
    return BlockMatrix(blocks[..., 2:] ^ np.uint8(128), 8, Factors(_half(blocks, 0)))


def _steps(blocks: _Bytes, start: int) -> tuple[_Bytes, _Bytes]:
    """Eight scales and eight minimums of 6 bits in 12 bytes, uint8 (rows, blocks)."""
    first, second, both = (blocks[..., start + at : start + at + 4] for at in (0, 4, 8))
    scales = np.concatenate([first & 63, (both & 15) | ((first >> 2) & 48)], -1)
    minimums = np.concatenate([second & 63, (both >> 4) | ((second >> 2) & 48)], -1)
    return scales.reshape(len(blocks), -1), minimums.reshape(len(blocks), -1)


def _k_factors(blocks: _Bytes) -> tuple[Factors, Factors]:
    scales, minimums = _steps(blocks, 4)
    return Factors(_half(blocks, 0), scales), Factors(_half(blocks, 2), minimums)


def _q4_k(blocks: _Bytes) -> BlockMatrix:
    return BlockMatrix(_cut(_fields(blocks[..., 16:], 4, 32), 32), 4, *_k_factors(blocks))


def _q5_k(blocks: _Bytes) -> BlockMatrix:
    high = _fields(blocks[..., 16:48], 1, 32)
    return BlockMatrix(_cut(_fields(blocks[..., 48:], 4, 32) | (high << np.uint8(4)), 32), 5, *_k_factors(blocks))


def _q2_k(blocks: _Bytes) -> BlockMatrix:
    both = blocks[..., :16].reshape(len(blocks), -1)
    numbers = _cut(_fields(blocks[..., 16:80], 2, 32), 16)
    return BlockMatrix(numbers, 2, Factors(_half(blocks, 80), both & 15), Factors(_half(blocks, 82), both >> 4))


def _q3_k(blocks: _Bytes) -> BlockMatrix:
    low, high = _fields(blocks[..., 96:104], 4, 8), _fields(blocks[..., 104:108], 2, 4)
    steps = ((low | (high << np.uint8(4))).astype(np.int8) - np.int8(32)).reshape(len(blocks), -1)
    numbers = _fields(blocks[..., 32:96], 2, 32) | (_fields(blocks[..., :32], 1, 32) << np.uint8(2))
    return BlockMatrix(_cut(numbers, 16), 3, Factors(_half(blocks, 108), steps))


def _q6_k(blocks: _Bytes) -> BlockMatrix:
    steps = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8).reshape(len(blocks), -1)
    numbers = _fields(blocks[..., :128], 4, 64) | (_fields(blocks[..., 128:192], 2, 32) << np.uint8(4))
    return BlockMatrix(_cut(numbers, 16), 6, Factors(_half(blocks, 208), steps))


def _nonlinear(codes: _Bytes) -> _Bytes:
    """Eight-bit numbers around 128 for 4-bit codes."""
    return _NONLINEAR.view(np.uint8)[codes] ^ np.uint8(128)


def _iq4_nl(blocks: _Bytes) -> BlockMatrix:
    return BlockMatrix(_nonlinear(_fields(blocks[..., 2:], 4, 16)), 8, Factors(_half(blocks, 0)))


def _iq4_xs(blocks: _Bytes) -> BlockMatrix:
    high = np.ascontiguousarray(blocks[..., 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16)
    low = _fields(blocks[..., 4:8, None].reshape(*blocks.shape[:2], -1), 4, 1)
    steps = ((low | ((high & 3).astype(np.uint8) << 4)).astype(np.int8) - np.int8(32)).reshape(len(blocks), -1)
    numbers = _cut(_nonlinear(_fields(blocks[..., 8:], 4, 16)), 32)
    return BlockMatrix(numbers, 8, Factors(_half(blocks, 0), steps))


_DECODERS: dict[Format, Callable[[_Bytes], BlockMatrix]] = {
    Format.Q4_0: _q4_0, Format.Q4_1: _q4_1, Format.Q5_0: _q5_0, Format.Q5_1: _q5_1, Format.Q8_0: _q8_0,
    Format.Q2_K: _q2_k, Format.Q3_K: _q3_k, Format.Q4_K: _q4_k, Format.Q5_K: _q5_k, Format.Q6_K: _q6_k,
    Format.IQ4_NL: _iq4_nl, Format.IQ4_XS: _iq4_xs,
}  # fmt: skip
_SIZES = dict.fromkeys((Format.Q2_K, Format.Q3_K, Format.Q6_K), 16)
_WITH_MINIMUMS = (Format.Q4_1, Format.Q5_1, Format.Q2_K, Format.Q4_K, Format.Q5_K)
