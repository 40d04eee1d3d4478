"""Pads rows of different lengths at their end into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pad_rows(rows: Sequence[Sequence[int]], value: int = 0) -> NDArray[np.int64]:
    """Pad rows, at least one, to the longest.

    Returns:
        int64 (rows, longest), with `value` after the end of shorter rows.
    """
    padded = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def pad_boxes(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Pad the boxes of rows, each (tokens, 4), to the longest with zeros: (rows, longest, 4)."""
    padded = np.zeros((len(rows), max(map(len, rows)), 4), rows[0].dtype)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def text_arrays(rows: Sequence[Sequence[int]], pad: int | None) -> dict[str, NDArray[np.int64]]:
    """Return the ``input_ids`` and ``attention_mask`` of texts for an encoder, int64 (rows, longest).

    Args:
        rows: token ids of each text, at least one text.
        pad: id of the padding token; 0 when None.
    """
    lengths = np.array([[len(row)] for row in rows])
    input_ids = pad_rows(rows, pad or 0)
    return {"input_ids": input_ids, "attention_mask": (np.arange(input_ids.shape[1]) < lengths).astype(np.int64)}
