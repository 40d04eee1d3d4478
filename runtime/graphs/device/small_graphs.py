"""Writes small graphs in ONNX's protobuf format: a device has no package that does.

The numbers of fields are those of onnx.proto; the format is that of Protocol Buffers, in which a field begins with its
number and its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

FLOAT, INT64, FLOAT16 = 1, 7, 10
_IR_VERSION, _OPSET = 8, 17
_VARINT, _BYTES = 0, 2


class Operator(NamedTuple):
    """An operator of ONNX, without attributes."""

    op_type: str
    inputs: Sequence[str]
    outputs: Sequence[str]


class Tensor(NamedTuple):
    """An input or output of a graph: an element type, and a number of axes of any size."""

    name: str
    element_type: int
    rank: int


def small_graph(nodes: Iterable[Operator], inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> bytes:
    """The bytes of a model, to open as they are."""
    graph = b"".join(
        (
            *(_field(1, _node(node)) for node in nodes),
            _field(2, b"graph"),
            *(_field(11, _tensor(tensor)) for tensor in inputs),
            *(_field(12, _tensor(tensor)) for tensor in outputs),
        )
    )
    return _number(1, _IR_VERSION) + _field(8, _number(2, _OPSET)) + _field(7, graph)


def _node(node: Operator) -> bytes:
    names = (*((1, name) for name in node.inputs), *((2, name) for name in node.outputs), (4, node.op_type))
    return b"".join(_field(number, name.encode()) for number, name in names)


def _tensor(tensor: Tensor) -> bytes:
    shape = _field(1, b"") * tensor.rank
    return _field(1, tensor.name.encode()) + _field(2, _field(1, _number(1, tensor.element_type) + _field(2, shape)))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes((*parts, value))
