"""What an evaluation returns: statistics of each item, and the metrics that are computed from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A number that sums up a whole file.

    Attributes:
        name: as the field calls it.
        compute: from the statistics of the items, float64 (items, columns), to the metric.
    """

    name: str
    compute: Callable[[Rows], float]


@dataclass(frozen=True)
class Measurement:
    """The result of an evaluation.

    Attributes:
        rows: statistics of each item, float64 (items, columns).
        scores: how well the model did on each item, float64 (items,); higher is better.
        metrics: what to compute from `rows`.
        item: what an item is, in the plural.
        details: how it was measured, for the report.
        same_items: equal for two models if and only if their items can be compared one by one.
    """

    rows: Rows
    scores: NDArray[np.float64]
    metrics: tuple[Metric, ...]
    item: str
    details: Mapping[str, int | float | str] = field(default_factory=dict)
    same_items: object = None


def ratio(name: str, numerator: int, denominator: int) -> Metric:
    """The sum of one column divided by that of another; NaN where that one is 0."""

    def compute(rows: Rows) -> float:
        total = rows[:, denominator].sum()
        return float(rows[:, numerator].sum() / total) if total else float("nan")

    return Metric(name, compute)
