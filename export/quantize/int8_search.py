"""How to feed a Linear with 8-bit activations: the numbers, without any graph.

Two ways, each giving every row of activations the same treatment whatever it is batched with:

*static*: channels are divided by factors that move the range of strong ones into the weights (SmoothQuant,
https://arxiv.org/abs/2211.10438), then all are rounded on one grid found by calibration. Cheapest.

*rows*: each row of activations has a grid of its own, from its largest value. For inputs whose strong values come and
go, such as those behind an activation function.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# How much of a channel's range moves into the weights; tried one by one.
_STRENGTHS = (0.0, 0.5, 0.7, 0.8, 0.9)
# Other texts reach further than those calibrated on.
_MARGIN = 1.3
# Rows may cost more time, so they must be better by this much.
_WORTH = 1.1
# Where negative values are this small beside the positive ones, the grid is mostly for the latter.
_ONE_SIDED = 0.14


@dataclass(frozen=True)
class Weights:
    """A matrix as signed 8-bit integers, one scale an output column.

    Attributes:
        numbers: int8 (out_features, in_features).
        scales: float32 (out_features,).
    """

    numbers: torch.Tensor
    scales: torch.Tensor


@dataclass(frozen=True)
class Static:
    """Activations are multiplied by `factors` and rounded, then `zero_point` is added.

    Attributes:
        factors: float32 (in_features,).
        zero_point: from 0 to 255.
        scale: what one step stands for, before the weights took over the channels' ranges.
        weights: what to multiply by.
        error: of the product, relative to its own energy, on the calibration inputs.
    """

    factors: torch.Tensor
    zero_point: int
    scale: float
    weights: Weights
    error: float


@dataclass(frozen=True)
class Rows:
    """A row is divided by its step, rounded, and `zero_point` is added.

    Attributes:
        zero_point: from 0 to 255.
        one_sided: whether the step comes from the row's largest value rather than its largest magnitude.
        levels: steps from zero to that value.
        floor: the smallest step, which keeps the values on the other side inside the grid.
        weights: what to multiply by.
        error: as of `Static`.
    """

    zero_point: int
    one_sided: bool
    levels: int
    floor: float
    weights: Weights
    error: float


def choose(inputs: torch.Tensor, weight: torch.Tensor) -> Static | Rows:
    """Try both ways on calibration inputs; take the cheaper one unless the other is clearly better.

    Args:
        inputs: float32 (rows, in_features).
        weight: float32 (out_features, in_features).
    """
    expected = inputs @ weight.T
    static = min((_static(inputs, weight, expected, strength) for strength in _STRENGTHS), key=lambda one: one.error)
    rows = _rows(inputs, weight, expected)
    return rows if static.error > _WORTH**2 * rows.error else static


def _static(inputs: torch.Tensor, weight: torch.Tensor, expected: torch.Tensor, strength: float) -> Static:
    reach = inputs.abs().amax(0).clamp(min=1e-5)
    width = weight.abs().amax(0).clamp(min=1e-5)
    smooth = reach**strength / width ** (1 - strength) if strength else torch.ones_like(reach)
    smooth = smooth / smooth.log().mean().exp()
    moved = inputs / smooth
    low, high = _MARGIN * float(moved.min().clamp(max=0)), _MARGIN * float(moved.max().clamp(min=0))
    scale = max(high - low, 1e-9) / 255
    zero_point = round(-low / scale)
    weights = _quantize(weight * smooth)
    numbers = ((moved / scale).round() + zero_point).clamp(0, 255) - zero_point
    error = _error(numbers * scale, weights, expected)
    return Static(1 / (smooth * scale), zero_point, scale, weights, error)


def _rows(inputs: torch.Tensor, weight: torch.Tensor, expected: torch.Tensor) -> Rows:
    low, high = float(inputs.min()), float(inputs.max())
    one_sided = -low < _ONE_SIDED * high
    zero_point = 32 if one_sided else 128
    levels = 255 - zero_point if one_sided else 127
    floor = max(-low, 1e-9) / zero_point if one_sided else 1e-9
    peak = inputs.amax(1, keepdim=True) if one_sided else inputs.abs().amax(1, keepdim=True)
    step = (peak / levels).clamp(min=floor)
    weights = _quantize(weight)
    numbers = ((inputs / step).round() + zero_point).clamp(0, 255) - zero_point
    return Rows(zero_point, one_sided, levels, floor, weights, _error(numbers * step, weights, expected))


def _quantize(weight: torch.Tensor) -> Weights:
    scales = weight.abs().amax(1).clamp(min=1e-12) / 127
    return Weights((weight / scales[:, None]).round().to(torch.int8), scales)


def _error(inputs: torch.Tensor, weights: Weights, expected: torch.Tensor) -> float:
    actual = inputs @ (weights.numbers.float() * weights.scales[:, None]).T
    return float((actual - expected).pow(2).sum() / expected.pow(2).sum().clamp(min=1e-30))
