"""The key/value cache: one buffer a layer and part, bound to the graph as past and present alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.errors import InputError

if TYPE_CHECKING:
    from triform.runtime.graphs.binding import StepBinding

# Capacities are multiples of this, so that small differences in prompt length reuse the same buffers.
_STEP = 64


class KVCache:
    """Buffers of shape (batch, num_key_value_heads, capacity, head_dim), float32, written in place by the graph.

    Attributes:
        lengths: int32 (batch,), tokens each row holds.
        capacity: tokens a row has room for.
    """

    def __init__(self, info: CacheInfo, max_length: int, batch: int = 1) -> None:
        self._info = info
        self._max_length = max_length
        # Rows that left keep their memory: the buffers may have more rows than the batch, and never fewer.
        self._rows = batch
        # Steps' arrays that are bound to the buffers, and the layout they were bound at.
        self._bindings: dict[int, StepBinding] = {}
        self._bound_layout = (0, 0, 0)
        self._arrays: dict[str, NDArray[np.float32]] = {}
        self.lengths = np.zeros(batch, np.int32)
        # How many tokens from the start two rows have in common, as far as it is known.
        self._common = np.zeros((batch, batch), np.int32)
        self.capacity = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def layout(self) -> tuple[int, int, int]:
        """Rows in the batch, rows and tokens there is room for."""
        return len(self.lengths), self._rows, self.capacity

    def reset(self) -> None:
        """Forget all tokens; buffers stay."""
        self.lengths[:] = 0
        self._common[:] = 0

    def trim(self, count: int) -> None:
        """Forget the last `count` tokens of every row."""
        self.lengths[:] = np.maximum(self.lengths - count, 0)
        self._common = np.minimum(self._common, np.minimum.outer(self.lengths, self.lengths))

    def advance(self, count: int | NDArray[Any]) -> None:
        """Note that the graph has written `count` more tokens a row."""
        self.lengths += np.asarray(count, np.int32)

    def reserve(self, length: int) -> bool:
        """Make room for `length` tokens a row, keeping what is there.

        Grows to at least twice the present capacity, so that a long generation copies its cache a few times only.

        Returns:
            whether the buffers changed.

        Raises:
            InputError: `length` is more than the model's limit, or than fits into memory.
        """
        if length > self._max_length:
            raise InputError(f"{length} tokens do not fit into the model's context of {self._max_length}")
        if length <= self.capacity:
            return False
        target = max(length, 2 * self.capacity)
        self._allocate(self._rows, min(-(-target // _STEP) * _STEP, self._max_length))
        return True

    def resize(self, batch: int) -> None:
        """Keep the first `batch` rows, or add empty ones behind them.

        Raises:
            InputError: so many rows do not fit into memory.
        """
        if batch > self._rows:
            self._allocate(batch, self.capacity)
        kept = min(batch, len(self.lengths))
        try:
            lengths, common = np.zeros(batch, np.int32), np.zeros((batch, batch), np.int32)
        except (MemoryError, ValueError):
            # numpy's ValueError is of a size that no machine could address.
            raise InputError(f"a cache of {batch} rows does not fit into memory; ask for fewer at a time") from None
        lengths[:kept] = self.lengths[:kept]
        common[:kept, :kept] = self._common[:kept, :kept]
        self.lengths, self._common = lengths, common

    def select(self, parents: Sequence[int] | NDArray[np.integer[Any]]) -> None:
        """Make row i what row `parents[i]` is now; rows may be repeated, left out or reordered.

        Copies only rows that move, and of these only the tokens that the row they replace has not in common with them:
        beams of one prompt never copy the prompt again.

        Raises:
            InputError: so many rows do not fit into memory.
        """
        moves = [(to, int(source)) for to, source in enumerate(parents) if to != source]
        # With room for both, the rows of now and those to come.
        self.resize(max(len(parents), len(self.lengths)))
        np.fill_diagonal(self._common, self.lengths)
        self._copy(moves)
        chosen = np.asarray(parents, np.int64)
        self.lengths, self._common = self.lengths[chosen], self._common[np.ix_(chosen, chosen)]

    def take(self, to: int, source: int, length: int) -> None:
        """Make row `to` the first `length` tokens of what the buffers hold in a place, if its row has left or not.

        Args:
            to: a row.
            source: a place, below `layout[1]`; its tokens are there as long as nothing was written over them.
            length: tokens to take.
        """
        if to != source:
            for array in self._arrays.values():
                array[to, :, :length] = array[source, :, :length]
        self.lengths[to] = length
        self._common[to] = self._common[:, to] = 0

    def row(self, index: int) -> KVCache:
        """One row as a batch of one that shares its memory and its length with this cache.

        It cannot grow: reserve here first. It is good until this cache grows, or its rows change.
        """
        view = KVCache(self._info, self.capacity)
        view._arrays = {name: array[index : index + 1] for name, array in self._arrays.items()}
        view.lengths = self.lengths[index : index + 1]
        view.capacity = self.capacity
        # Whatever is written through the view, this row is not a copy of another any more.
        self._common[index] = self._common[:, index] = 0
        return view

    def stored(self, length: int) -> dict[str, NDArray[np.float32]]:
        """Views of the first `length` tokens of the first row: float32 (num_key_value_heads, length, head_dim) by name.

        Names are those of the graph's inputs, without "past_key_values.": the layer's number, and "key" or "value".
        """
        return {name: array[0, :, :length] for name, array in self._arrays.items()}

    def load(self, arrays: Mapping[str, NDArray[Any]], length: int) -> None:
        """Make the first row what `stored` gave.

        Args:
            arrays: of every name, as many tokens as `length`, or more.
            length: tokens to take.

        Raises:
            InputError: they do not fit into the model's context, or into memory.
        """
        self.reset()
        self.reserve(length)
        for name, array in self._arrays.items():
            array[0, :, :length] = arrays[name][:, :length]
        self.lengths[0] = length

    def bind(self, binding: StepBinding) -> None:
        """Bind every buffer as the graph's past and present; good until the layout changes."""
        for name, array in self._arrays.items():
            binding.bind_state(f"past_key_values.{name}", f"present.{name}", array[: len(self.lengths)])

    def kept_binding(self, tokens: int, make: Callable[[], StepBinding]) -> StepBinding:
        """A step's arrays, bound to this cache and kept for the next step until the layout changes.

        Args:
            tokens: in each row of the step.
            make: makes the arrays.
        """
        if self._bound_layout != self.layout:
            self.forget_bindings()
        binding = self._bindings.get(tokens)
        if binding is None:
            binding = make()
            self.bind(binding)
            self._bindings[tokens], self._bound_layout = binding, self.layout
        return binding

    def forget_bindings(self) -> None:
        """Make the next steps bind anew."""
        self._bindings.clear()

    def _allocate(self, rows: int, capacity: int) -> None:
        """Move everything into buffers of this many rows and tokens, one buffer at a time."""
        # They would keep the old buffers alive beside the new ones.
        self.forget_bindings()
        try:
            for index, layer in enumerate(self._info.layers):
                shape = (rows, layer.num_key_value_heads, capacity, layer.head_dim)
                for part in ("key", "value"):
                    self._grow(f"{index}.{part}", shape)
        except MemoryError:
            # Some buffers have grown and some have not: none is of use.
            self._arrays.clear()
            self.reset()
            self._rows, self.capacity = len(self.lengths), 0
            what = f"a cache of {capacity} tokens" if rows == 1 else f"a cache of {rows} rows of {capacity} tokens"
            raise InputError(f"{what} does not fit into memory; ask for fewer tokens") from None
        self._rows, self.capacity = rows, capacity

    def _grow(self, name: str, shape: tuple[int, ...]) -> None:
        grown = np.zeros(shape, np.float32)
        used = int(self.lengths.max(initial=0))
        if used:
            batch = len(self.lengths)
            grown[:batch, :, :used] = self._arrays[name][:batch, :, :used]
        self._arrays[name] = grown

    def _copy(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy rows, (to, source) each, as if all at once."""
        spans = [(to, source, int(self._common[to, source]), int(self.lengths[source])) for to, source in moves]
        # Read after it was written, a row must be put aside; `settle` finds orders in which no row is.
        both = {to for to, _ in moves} & {source for _, source in moves}
        for array in self._arrays.values():
            aside = {index: array[index].copy() for index in both}
            for to, source, start, end in spans:
                array[to, :, start:end] = aside.get(source, array[source])[:, start:end]


def settle(parents: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Where to keep the rows of a new batch so that as few as possible move, and none is read after it was written.

    Args:
        parents: for each new row, where its parent is kept.

    Returns:
        int64 (rows,), a permutation: where to keep each new row. One child of every row stays in its parent's place.
    """
    count = len(parents)
    places = np.full(count, -1, np.int64)
    taken: set[int] = set()
    for row, parent in enumerate(parents):
        if parent < count and parent not in taken:
            places[row] = parent
            taken.add(int(parent))
    places[places < 0] = [place for place in range(count) if place not in taken]
    return places
