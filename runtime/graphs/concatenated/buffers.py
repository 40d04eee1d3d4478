"""The cache of a graph that concatenates, and the arrays that such a graph reads and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array
from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.graphs.buffers.contract import BindableStep, RowPart, States
from triform.runtime.graphs.buffers.host import Arrays, HostBuffers


@dataclass
class WorkingArrays:
    """Memory for the keys and values that a run reads and for those that it writes, which the next run may read.

    Attributes:
        flat: two pieces of memory of each buffer, by the name of the graph's input.
        written: which of both the last run wrote.
        holds: the addresses of the rows, and their lengths, whose keys and values that piece has; None if it has none
            that are those of the buffers.
    """

    flat: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    written: int = 0
    holds: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def forget(self) -> None:
        """What the last run wrote is not what the buffers have any more."""
        self.holds = None

    def shaped(self, name: str, piece: int, shape: tuple[int, ...], room: int) -> Array:
        """An array in one of both pieces, with what is there.

        Args:
            name: of the graph's input.
            piece: 0 or 1.
            shape: of the array.
            room: numbers to make room for if the memory is too small, so that it is seldom replaced.
        """
        size = int(np.prod(shape))
        pieces = self.flat.get(name)
        if pieces is None or len(pieces[piece]) < size:
            grown = np.empty(max(size, room), np.float32)
            other = np.empty(0, np.float32) if pieces is None else pieces[1 - piece]
            self.flat[name] = (grown, other) if piece == 0 else (other, grown)
        result: Array = self.flat[name][piece][:size].reshape(shape)
        return result


class ConcatenatedBuffers:
    """The `Buffers` of graphs that concatenate: a decoder's other buffers, and working arrays that follow them."""

    side = 0

    def __init__(self, info: CacheInfo, working: WorkingArrays, buffers: HostBuffers | None = None) -> None:
        """Hold nothing yet.

        Args:
            info: the manifest's.
            working: of the steps that these buffers are bound to.
            buffers: what they are; empty ones when None.
        """
        self._info, self._working = info, working
        self._buffers = HostBuffers(info) if buffers is None else buffers

    @property
    def nbytes(self) -> int:
        """See `Buffers`; with the working arrays."""
        return self._buffers.nbytes + sum(array.nbytes for pair in self._working.flat.values() for array in pair)

    def grow(self, rows: int, capacity: int, kept: int, used: int) -> None:
        """See `Buffers`."""
        self._working.forget()
        # Their sizes follow those of the buffers.
        self._working.flat.clear()
        self._buffers.grow(rows, capacity, kept, used)

    def drop(self) -> None:
        """See `Buffers`."""
        self._working.forget()
        self._working.flat.clear()
        self._buffers.drop()

    def move(self, spans: Sequence[RowPart]) -> None:
        """See `Buffers`."""
        self._working.forget()
        self._buffers.move(spans)

    def set_states(self, row: int, states: States | None) -> None:
        """See `Buffers`; there are none."""

    def clear_states(self, first: int, end: int) -> None:
        """See `Buffers`; there are none."""

    def states_of(self, row: int) -> States:
        """See `Buffers`; there are none."""
        return {}

    def view(self, first: int) -> ConcatenatedBuffers:
        """See `Buffers`."""
        return ConcatenatedBuffers(self._info, self._working, self._buffers.view(first))

    def read(self, length: int) -> Arrays:
        """See `Buffers`; views."""
        return self._buffers.read(length)

    def write(self, arrays: Mapping[str, NDArray[Any]], length: int) -> None:
        """See `Buffers`."""
        self._working.forget()
        self._buffers.write(arrays, length)

    def bind(self, step: BindableStep, rows: int) -> None:
        """See `Buffers`."""
        self._buffers.bind(step, rows)
