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

if TYPE_CHECKING:
    from triform.runtime.graphs.binding import StepBinding

# Capacities are multiples of this, so that small differences in prompt length reuse the same buffers.
_STEP = 64
# The states of one row, by the names of `KVCache.states_of`.
States = Mapping[str, NDArray[Any]]

# Snapshots to keep. Those of a hybrid model of a billion parameters take some 20 MB each.
_MOST = 4
# Tokens that are read again rather than kept apart: a snapshot splits a run of the model in two.
_FEWEST = 16


class KVCache:
    """Buffers that the graph writes in place, float32.

    Keys and values are (batch, num_key_value_heads, capacity, head_dim), states of fixed size (batch, ...).

    Attributes:
        lengths: int32 (batch,), tokens in each row.
        capacity: tokens that a row has room for.
    """

    def __init__(self, info: CacheInfo, max_length: int, batch: int = 1) -> None:
        self._info = info
        self._max_length = max_length
        # Removed rows keep their memory: the buffers may have more rows than the batch, and never fewer.
        self._rows = batch
        # Bindings to the buffers, by the step's number of tokens, and the layout for which they were made.
        self._bindings: dict[int, StepBinding] = {}
        self._bound_layout = (0, 0, 0)
        self._arrays: dict[str, NDArray[np.float32]] = {}
        # The states of fixed size, all 0 in rows without tokens.
        self._states: dict[str, NDArray[np.float32]] = {}
        self.lengths = np.zeros(batch, np.int32)
        # The length of the common prefix of two rows, as far as it is known.
        self._common = np.zeros((batch, batch), np.int32)
        self.capacity = 0

    @property
    def nbytes(self) -> int:
        """Size of all buffers in bytes."""
        return sum(array.nbytes for array in (*self._arrays.values(), *self._states.values()))

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
        for array in self._states.values():
            array[:] = 0

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
        for name, array in self._states.items():
            array[row] = 0 if states is None else states[name]
        self.lengths[row] = length
        self._common[row] = self._common[:, row] = 0

    def states_of(self, row: int) -> States:
        """Copies of a row's states of fixed size by name, such as "states.0"."""
        return {name: array[row].copy() for name, array in self._states.items()}

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
        for array in self._states.values():
            array[kept:batch] = 0

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
        self._copy(moves)
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
            for array in self._arrays.values():
                array[to, :, :length] = array[source, :, :length]
        self.rewind(to, length, states)

    def row(self, index: int) -> KVCache:
        """Return one row as a batch of one that shares its memory and its length with this cache.

        It cannot grow: reserve here first. It is valid until this cache grows or its rows change.
        """
        view = KVCache(self._info, self.capacity)
        view._arrays = {name: array[index : index + 1] for name, array in self._arrays.items()}
        view._states = {name: array[index : index + 1] for name, array in self._states.items()}
        view.lengths = self.lengths[index : index + 1]
        view.capacity = self.capacity
        # Writes through the view may change the prefix that this row shares with others.
        self._common[index] = self._common[:, index] = 0
        return view

    def stored(self, length: int) -> dict[str, NDArray[np.float32]]:
        """Views of the first tokens' keys and values in the first row: float32 (num_key_value_heads, length, head_dim).

        The names are those of the graph's inputs without "past_key_values.", such as "0.key".
        """
        return {name: array[0, :, :length] for name, array in self._arrays.items()}

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
        for name, array in self._arrays.items():
            array[0, :, :length] = arrays[name][:, :length]
        self.rewind(0, length, arrays)

    def bind(self, binding: StepBinding) -> None:
        """Bind every buffer as the graph's past and present; valid until the layout changes."""
        for name, array in self._arrays.items():
            binding.bind_state(f"past_key_values.{name}", f"present.{name}", array[: len(self.lengths)])
        for name, array in self._states.items():
            binding.bind_state(f"past_{name}", f"present_{name}", array[: len(self.lengths)])

    def kept_binding(self, tokens: int, make: Callable[[], StepBinding]) -> StepBinding:
        """Return a step's binding, bound to this cache and reused until the layout changes.

        Args:
            tokens: in each row of the step.
            make: makes the binding.
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
        """Make the next steps bind their arrays again."""
        self._bindings.clear()

    def _allocate(self, rows: int, capacity: int) -> None:
        """Move all tokens into buffers of this many rows and tokens, one buffer at a time."""
        # Bindings would keep the old buffers alive beside the new ones.
        self.forget_bindings()
        try:
            for index, layer in enumerate(self._info.layers):
                shape = (rows, layer.num_key_value_heads, capacity, layer.head_dim)
                for part in ("key", "value"):
                    self._grow(f"{index}.{part}", shape)
            if rows != self._rows or not self._states:
                self._move_states(rows)
        except MemoryError:
            # Some buffers have grown and others have not, so none can be used.
            self._arrays.clear()
            self._states.clear()
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

    def _move_states(self, rows: int) -> None:
        kept = min(rows, len(self.lengths))
        for index, state in enumerate(self._info.states):
            name = f"states.{index}"
            moved = np.zeros((rows, *state.shape), np.float32)
            if name in self._states:
                moved[:kept] = self._states[name][:kept]
            self._states[name] = moved

    def _copy(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy rows, given as (to, source), as if all were copied at once."""
        spans = [(to, source, int(self._common[to, source]), int(self.lengths[source])) for to, source in moves]
        # A row that is read after it was written must be saved first; `place_rows` finds orders without such rows.
        both = {to for to, _ in moves} & {source for _, source in moves}
        for array in self._arrays.values():
            aside = {index: array[index].copy() for index in both}
            for to, source, start, end in spans:
                array[to, :, start:end] = aside.get(source, array[source])[:, start:end]
        for array in self._states.values():
            aside = {index: array[index].copy() for index in both}
            for to, source in moves:
                array[to] = aside.get(source, array[source])


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
