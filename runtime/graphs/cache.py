"""What a decoder keeps of its texts, in buffers that are bound as both past and present.

Keys and values of each layer grow with the text and can be cut back. A state of fixed size, of a convolution or a
recurrence, stands for the whole text: it can be copied and replaced, but not cut back. So copies are kept of the states
at the lengths where texts may part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.errors import InputError
from triform.runtime.graphs.buffers.contract import BindableStep, Buffers, RowPart, States
from triform.runtime.graphs.buffers.host import HostBuffers

if TYPE_CHECKING:
    from triform.runtime.graphs.binding import StepArrays

# Capacities are multiples of this, so that small differences in prompt length reuse the same buffers.
_STEP = 64
# Snapshots to keep. Those of a hybrid model of a billion parameters take some 20 MB each.
_MOST = 4
# Tokens that are read again rather than kept apart: a snapshot splits a run of the model in two.
_FEWEST = 16


class KVCache:
    """Which tokens the buffers of each row hold; the graph writes them in place.

    Attributes:
        buffers: keys and values, and states of fixed size.
        lengths: int32 (batch,), tokens in each row.
        capacity: tokens that a row has room for.
    """

    def __init__(self, info: CacheInfo, max_length: int, batch: int = 1, buffers: Buffers | None = None) -> None:
        """Make an empty cache.

        Args:
            info: the manifest's.
            max_length: most tokens of a row.
            batch: number of rows.
            buffers: where it lives; host memory when None.
        """
        self._info = info
        self._max_length = max_length
        self.buffers: Buffers = HostBuffers(info) if buffers is None else buffers
        # Removed rows keep their memory: the buffers may have more rows than the batch, and never fewer.
        self._rows = batch
        self.lengths = np.zeros(batch, np.int32)
        # The length of the common prefix of two rows, as far as it is known.
        self._common = np.zeros((batch, batch), np.int32)
        self.capacity = 0
        # Bindings to the buffers, by the step's number of tokens and the side of the buffers, and the layout for which
        # they were made.
        self._bindings: dict[tuple[int, int], StepArrays] = {}
        self._bound_layout = self.layout

    @property
    def nbytes(self) -> int:
        """Size of all buffers in bytes."""
        return self.buffers.nbytes

    @property
    def has_states(self) -> bool:
        """Whether there are states of fixed size, so that tokens cannot be removed one by one."""
        return bool(self._info.states)

    @property
    def layout(self) -> tuple[int, int, int]:
        """Rows in the batch, rows in the buffers, and tokens that a row has room for."""
        return len(self.lengths), self._rows, self.capacity

    def reset(self) -> None:
        """Remove all tokens; the buffers stay."""
        self.lengths[:] = 0
        self._common[:] = 0
        self.buffers.clear_states(0, self._rows)

    def trim(self, count: int) -> None:
        """Remove the last `count` tokens of every row; not for a model with states of fixed size."""
        if count and self.has_states:
            raise RuntimeError("a state of fixed size cannot be cut back; see `rewind`")
        self.lengths[:] = np.maximum(self.lengths - count, 0)
        self._common = np.minimum(self._common, np.minimum.outer(self.lengths, self.lengths))

    def advance(self, count: int | NDArray[Any]) -> None:
        """Record that the graph has written `count` more tokens to each row."""
        self.lengths += np.asarray(count, np.int32)

    def rewind(self, row: int, length: int, states: States | None) -> None:
        """Cut a row back to its first `length` tokens.

        Args:
            row: the row.
            length: tokens to keep.
            states: those after these tokens, from `states_of`; None with a length of 0.
        """
        # An interruption leaves an empty row, whose states do not matter before the next `rewind`.
        self.lengths[row] = 0
        self.buffers.set_states(row, states)
        self.lengths[row] = length
        self._common[row] = self._common[:, row] = 0

    def states_of(self, row: int) -> States:
        """Copies of a row's states of fixed size by name, such as "states.0"."""
        return self.buffers.states_of(row)

    def reserve(self, length: int) -> bool:
        """Make room for `length` tokens in each row, and keep the tokens that are there.

        Grows to at least twice the present capacity, so that a long generation copies its cache only a few times.

        Returns:
            whether the buffers changed.

        Raises:
            InputError: `length` exceeds the model's context, or the buffers do not fit into memory.
        """
        if length > self._max_length:
            raise InputError(f"{length} tokens do not fit into the model's context of {self._max_length}")
        if length <= self.capacity:
            return False
        target = max(length, 2 * self.capacity)
        self._allocate(self._rows, min(-(-target // _STEP) * _STEP, self._max_length))
        return True

    def resize(self, batch: int) -> None:
        """Keep the first `batch` rows, or append empty ones.

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
        self.buffers.clear_states(kept, batch)

    def select(self, parents: Sequence[int] | NDArray[np.integer[Any]]) -> None:
        """Replace row i with the present row `parents[i]`; rows may be repeated, left out or reordered.

        Copies only rows that move, and of their keys and values only those after the common prefix with the row they
        replace: beams of one prompt never copy the prompt again.

        Raises:
            InputError: so many rows do not fit into memory.
        """
        moves = [(to, int(source)) for to, source in enumerate(parents) if to != source]
        # Room for both the present and the new rows.
        self.resize(max(len(parents), len(self.lengths)))
        np.fill_diagonal(self._common, self.lengths)
        if moves:
            self.buffers.move(
                [RowPart(to, source, int(self._common[to, source]), int(self.lengths[source])) for to, source in moves]
            )
        chosen = np.asarray(parents, np.int64)
        self.lengths, self._common = self.lengths[chosen], self._common[np.ix_(chosen, chosen)]

    def take(self, to: int, source: int, length: int, states: States | None = None) -> None:
        """Replace row `to` with the first `length` tokens at a place in the buffers, even if its row was removed.

        Args:
            to: a row.
            source: a place, below `layout[1]`; its tokens stay there until they are overwritten.
            length: tokens to take.
            states: see `rewind`.
        """
        if to != source:
            self.buffers.move([RowPart(to, source, 0, length)])
        self.rewind(to, length, states)

    def row(self, index: int) -> KVCache:
        """One row as a batch of one; see `rows`."""
        return self.rows(index, 1)

    def rows(self, first: int, count: int) -> KVCache:
        """Return some rows as a batch that shares its memory and its lengths with this cache.

        It cannot grow: reserve here first. It is valid until this cache grows or its rows change.
        """
        chosen = slice(first, first + count)
        view = KVCache(self._info, self.capacity, count, self.buffers.view(first))
        view.lengths = self.lengths[chosen]
        view.capacity = self.capacity
        # Writes through the view may change the prefixes that these rows share with others.
        self._common[chosen] = self._common[:, chosen] = 0
        return view

    def stored(self, length: int) -> dict[str, NDArray[Any]]:
        """The first tokens' keys and values in the first row; see `Buffers.read`."""
        return self.buffers.read(length)

    def load(self, arrays: Mapping[str, NDArray[Any]], length: int) -> None:
        """Replace the first row with arrays that `stored` and `states_of` returned.

        Args:
            arrays: by name; keys and values of at least `length` tokens.
            length: tokens to take.

        Raises:
            InputError: the tokens do not fit into the model's context, or into memory.
        """
        self.reset()
        self.reserve(length)
        self.buffers.write(arrays, length)
        self.rewind(0, length, arrays)

    def bind(self, binding: BindableStep) -> None:
        """Bind every buffer as the graph's past and present; valid until the layout changes."""
        self.buffers.bind(binding, len(self.lengths))

    def kept_binding(self, tokens: int, make: Callable[[], StepArrays]) -> StepArrays:
        """Return a step's binding, bound to this cache and reused until the layout changes.

        Args:
            tokens: in each row of the step.
            make: makes the binding.
        """
        if self._bound_layout != self.layout:
            self.forget_bindings()
        place = tokens, self.buffers.side
        binding = self._bindings.get(place)
        if binding is None:
            binding = make()
            self.bind(binding)
            self._bindings[place], self._bound_layout = binding, self.layout
        return binding

    def forget_bindings(self) -> None:
        """Make the next steps bind their arrays again."""
        self._bindings.clear()

    def _allocate(self, rows: int, capacity: int) -> None:
        """Move all tokens into buffers of this many rows and tokens, one buffer at a time."""
        # Bindings would keep the old buffers alive beside the new ones.
        self.forget_bindings()
        used = int(self.lengths.max(initial=0))
        try:
            self.buffers.grow(rows, capacity, min(rows, len(self.lengths)), used)
        except MemoryError:
            # Some buffers have grown and others have not, so none can be used.
            self.buffers.drop()
            self.reset()
            self._rows, self.capacity = len(self.lengths), 0
            what = f"a cache of {capacity} tokens" if rows == 1 else f"a cache of {rows} rows of {capacity} tokens"
            raise InputError(f"{what} does not fit into memory; ask for fewer tokens") from None
        self._rows, self.capacity = rows, capacity


def place_rows(parents: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Find places for the rows of a new batch so that few rows move, and none is read after it was written.

    Args:
        parents: for each new row, the place of its parent.

    Returns:
        int64 (rows,), a permutation: the place of each new row. One child of every row stays in its parent's place.
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


@dataclass(frozen=True)
class Snapshot:
    """The states after a text.

    Attributes:
        ids: int64 (length,), the text.
        states: float32, by name.
    """

    ids: NDArray[np.int64]
    states: States


class Snapshots:
    """The snapshots that were made or used last."""

    def __init__(self) -> None:
        # The one that was used last is at the end.
        self._kept: list[Snapshot] = []

    def longest(self, ids: Sequence[int], most: int) -> Snapshot | None:
        """The longest snapshot of at most `most` tokens with which `ids` begin; None if there is none."""
        text = np.asarray(ids, np.int64)
        fitting = [item for item in self._kept if len(item.ids) <= most and _begins(text, item.ids)]
        if not fitting:
            return None
        longest = max(fitting, key=lambda item: len(item.ids))
        self._kept = [*(item for item in self._kept if item is not longest), longest]
        return longest

    def keep(self, ids: Sequence[int], states: States) -> None:
        """Keep the states after `ids`; the caller does not change them any more."""
        text = np.asarray(ids, np.int64)
        others = [item for item in self._kept if not np.array_equal(item.ids, text)]
        self._kept = [*others, Snapshot(text, states)][-_MOST:]


def is_worth_a_snapshot(kept: int, length: int) -> bool:
    """Whether to keep the states after `length` tokens of a text, of which the first `kept` need not be run."""
    return length - kept >= _FEWEST


def _begins(text: NDArray[np.int64], beginning: NDArray[np.int64]) -> bool:
    return np.array_equal(text[: len(beginning)], beginning)
