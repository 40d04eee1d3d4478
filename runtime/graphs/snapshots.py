"""States after the first tokens of texts, kept so that another text with the same beginning is read from there.

A state of fixed size cannot be cut back to fewer tokens as keys and values can, so it is copied at the lengths where
texts may part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The states of one row, by the names of `KVCache.states_of`.
States = dict[str, NDArray[Any]]

# Snapshots to keep. Those of a hybrid model of a billion parameters take some 20 MB each.
_MOST = 4
# Tokens that are read again rather than kept apart: a snapshot splits a run of the model in two.
_FEWEST = 16


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
