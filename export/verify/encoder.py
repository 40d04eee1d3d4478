"""Every encoder proves itself: the float graph against PyTorch, the quantized graph against the float one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from triform.export.runners import EncoderRunner
from triform.export.samples.batches import Array, Sample, padded
from triform.runtime.bundle.export_record import EncoderParity, QuantizedEncoderParity
from triform.runtime.encoder.classification import scores
from triform.runtime.errors import ExportError

# As for decoders; see verify.py.
_RELATIVE_TOLERANCE = 5e-4
# What a task's user sees, of all that a graph may give; the first of these it has.
_VECTORS = ("sentence_embedding", "image_embedding")
_JUDGED = (*_VECTORS, "logits", "end_logits")


def compare_with_reference(
    runner: EncoderRunner, names: Sequence[str], expected: Sequence[torch.Tensor], samples: Sequence[Sample], pad: int
) -> EncoderParity:
    """Run the samples as one batch and one by one, and compare each with PyTorch's outputs for the batch.

    Args:
        runner: a float graph.
        names: of the outputs.
        expected: what PyTorch gives for the padded batch, in the order of `names`.
        samples: at least two, of different lengths where there are tokens.
        pad: token id that pads.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    parity = measure(runner, names, expected, samples, pad)
    # Written so that NaN fails.
    if not (parity.batch <= parity.tolerance and parity.single <= parity.tolerance):
        raise ExportError(
            f"the graph does not match PyTorch: outputs differ by {max(parity.batch, parity.single):.2e}, allowed are "
            f"{parity.tolerance:.2e}; please report this model"
        )
    return parity


def measure(
    runner: EncoderRunner, names: Sequence[str], expected: Sequence[torch.Tensor], samples: Sequence[Sample], pad: int
) -> EncoderParity:
    """The differences of `compare_with_reference`, without judging them.

    Raises:
        ExportError: an output has another shape than PyTorch's.
    """
    wanted = dict(zip(names, (tensor.float().numpy() for tensor in expected), strict=True))
    together = runner.run(padded(samples, pad), names)
    scale = max(float(np.abs(tensor).max()) for tensor in wanted.values())
    batch = single = 0.0
    for index, sample in enumerate(samples):
        alone = runner.run(padded([sample], pad), names)
        for name in names:
            if together[name].shape != wanted[name].shape:
                raise ExportError(f"the output {name} has the shape {together[name].shape}, not {wanted[name].shape}")
            length = len(sample["input_ids"]) if name in runner.ragged else None
            row = wanted[name][index][:length]
            batch = _worst(batch, together[name][index][:length] - row)
            single = _worst(single, alone[name][0] - row)
    return EncoderParity(batch, single, scale, _RELATIVE_TOLERANCE * scale)


def judged_output(names: Sequence[str]) -> str:
    """Which of a graph's outputs `compare_quantized` should compare: what its task is about, not its layers."""
    return next(name for name in _JUDGED if name in names)


def compare_quantized(
    original: Callable[[Mapping[str, Array]], Array],
    quantized: EncoderRunner,
    name: str,
    samples: Sequence[Sample],
    pad: int,
    problem_type: str | None = None,
) -> QuantizedEncoderParity:
    """How far output `name` of a quantized graph is from what it came from: cosines of vectors, differences of scores.

    Args:
        original: called with the arrays of one sample, gives the output as it should be.
        quantized: the graph to judge.
        name: of its output.
        samples: the inputs, run one by one.
        pad: token id that pads.
        problem_type: of a classification, says what the scores are; None for one of several labels, or words, or
            places in a text, of which one is right.
    """
    found = []
    for sample in samples:
        arrays = padded([sample], pad)
        pair = original(arrays).astype(np.float64), quantized.run(arrays, [name])[name].astype(np.float64)
        found.append(_cosine(*pair) if name in _VECTORS else _score_difference(*pair, problem_type))
    if name in _VECTORS:
        return QuantizedEncoderParity(len(found), float(np.mean(found)), float(np.min(found)))
    return QuantizedEncoderParity(len(found), score_mean=float(np.mean(found)), score_worst=float(np.max(found)))


def _cosine(one: Array, other: Array) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one.ravel() @ other.ravel()) / max(lengths, 1e-30)


def _score_difference(one: Array, other: Array, problem_type: str | None) -> float:
    return float(np.abs(scores(one, problem_type) - scores(other, problem_type)).max())


def together(parities: Sequence[EncoderParity]) -> EncoderParity:
    """One record for all graphs of a bundle, which give vectors if there are several: the worst of each number."""
    if len(parities) == 1:
        return parities[0]
    measured = [parity.quantized for parity in parities if parity.quantized is not None]
    quantized = None
    if measured:
        rows = sum(one.rows for one in measured)
        mean = sum((one.cosine_mean or 0) * one.rows for one in measured) / rows
        worst = min(one.cosine_worst or 0 for one in measured)
        quantized = QuantizedEncoderParity(rows, mean, worst)
    return EncoderParity(
        batch=max(parity.batch for parity in parities),
        single=max(parity.single for parity in parities),
        scale=max(parity.scale for parity in parities),
        tolerance=max(parity.tolerance for parity in parities),
        quantized=quantized,
    )


def _worst(worst: float, difference: Array) -> float:
    # np.maximum and not max(): a NaN must come through.
    return float(np.maximum(worst, np.abs(difference).max()))
