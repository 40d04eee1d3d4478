"""Rows of different lengths as arrays: filled up at their end to the longest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pad_rows(rows: Sequence[Sequence[int]], value: int = 0) -> NDArray[np.int64]:
    """One array of all rows, at least one.

    Returns:
        int64 (rows, longest), with `value` behind the end of shorter rows.
    """
    padded = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def text_arrays(rows: Sequence[Sequence[int]], pad: int | None) -> dict[str, NDArray[np.int64]]:
    """Token ids of texts as an encoder takes them: ``input_ids`` and ``attention_mask``, int64 (rows, longest).

    Args:
        rows: of each text, at least one.
        pad: the id that fills up shorter ones; 0 when None.
    """
    lengths = np.array([[len(row)] for row in rows])
    input_ids = pad_rows(rows, pad or 0)
    return {"input_ids": input_ids, "attention_mask": (np.arange(input_ids.shape[1]) < lengths).astype(np.int64)}
