"""The formulas that several forms share, against PyTorch in float64, and at the ends of what floats hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from triform.runtime.arithmetic import (
    check_numbers,
    cosines,
    log_probability,
    log_softmax,
    log_sum_exp,
    sigmoid,
    softmax,
    unit,
    units,
)
from triform.runtime.errors import BundleError

ROWS = np.random.default_rng(0).normal(0, 4, (3, 7)).astype(np.float32)
# Exponentials of these overflow, or are nothing, in float32 and in float64.
FAR = np.array([[-1e4, 0, 1e4], [1e4, 1e4, -1e4], [-3e4, -2e4, -2e4]], np.float32)


@pytest.mark.parametrize("logits", [ROWS, FAR, ROWS[0]])
def test_probabilities(logits):
    exact = torch.from_numpy(logits).double()
    np.testing.assert_allclose(softmax(logits), exact.softmax(-1), rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(log_softmax(logits), exact.log_softmax(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_sum_exp(logits), exact.logsumexp(-1, keepdim=True), rtol=1e-6)
    np.testing.assert_allclose(sigmoid(logits), exact.sigmoid(), rtol=1e-12, atol=1e-300)
    for row, expected in zip(np.atleast_2d(logits), torch.atleast_2d(exact.log_softmax(-1)), strict=True):
        assert log_probability(row, 1) == pytest.approx(float(expected[1]), rel=1e-6, abs=1e-6)


def test_banned_tokens_have_no_probability():
    logits = np.array([1.0, -np.inf, 1.0], np.float32)
    assert softmax(logits).tolist() == [0.5, 0, 0.5]
    assert log_softmax(logits)[1] == -np.inf
    assert log_softmax(logits)[0] == pytest.approx(-np.log(2))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0), (2, 6)])
def test_what_is_no_number_is_refused(value, place):
    logits = ROWS.copy()
    logits[place] = value
    with pytest.raises(BundleError, match="computed logits that are not numbers"):
        log_softmax(logits)
    with pytest.raises(BundleError, match="computed results that are not numbers"):
        check_numbers([ROWS, logits])
    with pytest.raises(BundleError, match="computed results that are not numbers"):
        check_numbers([logits, ROWS])
    check_numbers([ROWS, ROWS])


def test_a_row_without_any_probability_is_refused():
    logits = ROWS.copy()
    logits[1] = -np.inf
    with pytest.raises(BundleError, match="logits that are not numbers"):
        log_softmax(logits)


def test_lengths_of_one():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [-1e-3, 0.0]], np.float32)
    expected = np.array([[0.6, 0.8], [0, 0], [-1, 0]])
    np.testing.assert_allclose(unit(vectors), expected, rtol=1e-6)
    np.testing.assert_allclose(unit(vectors[0]), expected[0], rtol=1e-6)
    np.testing.assert_allclose(units(list(vectors)), expected, rtol=1e-6)
    assert unit(vectors).dtype == np.float32


def test_cosines():
    """Of (3, 4) with (4, 3), with itself, with its opposite, with zeros, and with what is at right angles."""
    left = np.array([[3, 4], [6, 8]], np.float32)
    right = np.array([[4, 3], [3, 4], [-3, -4], [0, 0], [4, -3]], np.float32)
    expected = [0.96, 1, -1, 0, 0]
    np.testing.assert_allclose(cosines(left, right), [expected, expected], atol=1e-12)
    assert cosines(left[0], right[0]) == pytest.approx(0.96)
    many = np.random.default_rng(1).normal(size=(50, 33)).astype(np.float32)
    assert np.abs(cosines(many, many)).max() <= 1
