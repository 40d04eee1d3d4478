"""Rounds matrices to 8-bit integers with a scale for each output column, without or with error feedback."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from triform.export.quantize.error_feedback import inverse_factor

# Columns whose errors are fed back together to those behind them: only for speed.
_TOGETHER = 128
# Added to the diagonal of the inputs' second moments, as a share of its mean.
_DAMPING = 0.1


@dataclass(frozen=True)
class Int8Weights:
    """A matrix of signed 8-bit integers with one scale per output column.

    Attributes:
        integers: int8 (out_features, in_features).
        scales: float32 (out_features,).
    """

    integers: torch.Tensor
    scales: torch.Tensor


def round_to_nearest(weight: torch.Tensor) -> Int8Weights:
    """Round each number by itself.

    Args:
        weight: float32 (out_features, in_features).
    """
    scales = _scales(weight)
    return Int8Weights((weight / scales[:, None]).round().to(torch.int8), scales)


def round_with_feedback(weight: torch.Tensor, inputs: torch.Tensor) -> Int8Weights:
    """Round one input channel after the other, and change those that follow so that products change least (GPTQ).

    Source: arXiv:2210.17323. The scales are those of `round_to_nearest`.

    Args:
        weight: float32 (out_features, in_features).
        inputs: float32 (rows, in_features), on which products shall change least.
    """
    scales, factor = _scales(weight), inverse_factor(inputs.T @ inputs / len(inputs), _DAMPING)
    # Transposed, so that a channel's weights are contiguous in memory.
    channels = weight.T.contiguous()
    integers, errors = torch.empty_like(channels, dtype=torch.int8), torch.empty_like(channels)
    for start in range(0, len(channels), _TOGETHER):
        end = min(start + _TOGETHER, len(channels))
        for index in range(start, end):
            rounded = (channels[index] / scales).round().clamp(-127, 127)
            integers[index] = rounded.to(torch.int8)
            errors[index] = (channels[index] - rounded * scales) / factor[index, index]
            channels[index + 1 : end].addr_(factor[index, index + 1 : end], errors[index], alpha=-1)
        channels[end:].addmm_(factor[start:end, end:].T, errors[start:end], alpha=-1)
    return Int8Weights(integers.T.contiguous(), scales)


def _scales(weight: torch.Tensor) -> torch.Tensor:
    return weight.abs().amax(1).clamp(min=1e-12) / 127
