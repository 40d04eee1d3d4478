"""Keys and values in the memory of a device, which they never leave but to be saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.graphs.buffers.contract import BindableStep, RowPart, States
from triform.runtime.graphs.device.memory import Device, Place, place_of
from triform.runtime.graphs.device.moves import RowMover

if TYPE_CHECKING:
    from onnxruntime import OrtValue


class _Side:
    """Arrays on the device, and where they are: asking for that takes time."""

    def __init__(self, values: Sequence[OrtValue]) -> None:
        self.values = values
        self.places = [place_of(value) for value in values]


class DeviceBuffers:
    """The `Buffers` of graphs for GPUs, float16 or bfloat16; there are no states of fixed size."""

    def __init__(self, info: CacheInfo, mover: RowMover, device: Device) -> None:
        """Hold nothing yet.

        Args:
            info: the manifest's.
            mover: of as many arrays as the cache has.
            device: that the decoder's graph reads its cache from.
        """
        self._device, self._dtype = device, info.dtype
        self._names = [f"{index}.{part}" for index in range(len(info.layers)) for part in ("key", "value")]
        self._sizes = [(layer.num_key_value_heads, layer.head_dim) for layer in info.layers for _ in range(2)]
        self._mover = mover
        # Rows move from one side to the other, which is made when it is first needed.
        self._sides: list[_Side | None] = [None, None]
        self.side = 0
        # Of a view: its first row.
        self._first = 0

    @property
    def nbytes(self) -> int:
        """See `Buffers`."""
        return sum(value.tensor_size_in_bytes() for side in self._sides if side for value in side.values)

    def grow(self, rows: int, capacity: int, kept: int, used: int) -> None:
        """See `Buffers`."""
        if not capacity:
            # An empty array has no address to bind.
            return
        grown = self._new(rows, capacity)
        if used:
            sources, order = self._places, list(range(kept))
        else:
            start = [self._device.upload(np.zeros((1, heads, 1, size), np.float16)) for heads, size in self._sizes]
            sources, order = [place_of(value) for value in start], [0]
        self._mover(sources, order, grown.places)
        self._sides, self.side = [grown, None], 0

    def drop(self) -> None:
        """See `Buffers`."""
        self._sides, self.side = [None, None], 0

    def move(self, spans: Sequence[RowPart]) -> None:
        """See `Buffers`; whole rows are copied, to the other side."""
        rows, _, capacity, _ = self._places[0].shape
        other = self._sides[1 - self.side] or self._new(rows, capacity)
        order = list(range(rows))
        for span in spans:
            order[span.to] = span.source
        self._mover(self._places, order, other.places)
        self.side = 1 - self.side
        self._sides[self.side] = other

    def set_states(self, row: int, states: States | None) -> None:
        """See `Buffers`; there are none."""

    def clear_states(self, first: int, end: int) -> None:
        """See `Buffers`; there are none."""

    def states_of(self, row: int) -> States:
        """See `Buffers`; there are none."""
        return {}

    def view(self, first: int) -> DeviceBuffers:
        """See `Buffers`."""
        view = object.__new__(DeviceBuffers)
        view.__dict__.update(self.__dict__)
        view._first = first
        return view

    def read(self, length: int) -> dict[str, NDArray[Any]]:
        """See `Buffers`."""
        copied = self._new(1, length)
        self._mover(self._places, [0], copied.places)
        arrays = [self._device.fetch(value)[0] for value in copied.values]
        return {name: _widened(array, self._dtype) for name, array in zip(self._names, arrays, strict=True)}

    def write(self, arrays: Mapping[str, NDArray[Any]], length: int) -> None:
        """See `Buffers`."""
        sent = [
            self._device.upload(_narrowed(arrays[name][None, :, :length], self._dtype).view(np.float16))
            for name in self._names
        ]
        self._mover([place_of(value) for value in sent], [0], [place.rows(0, 1) for place in self._places])

    def bind(self, step: BindableStep, rows: int) -> None:
        """See `Buffers`."""
        for name, place in zip(self._names, self._places, strict=True):
            step.bind_state(f"past_key_values.{name}", f"present.{name}", place.rows(self._first, rows))

    @property
    def _places(self) -> list[Place]:
        side = self._sides[self.side]
        return side.places if side else []

    def _new(self, rows: int, capacity: int) -> _Side:
        shapes = [(rows, heads, capacity, size) for heads, size in self._sizes]
        return _Side([self._device.empty(shape, np.float16) for shape in shapes])


def _widened(array: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """As float32: bfloat16 is its upper half."""
    if dtype == "float16":
        return array.astype(np.float32)
    widened: NDArray[np.float32] = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return widened


def _narrowed(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """The reverse of `_widened`, of numbers that came from there."""
    if dtype == "float16":
        return np.ascontiguousarray(array, np.float16)
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
