"""Stores constants in the precision of their source, with nodes that unpack them.

ONNX Runtime computes nodes whose inputs are constants once, when it opens a graph, so the graph runs as if the unpacked
numbers were stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from triform.export.checkpoint.gguf.blocks import BlockMatrix, Factors
from triform.export.graph.nodes import add_initializer, insert

# For each width of numbers, the widths in bits of the parts that are packed separately, lowest bits first, so that a
# byte has no gaps.
_FIELDS = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2)}


class StoredConstants:
    """Adds the constants of one matrix, and the nodes that unpack them, before a node of a graph."""

    def __init__(self, graph: ir.Graph, before: ir.Node, name: str) -> None:
        self._graph, self._before, self._name = graph, before, name

    def numbers(self, matrix: BlockMatrix, bits: int) -> ir.Value:
        """Integers in the layout of MatMulNBits, uint8 (rows, blocks, block_size * bits / 8).

        Args:
            matrix: its numbers have `matrix.bits` bits and are shifted to the upper bits of `bits`.
            bits: 4 or 8.
        """
        numbers, own = matrix.numbers, matrix.bits
        if own == bits:
            return self._initializer("blocks", pack(numbers, bits))
        if bits == 8:
            return self._widened(numbers, own, bits, "")
        low, high = (self._widened(numbers[..., half::2], own, bits, f"half{half}.") for half in (0, 1))
        return self._node("BitwiseOr", [low, self._shift(high, 4)])

    def factors(self, factors: Factors, multiplier: float, name: str) -> ir.Value:
        """The numbers of the blocks times `multiplier`, float32 (rows, blocks)."""
        value = self._float(self._initializer(name, factors.base))
        if factors.steps is not None:
            rows, count = factors.steps.shape
            groups = factors.base.shape[1]
            steps = self._float(self._initializer(f"{name}.steps", factors.steps.reshape(rows, groups, -1)))
            value = self._node("Mul", [self._reshaped(value, (rows, groups, 1)), steps])
            value = self._reshaped(value, (rows, count))
        return value if multiplier == 1 else self._node("Mul", [value, self._number(multiplier)])

    def offsets(self, minimums: Factors, scales: ir.Value, bits: int) -> ir.Value:
        """The offset to add to each block if the middle of the integers' range stands for 0.

        Args:
            minimums: the number to subtract from each block if the integer 0 stands for 0.
            scales: the scale of each block, for integers of `bits` bits.
            bits: 4 or 8.

        Returns:
            float32 (rows, blocks).
        """
        middle = self.times(scales, 2.0 ** (bits - 1))
        return self._node("Sub", [middle, self.factors(minimums, 1, "minimums")])

    def times(self, value: ir.Value, factor: float) -> ir.Value:
        """The product of a constant and a number."""
        return self._node("Mul", [value, self._number(factor)])

    def rows(self, value: ir.Value, rows: int) -> ir.Value:
        """A constant of two dimensions, the first of which is `rows`."""
        return self.shaped(value, (rows, -1))

    def shaped(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """A constant in other dimensions."""
        tensor = value.const_value
        if tensor is not None:
            return self._initializer("shaped", tensor.numpy().reshape(shape))
        return self._reshaped(value, shape)

    def _widened(self, numbers: NDArray[np.uint8], own: int, bits: int, name: str) -> ir.Value:
        """Numbers of `own` bits, shifted to the upper bits of `bits`, a byte each."""
        value, done = None, 0
        for width in _FIELDS[own]:
            part = (numbers >> np.uint8(done)) & np.uint8(2**width - 1)
            field = self._shift(self._unpacked(part, width, f"{name}bits{done}"), done + bits - own)
            value = field if value is None else self._node("BitwiseOr", [value, field])
            done += width
        if value is None:
            raise ValueError(f"{self._name} has numbers of {own} bits")
        return value

    def _unpacked(self, part: NDArray[np.uint8], width: int, name: str) -> ir.Value:
        packed = self._initializer(name, pack_apart(part, width)[None])
        shifted = self._shift_by(packed, np.arange(0, 8, width, dtype=np.uint8)[:, None], "RIGHT")
        mask = self._initializer(f"{name}.mask", np.array(2**width - 1, np.uint8))
        return self._reshaped(self._node("BitwiseAnd", [shifted, mask]), part.shape)

    def _shift(self, value: ir.Value, places: int) -> ir.Value:
        return self._shift_by(value, np.array(places, np.uint8), "LEFT") if places else value

    def _shift_by(self, value: ir.Value, places: NDArray[np.uint8], direction: str) -> ir.Value:
        amount = self._initializer("places", places)
        return self._node("BitShift", [value, amount], direction=direction)

    def _float(self, value: ir.Value) -> ir.Value:
        return self._node("Cast", [value], to=int(ir.DataType.FLOAT))

    def _reshaped(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        return self._node("Reshape", [value, self._initializer("shape", np.array(shape))])

    def _number(self, number: float) -> ir.Value:
        return self._initializer("number", np.array(number, np.float32))

    def _initializer(self, name: str, array: NDArray[Any]) -> ir.Value:
        return add_initializer(self._graph, f"{self._name}.{name}", array)

    def _node(self, op_type: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
        return insert(self._graph, self._before, op_type, inputs, attributes=attributes).outputs[0]


def pack(numbers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack numbers of 4 or 8 bits along the last axis, as in MatMulNBits: the first in a byte has the lower bits."""
    return numbers if bits == 8 else numbers[..., ::2] | (numbers[..., 1::2] << np.uint8(4))


def pack_apart(numbers: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Pack numbers of `width` bits so that numbers in a byte are far apart, and long runs are unpacked at once.

    Args:
        numbers: uint8, as many as fill whole bytes.
        width: 1, 2 or 4.

    Returns:
        uint8 (bytes,): a byte has, lowest first, a number of each of `8 / width` equal parts of all.
    """
    parts = numbers.reshape(8 // width, -1)
    packed = parts[0].copy()
    for place, part in enumerate(parts[1:], 1):
        packed |= part << np.uint8(place * width)
    return packed
