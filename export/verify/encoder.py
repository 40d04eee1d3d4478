"""Verifies an encoder: the float graph against PyTorch, the quantized graph against the float graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from triform.export.runners import EncoderRunner
from triform.export.samples.batches import Array, Sample, padded
from triform.export.verify.transcripts import token_errors, written
from triform.runtime.bundle.export_record import EncoderParity, QuantizedEncoderParity
from triform.runtime.encoder.classification import scores
from triform.runtime.errors import ExportError

# As for decoders; see `verify/decoder.py`.
_RELATIVE_TOLERANCE = 5e-4
_VECTORS = ("sentence_embedding", "image_embedding")
# The outputs of tasks; a graph is compared by the first of these that it has.
_TASK_OUTPUTS = (*_VECTORS, "logits", "end_logits")


@dataclass(frozen=True)
class ReferenceBatch:
    """A batch of samples, padded where their lengths differ, and PyTorch's outputs for it.

    Attributes:
        samples: at least two, of different lengths where the graph takes a mask.
        outputs: PyTorch's, in the order of the graph's outputs.
        pad: token id that pads.
        counts: of each sample, its tokens or frames in the outputs that have such an axis; by its `input_ids` if None.
    """

    samples: Sequence[Sample]
    outputs: Sequence[torch.Tensor]
    pad: int
    counts: Sequence[int] | None = None

    def count(self, index: int) -> int:
        """The tokens or frames of a sample."""
        return len(self.samples[index]["input_ids"]) if self.counts is None else self.counts[index]


def verify_encoder(runner: EncoderRunner, names: Sequence[str], batch: ReferenceBatch) -> EncoderParity:
    """Run the samples as one batch and one by one, and compare each row with PyTorch's.

    Args:
        runner: a float graph.
        names: of the outputs.
        batch: what to compare with.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    parity = encoder_parity(runner, names, batch)
    # Written so that NaN fails.
    if not (parity.batch <= parity.tolerance and parity.single <= parity.tolerance):
        raise ExportError(
            f"the graph does not match PyTorch: outputs differ by {max(parity.batch, parity.single):.2e}, allowed are "
            f"{parity.tolerance:.2e}; please report this model"
        )
    return parity


def encoder_parity(runner: EncoderRunner, names: Sequence[str], batch: ReferenceBatch) -> EncoderParity:
    """Measure the differences that `verify_encoder` checks, however large they are.

    Raises:
        ExportError: an output has another shape than PyTorch's.
    """
    expected = dict(zip(names, (tensor.float().numpy() for tensor in batch.outputs), strict=True))
    together = runner.run(padded(batch.samples, batch.pad), names)
    scale = max(float(np.abs(tensor).max()) for tensor in expected.values())
    worst_batch = worst_single = 0.0
    for index, sample in enumerate(batch.samples):
        alone = runner.run(padded([sample], batch.pad), names)
        for name in names:
            if together[name].shape != expected[name].shape:
                raise ExportError(f"the output {name} has the shape {together[name].shape}, not {expected[name].shape}")
            length = batch.count(index) if name in runner.ragged else None
            row = expected[name][index][:length]
            worst_batch = _worst(worst_batch, together[name][index][:length] - row)
            worst_single = _worst(worst_single, alone[name][0] - row)
    return EncoderParity(worst_batch, worst_single, scale, _RELATIVE_TOLERANCE * scale)


def task_output(names: Sequence[str]) -> str:
    """The output that a graph is compared by, of the outputs it has."""
    return next(name for name in _TASK_OUTPUTS if name in names)


def quantized_encoder_parity(
    original: Callable[[Mapping[str, Array]], Array],
    quantized: EncoderRunner,
    name: str,
    samples: Sequence[Sample],
    pad: int,
    problem_type: str | None = None,
    blank: int | None = None,
) -> QuantizedEncoderParity:
    """Compare an output of a quantized graph with the original's: cosines of vectors, or score differences.

    Args:
        original: from the arrays of one sample to the original's output.
        quantized: the graph to measure.
        name: of the output.
        samples: the inputs, run one by one.
        pad: token id that pads.
        problem_type: of a classification; None for a softmax over labels, words or positions.
        blank: the token that stands for none, of a model that writes by CTC; its transcripts are compared too.
    """
    measured, transcripts = [], []
    for sample in samples:
        arrays = padded([sample], pad)
        expected, actual = original(arrays).astype(np.float64), quantized.run(arrays, [name])[name].astype(np.float64)
        if name in _VECTORS:
            measured.append(_cosine(expected, actual))
        else:
            measured.append(float(np.abs(scores(expected, problem_type) - scores(actual, problem_type)).max()))
        if blank is not None:
            transcripts.append((written(expected[0], blank), written(actual[0], blank)))
    if name in _VECTORS:
        return QuantizedEncoderParity(len(measured), float(np.mean(measured)), float(np.min(measured)))
    return QuantizedEncoderParity(
        len(measured),
        score_mean=float(np.mean(measured)),
        score_worst=float(np.max(measured)),
        token_errors=token_errors(transcripts) if transcripts else None,
    )


def _cosine(vector: Array, other: Array) -> float:
    lengths = float(np.linalg.norm(vector) * np.linalg.norm(other))
    return float(vector.ravel() @ other.ravel()) / max(lengths, 1e-30)


def worst_parity(parities: Sequence[EncoderParity]) -> EncoderParity:
    """One record for several batches or graphs: the worst of each number. Several graphs must give vectors."""
    if len(parities) == 1:
        return parities[0]
    quantized_parities = [parity.quantized for parity in parities if parity.quantized is not None]
    quantized = None
    if quantized_parities:
        rows = sum(parity.rows for parity in quantized_parities)
        mean = sum((parity.cosine_mean or 0) * parity.rows for parity in quantized_parities) / rows
        worst = min(parity.cosine_worst or 0 for parity in quantized_parities)
        quantized = QuantizedEncoderParity(rows, mean, worst)
    return EncoderParity(
        batch=_largest(parity.batch for parity in parities),
        single=_largest(parity.single for parity in parities),
        scale=_largest(parity.scale for parity in parities),
        tolerance=_largest(parity.tolerance for parity in parities),
        quantized=quantized,
    )


def _largest(numbers: Iterable[float]) -> float:
    # np.max and not max(), which can lose a NaN.
    return float(np.max(list(numbers)))


def _worst(worst: float, difference: Array) -> float:
    # np.maximum and not max(), which can lose a NaN.
    return float(np.maximum(worst, np.abs(difference).max()))
