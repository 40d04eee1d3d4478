"""What a cache asks of the memory that it lives in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

# The states of one row, by the names of `Buffers.states_of`.
States = Mapping[str, NDArray[Any]]


class RowPart(NamedTuple):
    """A part of a row that moves: tokens `start` to `end` of row `source` become those of row `to`."""

    to: int
    source: int
    start: int
    end: int


class BindableStep(Protocol):
    """A step that buffers are bound to."""

    def bind_state(self, past: str, present: str, value: Any) -> None:
        """Bind a buffer as the input that reads it and the output that writes it."""


class Buffers(Protocol):
    """Keys and values, (rows, num_key_value_heads, capacity, head_dim), and states, (rows, ...), of all layers."""

    @property
    def nbytes(self) -> int:
        """Size of all buffers in bytes."""

    @property
    def side(self) -> int:
        """Which of its memories is in use: a step that is bound to another has to be bound again."""

    def grow(self, rows: int, capacity: int, kept: int, used: int) -> None:
        """Become buffers of this size.

        Args:
            rows: at least as many as before.
            capacity: at least as many tokens as before.
            kept: rows to keep.
            used: tokens to keep of each.

        Raises:
            MemoryError: they do not fit; what is there cannot be used any more.
        """

    def drop(self) -> None:
        """Give all memory back."""

    def move(self, spans: Sequence[RowPart]) -> None:
        """Move parts of rows, and their states, as if all were moved at once."""

    def set_states(self, row: int, states: States | None) -> None:
        """Replace a row's states of fixed size; None sets them to 0."""

    def clear_states(self, first: int, end: int) -> None:
        """Set the states of the rows from `first` to `end` to 0."""

    def states_of(self, row: int) -> States:
        """Copies of a row's states of fixed size by name, such as "states.0"."""

    def view(self, first: int) -> Buffers:
        """The rows from `first` on, in the memory of these buffers; valid until they grow or their rows move."""

    def read(self, length: int) -> dict[str, NDArray[Any]]:
        """The first tokens' keys and values in the first row: float32 (num_key_value_heads, length, head_dim).

        The names are those of the graph's inputs without "past_key_values.", such as "0.key".
        """

    def write(self, arrays: Mapping[str, NDArray[Any]], length: int) -> None:
        """Replace the first tokens of the first row by those of arrays that `read` returned."""

    def bind(self, step: BindableStep, rows: int) -> None:
        """Bind the first rows of every buffer as the graph's past and present."""
