"""Intervals against the closed form for a mean, and comparisons of two models on the same items."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.errors import InputError
from triform.runtime.evaluation.bootstrap import compare, estimates
from triform.runtime.evaluation.measurement import Measurement, Metric, ratio

MEAN = Metric("mean", lambda rows: float(rows[:, 0].mean()))


def measured(values, same_items=None):
    values = np.asarray(values, np.float64)
    return Measurement(values[:, None], values, (MEAN,), "numbers", same_items=same_items)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    """Of many items: mean +- 1.96 standard errors."""
    values = np.random.default_rng(1).normal(3, 2, 2000)
    result = estimates(measured(values), seed=5)["mean"]
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert result.value == pytest.approx(values.mean())
    assert (result.low, result.high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.15 * error)


def test_a_seed_repeats_the_draws():
    values = np.arange(40)
    assert estimates(measured(values), seed=2) == estimates(measured(values), seed=2)
    assert estimates(measured(values), seed=2) != estimates(measured(values), seed=3)


def test_one_item_has_no_interval():
    result = estimates(measured([4.0]), seed=0)["mean"]
    assert (result.value, result.low, result.high) == (4.0, None, None)


def test_a_paired_difference_is_free_of_what_the_items_share():
    """Every item is better by 0.5, so that each draw's difference is too, however the items vary."""
    values = np.random.default_rng(0).normal(0, 100, 50)
    result = compare(measured(values + 0.5), measured(values), seed=0)
    difference = result.differences["mean"]
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.5, 0.5, 0.5))
    assert result.others["mean"] == pytest.approx(values.mean())


def test_how_many_items_are_better():
    result = compare(measured([1, 2, 3, 4]), measured([0, 2, 5, 3]), seed=0)
    assert (result.better, result.worse, result.equal) == (2, 1, 1)


def test_items_that_differ_are_not_compared():
    with pytest.raises(InputError, match="different numbers: they have different tokenizers or windows"):
        compare(measured([1, 2], "a"), measured([1, 2], "b"), seed=0)


def test_a_ratio_of_sums_is_not_a_mean_of_ratios():
    rows = np.array([[1, 2], [0, 8]], np.float64)
    assert ratio("rate", 0, 1).compute(rows) == 0.1
    assert np.isnan(ratio("rate", 0, 1).compute(np.zeros((1, 2))))
