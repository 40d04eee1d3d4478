"""Chooses how to quantize the weights and activations of a Linear to 8 bits; knows nothing of graphs.

There are two ways. With both, the result of a row does not depend on the other rows of the batch.

*static*: one scale and zero point for all activations, from calibration. Before that, channels are divided by factors
that move the range of the largest channels into the weights (SmoothQuant, arXiv:2211.10438). This is the cheapest way.

*rows*: one scale for each row of activations, from its largest value. It suits inputs whose large values are in other
channels from row to row, such as the outputs of an activation function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from triform.export.quantize.columns.rounding import Int8Weights, round_to_nearest, round_with_feedback

# How much of a channel's range moves into the weights (the migration strength of SmoothQuant); each is tried.
_STRENGTHS = (0.0, 0.5, 0.7, 0.8, 0.9)
# Of those that read prompts. On SmolLM2-135M in 4 bits the divergence is 0.224 with 0.5, 0.221 with 0.6 and 0.7, 0.228
# with 0.8 and 0.248 with nothing moved.
_STRENGTH_OF_PROMPTS = 0.6
# The largest activations of other texts are beyond those of the calibration text.
_MARGIN = 1.3
# Quantizing by row takes more time, so it must be better by this factor.
ROWS_WORTH = 1.1
# For audio: voices and languages differ too much for ranges of activations that are fixed at the export.
ROWS_WORTH_OF_AUDIO = 0.0
# Where the negative values are smaller than this share of the positive ones, most levels go to the latter.
_ONE_SIDED = 0.14


@dataclass(frozen=True)
class StaticQuantization:
    """One scale for all rows: activations are multiplied by `factors` and rounded, then `zero_point` is added.

    Attributes:
        factors: float32 (in_features,).
        zero_point: from 0 to 255.
        scale: of an activation, after smoothing.
        weights: smoothed and quantized.
        error: squared error of the product on the calibration inputs, relative to its squared values.
    """

    factors: torch.Tensor
    zero_point: int
    scale: float
    weights: Int8Weights
    error: float


@dataclass(frozen=True)
class RowQuantization:
    """One scale for each row: a row is divided by its scale and rounded, then `zero_point` is added.

    Attributes:
        zero_point: from 0 to 255.
        one_sided: whether the scale comes from the row's largest value rather than its largest magnitude.
        levels: integers from zero to that value.
        floor: the smallest scale; it keeps negative values in range when `one_sided`.
        weights: quantized, after smoothing.
        error: as in `StaticQuantization`; NaN where no inputs are known.
        factors: float32 (in_features,) that activations are multiplied by first; None where they stay as they are.
    """

    zero_point: int
    one_sided: bool
    levels: int
    floor: float
    weights: Int8Weights
    error: float
    factors: torch.Tensor | None = None


def smoothed_rows(weight: torch.Tensor, energy: torch.Tensor | None) -> RowQuantization:
    """Quantize by row, with part of the range of the largest channels moved into the weights.

    Args:
        weight: float (out_features, in_features).
        energy: of each input channel on calibration texts, in any unit, float32 (in_features,); None if it is unknown,
            and nothing is moved.
    """
    weight, factors = weight.float(), None
    if energy is not None:
        typical = (energy / energy.mean().clamp(min=1e-12)).sqrt()
        smooth = _smooth(typical, weight, _STRENGTH_OF_PROMPTS)
        weight, factors = weight * smooth, 1 / smooth
    return RowQuantization(128, False, 127, 1e-9, round_to_nearest(weight), math.nan, factors)


def choose_quantization(
    inputs: torch.Tensor, weight: torch.Tensor, rows_worth: float = ROWS_WORTH
) -> StaticQuantization | RowQuantization:
    """Try both ways on calibration inputs; choose the cheaper way unless the other is clearly better.

    They are compared with weights that are rounded to nearest; those of the chosen way are rounded with error feedback.

    Args:
        inputs: float32 (rows, in_features).
        weight: float32 (out_features, in_features).
        rows_worth: how many times smaller the error of scales by row must be for them to be chosen.
    """
    expected = inputs @ weight.T
    candidates = (_static(inputs, weight, expected, strength) for strength in _STRENGTHS)
    static = min(candidates, key=lambda candidate: candidate.error)
    rows = _rows(inputs, weight, expected)
    if static.error > rows_worth**2 * rows.error:
        weights = round_with_feedback(weight, inputs)
        return replace(rows, weights=weights, error=_error(_rounded_rows(inputs, rows), weights, expected))
    smooth = 1 / (static.factors * static.scale)
    weights = round_with_feedback(weight * smooth, inputs / smooth)
    return replace(static, weights=weights, error=_error(_rounded_all(inputs, static), weights, expected))


def _static(inputs: torch.Tensor, weight: torch.Tensor, expected: torch.Tensor, strength: float) -> StaticQuantization:
    smooth = _smooth(inputs.abs().amax(0), weight, strength)
    smoothed = inputs / smooth
    low, high = _MARGIN * float(smoothed.min().clamp(max=0)), _MARGIN * float(smoothed.max().clamp(min=0))
    scale = max(high - low, 1e-9) / 255
    zero_point = round(-low / scale)
    recipe = StaticQuantization(1 / (smooth * scale), zero_point, scale, round_to_nearest(weight * smooth), math.nan)
    return replace(recipe, error=_error(_rounded_all(inputs, recipe), recipe.weights, expected))


def _rounded_all(inputs: torch.Tensor, recipe: StaticQuantization) -> torch.Tensor:
    """Smoothed activations as the product takes them."""
    integers = ((inputs * recipe.factors).round() + recipe.zero_point).clamp(0, 255) - recipe.zero_point
    return integers * recipe.scale


def _smooth(inputs: torch.Tensor, weight: torch.Tensor, strength: float) -> torch.Tensor:
    """What to divide each channel by, from the size of its values."""
    if not strength:
        return torch.ones_like(inputs)
    smooth = inputs.clamp(min=1e-5) ** strength / weight.abs().amax(0).clamp(min=1e-5) ** (1 - strength)
    return smooth / smooth.log().mean().exp()


def _rows(inputs: torch.Tensor, weight: torch.Tensor, expected: torch.Tensor) -> RowQuantization:
    low, high = float(inputs.min()), float(inputs.max())
    one_sided = -low < _ONE_SIDED * high
    zero_point = 32 if one_sided else 128
    levels = 255 - zero_point if one_sided else 127
    floor = max(-low, 1e-9) / zero_point if one_sided else 1e-9
    recipe = RowQuantization(zero_point, one_sided, levels, floor, round_to_nearest(weight), math.nan)
    return replace(recipe, error=_error(_rounded_rows(inputs, recipe), recipe.weights, expected))


def _rounded_rows(inputs: torch.Tensor, recipe: RowQuantization) -> torch.Tensor:
    """Activations as the product takes them."""
    peak = inputs.amax(1, keepdim=True) if recipe.one_sided else inputs.abs().amax(1, keepdim=True)
    step = (peak / recipe.levels).clamp(min=recipe.floor)
    return (((inputs / step).round() + recipe.zero_point).clamp(0, 255) - recipe.zero_point) * step


def _error(inputs: torch.Tensor, weights: Int8Weights, expected: torch.Tensor) -> float:
    actual = inputs @ (weights.integers.float() * weights.scales[:, None]).T
    return float((actual - expected).pow(2).sum() / expected.pow(2).sum().clamp(min=1e-30))
