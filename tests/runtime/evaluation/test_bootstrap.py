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


def test_two_items_have_an_interval():
    """Of two numbers a draw has the mean 0, 0.5 or 1, each end in a quarter of the draws."""
    result = estimates(measured([0.0, 1.0]), seed=0)["mean"]
    assert (result.value, result.low, result.high) == (0.5, 0.0, 1.0)


def test_every_item_is_drawn():
    """The first and the last of many, too: a draw of n leaves one out with the likelihood (1 - 1/n)**n."""
    values = np.zeros(50)
    values[[0, -1]] = 1
    result = estimates(measured(values), seed=0)["mean"]
    # Two of fifty: the number of ones is nearly Poisson's of the mean 2, whose 97.5 % is 5.
    assert (result.low, result.high) == (0.0, pytest.approx(5 / 50, abs=1 / 50))
    for place in (0, -1):
        values = np.zeros(50)
        values[place] = 1
        assert estimates(measured(values), seed=0)["mean"].high > 0


@pytest.mark.parametrize(("defined", "has"), [(0.25, False), (0.75, True)])
def test_a_metric_that_is_undefined_for_most_draws_has_no_interval(defined, has):
    rng = np.random.default_rng(0)
    sometimes = Metric("sometimes", lambda rows: 1.0 if rng.random() < defined else float("nan"))
    result = estimates(Measurement(np.zeros((9, 1)), np.zeros(9), (sometimes,), "numbers"), seed=0)["sometimes"]
    assert (result.low is not None, result.high is not None) == (has, has)


def test_metrics_that_only_one_has_are_not_compared():
    one, other = measured([1.0, 2.0]), measured([1.0, 1.0])
    double = Metric("double", lambda rows: 2 * float(rows[:, 0].mean()))
    one = Measurement(one.rows, one.scores, (MEAN, double), "numbers")
    result = compare(one, other, seed=0)
    assert result.differences.keys() == result.others.keys() == {"mean"}
    assert (result.differences["mean"].value, result.others["mean"]) == (0.5, 1.0)
    with pytest.raises(InputError, match="different numbers"):
        compare(one, measured([1.0, 1.0, 1.0]), seed=0)


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
