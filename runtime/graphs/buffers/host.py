"""Keys, values and states in numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.graphs.buffers.contract import BindableStep, RowPart, States

Arrays = dict[str, NDArray[np.float32]]


class HostBuffers:
    """The `Buffers` of graphs for the CPU, float32.

    Attributes:
        arrays: keys and values, by names such as "0.key".
        states: the states of fixed size, by names such as "states.0"; all 0 in rows without tokens.
    """

    side = 0

    def __init__(self, info: CacheInfo) -> None:
        """Hold nothing yet."""
        self._info = info
        self.arrays: Arrays = {}
        self.states: Arrays = {}

    @property
    def nbytes(self) -> int:
        """See `Buffers`."""
        return sum(array.nbytes for array in (*self.arrays.values(), *self.states.values()))

    def grow(self, rows: int, capacity: int, kept: int, used: int) -> None:
        """See `Buffers`; grows one buffer at a time."""
        for index, layer in enumerate(self._info.layers):
            for name in (f"{index}.key", f"{index}.value"):
                grown = np.zeros((rows, layer.num_key_value_heads, capacity, layer.head_dim), np.float32)
                if used:
                    grown[:kept, :, :used] = self.arrays[name][:kept, :, :used]
                self.arrays[name] = grown
        for index, state in enumerate(self._info.states):
            name = f"states.{index}"
            if name in self.states and len(self.states[name]) == rows:
                continue
            moved = np.zeros((rows, *state.shape), np.float32)
            if name in self.states:
                moved[:kept] = self.states[name][:kept]
            self.states[name] = moved

    def drop(self) -> None:
        """See `Buffers`."""
        self.arrays.clear()
        self.states.clear()

    def move(self, spans: Sequence[RowPart]) -> None:
        """See `Buffers`."""
        # A row that is read after it was written must be saved first; `place_rows` finds orders without such rows.
        both = {span.to for span in spans} & {span.source for span in spans}
        for array in self.arrays.values():
            aside = {index: array[index].copy() for index in both}
            for to, source, start, end in spans:
                array[to, :, start:end] = aside.get(source, array[source])[:, start:end]
        for array in self.states.values():
            aside = {index: array[index].copy() for index in both}
            for to, source, _, _ in spans:
                array[to] = aside.get(source, array[source])

    def set_states(self, row: int, states: States | None) -> None:
        """See `Buffers`."""
        for name, array in self.states.items():
            array[row] = 0 if states is None else states[name]

    def clear_states(self, first: int, end: int) -> None:
        """See `Buffers`."""
        for array in self.states.values():
            array[first:end] = 0

    def states_of(self, row: int) -> States:
        """See `Buffers`."""
        return {name: array[row].copy() for name, array in self.states.items()}

    def view(self, first: int) -> HostBuffers:
        """See `Buffers`."""
        view = HostBuffers(self._info)
        view.arrays = {name: array[first:] for name, array in self.arrays.items()}
        view.states = {name: array[first:] for name, array in self.states.items()}
        return view

    def read(self, length: int) -> Arrays:
        """See `Buffers`; views."""
        return {name: array[0, :, :length] for name, array in self.arrays.items()}

    def write(self, arrays: Mapping[str, NDArray[Any]], length: int) -> None:
        """See `Buffers`."""
        for name, array in self.arrays.items():
            array[0, :, :length] = arrays[name][:, :length]

    def bind(self, step: BindableStep, rows: int) -> None:
        """See `Buffers`."""
        for name, array in self.arrays.items():
            step.bind_state(f"past_key_values.{name}", f"present.{name}", array[:rows])
        for name, array in self.states.items():
            step.bind_state(f"past_{name}", f"present_{name}", array[:rows])
