"""Puts samples of different lengths into one padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# One input of the model: its arrays by name, without the batch axis.
Sample = Mapping[str, Array]


@dataclass(frozen=True)
class SampleSets:
    """Samples of one graph, by what they are for.

    Attributes:
        parity: for comparing the float graph with PyTorch; their lengths differ where lengths can.
        calibration: for choosing how to quantize.
        evaluation: for comparing the quantized graph with the float graph.
    """

    parity: Sequence[Sample]
    calibration: Sequence[Sample]
    evaluation: Sequence[Sample]


def padded(samples: Sequence[Sample], pad: int) -> dict[str, Array]:
    """Stack samples into one batch, padded at the end of their first axis: `input_ids` with `pad`, others with 0."""
    return {
        name: np.stack(_equally_long([sample[name] for sample in samples], pad if name == "input_ids" else 0))
        for name in samples[0]
    }


def _equally_long(rows: list[Array], fill: int) -> list[Array]:
    if rows[0].ndim == 0:
        return rows
    longest = max(len(row) for row in rows)
    later_axes = [(0, 0)] * (rows[0].ndim - 1)
    return [np.pad(row, [(0, longest - len(row)), *later_axes], constant_values=fill) for row in rows]
