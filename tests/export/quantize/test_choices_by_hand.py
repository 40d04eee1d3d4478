"""Grids of activations, channels that are smoothed, and errors, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from triform.export.quantize.columns.search import (
    ROWS_WORTH_OF_AUDIO,
    RowQuantization,
    StaticQuantization,
    choose_quantization,
    smoothed_rows,
)

# All channels are equally large here and there, so that nothing is moved between them.
WEIGHT = torch.tensor([[1.0, -1.0, 0.3], [0.4, 1.0, -1.0]])
NEVER = 1e9


def channels_of(low, high):
    return torch.tensor([[low, high, high], [high, low, high / 2], [high / 3, high, low], [high, high, high]])


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (-3.0, 3.0), (0.0, 2.0), (0.5, 2.0), (-2.0, 2.0), (-0.05, 4.0)])
def test_one_grid_for_all(low, high):
    """From 1.3 times the smallest to 1.3 times the largest number there are 255 steps, and 0 is one of them."""
    inputs = channels_of(low, high)
    found = choose_quantization(inputs, WEIGHT, NEVER)
    assert isinstance(found, StaticQuantization)
    scale = 1.3 * (high - min(low, 0)) / 255
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert found.zero_point == round(-1.3 * min(low, 0) / scale)
    np.testing.assert_allclose(found.factors, [1 / scale] * 3, rtol=1e-5)
    integers = (inputs.numpy().astype(np.float64) / scale).round() + found.zero_point
    assert integers.min() >= 0 and integers.max() <= 255
    check_error(found, inputs, (integers - found.zero_point) * scale)


def check_error(found, inputs, rounded):
    """Of the product: squares of the differences, relative to squares."""
    expected = inputs.numpy() @ WEIGHT.numpy().T
    weights = found.weights.integers.numpy().astype(np.float64) * found.weights.scales.numpy()[:, None]
    error = np.square(rounded @ weights.T - expected).sum() / np.square(expected).sum()
    assert found.error == pytest.approx(error, rel=1e-3)


def test_a_grid_for_each_row():
    """The largest magnitude of a row is 127 steps from zero."""
    inputs = channels_of(-2.0, 3.0) * torch.tensor([[1.0], [0.1], [10.0], [0.01]])
    found = choose_quantization(inputs, WEIGHT, ROWS_WORTH_OF_AUDIO)
    assert isinstance(found, RowQuantization)
    assert (found.zero_point, found.one_sided, found.levels, found.floor) == (128, False, 127, 1e-9)
    steps = np.abs(inputs.numpy()).max(1, keepdims=True) / 127
    check_error(found, inputs, (inputs.numpy() / steps).round() * steps)


@pytest.mark.parametrize(("low", "one_sided"), [(-0.41, True), (-0.43, False), (-0.2, True), (0.1, True)])
def test_most_levels_are_of_the_positive_numbers_where_the_others_are_small(low, one_sided):
    """Below 0.14 of the largest, 0.42 here; the smallest number is then at most 32 steps from zero."""
    inputs = channels_of(low, 3.0)
    inputs[2] = torch.tensor([0.2, 0.1, low])
    found = choose_quantization(inputs, WEIGHT, ROWS_WORTH_OF_AUDIO)
    assert isinstance(found, RowQuantization) and found.one_sided is one_sided
    assert (found.zero_point, found.levels) == ((32, 223) if one_sided else (128, 127))
    floor = max(-low, 1e-9) / 32 if one_sided else 1e-9
    assert found.floor == pytest.approx(floor, rel=1e-6)
    values = inputs.numpy().astype(np.float64)
    peaks = (values if one_sided else np.abs(values)).max(1, keepdims=True)
    steps = np.maximum(peaks / found.levels, floor)
    assert (values / steps).round().min() >= -found.zero_point
    check_error(found, inputs, (values / steps).round() * steps)


def test_rows_must_be_better_by_as_much_as_they_are_to_be():
    """Rows of very different size have small errors with grids of their own."""
    inputs = channels_of(-3.0, 3.0) * torch.tensor([[1.0], [0.01], [1.0], [0.01]])
    by_row = choose_quantization(inputs, WEIGHT, ROWS_WORTH_OF_AUDIO)
    for_all = choose_quantization(inputs, WEIGHT, NEVER)
    assert isinstance(by_row, RowQuantization) and isinstance(for_all, StaticQuantization)
    ratio = math.sqrt(for_all.error / by_row.error)
    assert isinstance(choose_quantization(inputs, WEIGHT, ratio * 1.5), StaticQuantization)
    assert isinstance(choose_quantization(inputs, WEIGHT, ratio / 1.5), RowQuantization)


def test_channels_are_smoothed_by_their_energies():
    """SmoothQuant, equation 4, with a strength of 0.6: max|x| ** 0.6 / max|w| ** 0.4; the factors' product is 1."""
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.25, 1.0, -4.0]])
    energy = torch.tensor([1.0, 4.0, 25.0])
    found = smoothed_rows(weight, energy)
    typical = np.sqrt(energy.numpy() / 10)
    smooth = typical**0.6 / np.array([1.0, 2.0, 4.0]) ** 0.4
    smooth /= np.exp(np.log(smooth).mean())
    np.testing.assert_allclose(found.factors, 1 / smooth, rtol=1e-5)
    stored = found.weights.integers.numpy() * found.weights.scales.numpy()[:, None]
    scaled = weight.numpy() * smooth
    assert np.abs(stored - scaled).max() <= np.abs(scaled).max() / 127 / 2 * 1.001
    assert (found.zero_point, found.one_sided, found.levels, found.floor) == (128, False, 127, 1e-9)
    assert math.isnan(found.error)
    assert smoothed_rows(weight, None).factors is None
