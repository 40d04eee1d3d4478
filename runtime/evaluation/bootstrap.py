"""Confidence intervals by the bootstrap: items are drawn again with replacement (Efron 1979)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import InputError
from triform.runtime.evaluation.measurement import Measurement, Metric, Rows

RESAMPLES = 1000
# The ends of an interval of 95 %.
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A metric with its confidence interval.

    Attributes:
        value: of all items.
        low: lower end of the interval of 95 %; None if there are too few items, or the metric is undefined for too
            many of the draws.
        high: its upper end, None together with `low`.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """One model compared with another on the same items.

    Attributes:
        others: the other model's metrics, by name.
        differences: this model's metric minus the other's, by name. Both are computed on the same draws.
        better: number of items on which this model's score is higher.
        worse: number on which it is lower.
        equal: number on which it is the same.
    """

    others: dict[str, float]
    differences: dict[str, Estimate]
    better: int
    worse: int
    equal: int


def estimates(measurement: Measurement, seed: int) -> dict[str, Estimate]:
    """Each metric with its interval, by name.

    Args:
        measurement: of at least one item.
        seed: of the draws.
    """
    rows, draws = measurement.rows, _draws(len(measurement.rows), seed)
    return {
        metric.name: _estimate(metric.compute(rows), [metric.compute(rows[draw]) for draw in draws])
        for metric in measurement.metrics
    }


def compare(measurement: Measurement, other: Measurement, seed: int) -> Comparison:
    """Compare two models on the same items.

    Args:
        measurement: of this model.
        other: of the other model.
        seed: of the draws.

    Raises:
        InputError: the items of the two cannot be compared one by one.
    """
    if measurement.same_items != other.same_items or len(measurement.rows) != len(other.rows):
        raise InputError(
            f"the two models cut the file into different {measurement.item}: they have different tokenizers or "
            "windows; evaluate each on its own and compare bits per byte"
        )
    draws = _draws(len(measurement.rows), seed)
    won, lost = measurement.scores > other.scores, measurement.scores < other.scores
    better, worse = int(won.sum()), int(lost.sum())
    return Comparison(
        {metric.name: metric.compute(other.rows) for metric in other.metrics},
        {
            metric.name: _difference(metric, measurement.rows, other.rows, draws)
            for metric in measurement.metrics
            if metric.name in {known.name for known in other.metrics}
        },
        better,
        worse,
        len(won) - better - worse,
    )


def _draws(items: int, seed: int) -> list[NDArray[np.int64]]:
    if items < 2:
        return []
    generator = np.random.default_rng(seed)
    return [generator.integers(0, items, items) for _ in range(RESAMPLES)]


def _difference(metric: Metric, rows: Rows, others: Rows, draws: list[NDArray[np.int64]]) -> Estimate:
    resampled = [metric.compute(rows[draw]) - metric.compute(others[draw]) for draw in draws]
    return _estimate(metric.compute(rows) - metric.compute(others), resampled)


def _estimate(value: float, resampled: list[float]) -> Estimate:
    # A draw may be without what a metric needs, such as two different scores for a correlation.
    usable = np.array([number for number in resampled if np.isfinite(number)])
    if len(usable) < RESAMPLES / 2:
        return Estimate(value, None, None)
    low, high = np.percentile(usable, _PERCENTILES)
    return Estimate(value, float(low), float(high))
