"""Finds the largest of many logits without sorting them. Vocabularies of 150,000 tokens and more are common."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.generation.steps import Logits, Positions

# Below this length, any method takes only a few microseconds.
SMALL = 4096
# A long array is viewed as a table of this many rows; the maxima of its columns take one fast pass.
_ROWS = 64


def at_least(values: NDArray[Any], bound: float) -> Positions:
    """Positions of the values that are at least `bound`, ascending."""
    return _among(values, bound, None if len(values) < SMALL else _table(values).max(axis=0))


def largest(logits: Logits, count: int) -> Positions:
    """Positions of the `count` largest, ascending, and of all that equal the smallest of them.

    Args:
        logits: float32 (length,), no NaN.
        count: at least 1, at most the length.
    """
    candidates: Positions | None = None
    values = logits
    if len(logits) >= SMALL and count * 4 < len(logits) // _ROWS:
        maxima = _table(logits).max(axis=0)
        # At least `count` columns have a maximum this large, so the largest values are among those that reach it.
        candidates = _among(logits, float(np.partition(maxima, -count)[-count]), maxima)
        values = logits[candidates]
    chosen = np.flatnonzero(values >= np.partition(values, -count)[-count])
    return chosen if candidates is None else candidates[chosen]


def _table(values: NDArray[Any]) -> NDArray[Any]:
    width = len(values) // _ROWS
    return values[: _ROWS * width].reshape(_ROWS, width)


def _among(values: NDArray[Any], bound: float, maxima: NDArray[Any] | None) -> Positions:
    if maxima is None:
        return np.flatnonzero(values >= bound)
    columns = np.flatnonzero(maxima >= bound)
    # Searching a few columns is several times faster than np.flatnonzero over everything.
    if len(columns) * 4 > len(maxima):
        return np.flatnonzero(values >= bound)
    table = _table(values)
    rows, places = np.nonzero(table[:, columns] >= bound)
    tail = np.flatnonzero(values[table.size :] >= bound)
    return np.concatenate([rows * table.shape[1] + columns[places], tail + table.size])
