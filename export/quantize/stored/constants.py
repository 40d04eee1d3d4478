"""Stores constants in the precision of their source: integers packed, other numbers with nodes that compute them.

ONNX Runtime computes nodes whose inputs are constants once, when it opens a graph, so the graph runs as if their
results were stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from triform.export.checkpoint.gguf.blocks import Factors
from triform.export.graph.nodes import add_initializer, insert
from triform.export.graph.packed import PackedTensor, packed


class StoredConstants:
    """Adds the constants of one matrix, and the nodes that unpack them, before a node of a graph."""

    def __init__(self, graph: ir.Graph, before: ir.Node, name: str) -> None:
        self._graph, self._before, self._name = graph, before, name

    def numbers(self, numbers: NDArray[np.uint8], own: int, bits: int) -> ir.Value:
        """Integers in the layout of MatMulNBits, uint8 (rows, blocks, block_size * bits / 8).

        Args:
            numbers: of `own` bits, uint8 (rows, blocks, block_size); they are shifted to the upper bits of `bits`.
            own: 2 to 8.
            bits: 4 or 8.
        """
        if own == bits:
            return self._initializer("blocks", pack(numbers, bits))
        integers = pack(numbers << np.uint8(bits - own), bits)
        return add_initializer(self._graph, f"{self._name}.blocks", packed(integers, own, bits))

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
        if isinstance(tensor, PackedTensor):
            return add_initializer(self._graph, f"{self._name}.shaped", tensor.reshaped(shape))
        if tensor is not None:
            return self._initializer("shaped", tensor.numpy().reshape(shape))
        return self._reshaped(value, shape)

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
