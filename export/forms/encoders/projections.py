"""Numbers that an encoder computes, whose gradients tell what an error in it does to its results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from transformers import PreTrainedModel

from triform.export.quantize.mixed.moments import Differentiable
from triform.export.samples.batches import Sample, padded
from triform.export.verify.encoder import task_output
from triform.models.encoder.graph import computed_outputs
from triform.models.spec import EncoderTask

# Random directions in which the results of each sample are measured.
_DRAWS = 2


def differentiable(
    model: PreTrainedModel, traced: EncoderTask, samples: Sequence[Sample], names: Sequence[str], pad: int
) -> Differentiable:
    """An encoder, with numbers whose squared gradients add up to the squared relative change of its results.

    These are products of its results, scaled to length 1, with vectors of random numbers. For vectors half of the
    squared change is 1 - cosine.

    Args:
        model: PyTorch's.
        traced: the computation.
        samples: to calibrate on.
        names: of its outputs.
        pad: token id that pads.
    """
    output = list(names).index(task_output(names))
    return Differentiable(model, partial(_projections, model, traced, samples, output, pad), _DRAWS * len(samples))


def _projections(
    model: PreTrainedModel, traced: EncoderTask, samples: Sequence[Sample], output: int, pad: int
) -> Iterator[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    for sample in samples:
        arrays = padded([sample], pad)
        inputs = tuple(torch.from_numpy(arrays[name]) for name in traced.names)
        for _ in range(_DRAWS):
            result = computed_outputs(model, traced, inputs)[output]
            yield (result / result.detach().norm() * torch.randn(result.shape, generator=draw)).sum()
