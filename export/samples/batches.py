"""Puts samples of different lengths into one padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def together(samples: Sequence[Sample], pad: int) -> dict[str, Array]:
    """Sources as one batch; shorter ones are padded behind, with `pad` where there are tokens, else with zeros."""
    batch = {}
    for name in samples[0]:
        longest = max(len(sample[name]) for sample in samples)
        fill = pad if name == "input_ids" else 0
        rows = []
        for sample in samples:
            row = sample[name]
            missing = [(0, longest - len(row)), *[(0, 0)] * (row.ndim - 1)]
            rows.append(np.pad(row, missing, constant_values=fill))
        batch[name] = np.stack(rows)
    return batch


Array = NDArray[Any]
# One input of the model: its arrays by name, without the batch axis.
Sample = Mapping[str, Array]


def padded(samples: Sequence[Sample], pad: int) -> dict[str, Array]:
    """Samples as one batch: token rows padded on the right, everything else stacked."""
    batch = {}
    for name in samples[0]:
        rows = [sample[name] for sample in samples]
        if rows[0].ndim == 1:
            longest = max(len(row) for row in rows)
            fill = pad if name == "input_ids" else 0
            rows = [np.concatenate([row, np.full(longest - len(row), fill, row.dtype)]) for row in rows]
        batch[name] = np.stack(rows)
    return batch
