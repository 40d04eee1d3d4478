"""Verifies an encoder-decoder: the float graphs against PyTorch, the quantized graphs against the float graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from triform.export.runners import EncoderDecoderRunner, FedDecoder, greedy_tokens
from triform.export.samples.batches import Array, Sample, padded
from triform.export.samples.sources import Sources
from triform.export.verify.decoder import all_logits, check_parity, decoder_parity, quantized_decoder_parity
from triform.models.encoder_decoder.reference import reference_logits
from triform.runtime.bundle.export_record import Parity, QuantizedParity

# Decoder tokens compared with PyTorch, and generated to compare the quantized graphs on.
_PARITY_TOKENS, _COMPARED_TOKENS = 48, 32


@dataclass(frozen=True)
class ReferenceAnswers:
    """Sources, decoder tokens, and PyTorch's logits for them.

    Attributes:
        sources: compared one by one, and as a batch if they can be padded.
        logits: of each source after each of `ids`, float32 (len(ids), vocab_size).
        batch_logits: the same of the padded batch, float32 (sources, len(ids), vocab_size); None without a batch.
        evaluation: sources to compare the quantized graphs on.
        ids: decoder tokens, beginning with the one that decoding starts with.
        pad: token id that pads.
    """

    sources: Sequence[Sample]
    logits: Sequence[Array]
    batch_logits: Array | None
    evaluation: Sequence[Sample]
    ids: list[int]
    pad: int


def reference_answers(
    model: PreTrainedModel, sources: Sources, start: int, max_length: int, pad: int
) -> ReferenceAnswers:
    """Run PyTorch's model on the sources, with random decoder tokens after `start`."""
    ids = answer_ids(model.config.get_text_config(decoder=True).vocab_size, start, max_length)
    parity = sources.samples.parity
    logits = [_logits(model, [sample], ids, pad)[0] for sample in parity]
    batch_logits = _batch_logits(model, parity, logits, ids, pad) if sources.can_be_padded else None
    return ReferenceAnswers(parity, logits, batch_logits, sources.samples.evaluation, ids, pad)


def answer_ids(vocab_size: int, start: int, max_length: int) -> list[int]:
    """Random tokens after `start`, fewer than `max_length`."""
    count = min(_PARITY_TOKENS, max_length - 1)
    generator = torch.Generator().manual_seed(0)
    return [start, *torch.randint(vocab_size // 10, vocab_size, (count - 1,), generator=generator).tolist()]


def verify_encoder_decoder(runner: EncoderDecoderRunner, reference: ReferenceAnswers) -> Parity:
    """Compare the float graphs with PyTorch: each source alone in the four ways of a decoder, and all in one batch.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    parity = encoder_decoder_parity(runner, reference)
    check_parity(parity)
    return parity


def encoder_decoder_parity(runner: EncoderDecoderRunner, reference: ReferenceAnswers) -> Parity:
    """Measure the differences that `verify_encoder_decoder` checks, however large; `ragged` includes the batch."""
    parities = [
        decoder_parity(runner.read(padded([sample], reference.pad)), logits, reference.ids)
        for sample, logits in zip(reference.sources, reference.logits, strict=True)
    ]
    batch = [] if reference.batch_logits is None else [_batch_difference(runner, reference, reference.batch_logits)]
    return Parity(
        prefill=_largest(parity.prefill for parity in parities),
        chunked=_largest(parity.chunked for parity in parities),
        step=_largest(parity.step for parity in parities),
        ragged=_largest([*(parity.ragged for parity in parities), *batch]),
        scale=_largest(parity.scale for parity in parities),
        tolerance=_largest(parity.tolerance for parity in parities),
    )


def quantized_encoder_decoder_parity(
    original: Callable[[Mapping[str, Array]], FedDecoder],
    quantized: EncoderDecoderRunner,
    reference: ReferenceAnswers,
) -> QuantizedParity:
    """Compare the quantized graphs' predictions with the original's, along its greedy answers.

    Args:
        original: reads a batch of one source and returns its decoder.
        quantized: the graphs to measure.
        reference: the sources.
    """
    parities = []
    for sample in reference.evaluation:
        arrays = padded([sample], reference.pad)
        decoder = original(arrays)
        ids = greedy_tokens(decoder, reference.ids[0], min(_COMPARED_TOKENS, len(reference.ids)))
        parities.append(_along(decoder, quantized, arrays, ids))
    return QuantizedParity(
        top1_agreement=float(np.mean([parity.top1_agreement for parity in parities])),
        mean_kl=float(np.mean([parity.mean_kl for parity in parities])),
        # Every answer has the same number of tokens, so the mean of the logarithms is the mean over all tokens.
        perplexity_original=float(np.exp(np.mean([np.log(parity.perplexity_original) for parity in parities]))),
        perplexity_quantized=float(np.exp(np.mean([np.log(parity.perplexity_quantized) for parity in parities]))),
        tokens=sum(parity.tokens for parity in parities),
    )


def _along(
    decoder: FedDecoder, quantized: EncoderDecoderRunner, arrays: Mapping[str, Array], ids: list[int]
) -> QuantizedParity:
    return quantized_decoder_parity(lambda piece: all_logits(decoder, piece), quantized.read(arrays), ids, len(ids))


def _largest(numbers: Iterable[float]) -> float:
    # np.max and not max(), which can lose a NaN.
    return float(np.max(list(numbers)))


def _logits(model: PreTrainedModel, samples: Sequence[Sample], ids: list[int], pad: int) -> Array:
    arrays = {name: torch.from_numpy(array) for name, array in padded(samples, pad).items()}
    logits: Array = reference_logits(model, arrays, torch.tensor([ids] * len(samples))).float().numpy()
    return logits


def _batch_logits(
    model: PreTrainedModel, samples: Sequence[Sample], alone: Sequence[Array], ids: list[int], pad: int
) -> Array:
    """The logits of a batch: without padding those of each sample alone, because rows do not depend on each other."""
    shapes = [{name: array.shape for name, array in sample.items()} for sample in samples]
    return np.stack(alone) if all(shape == shapes[0] for shape in shapes) else _logits(model, samples, ids, pad)


def _batch_difference(runner: EncoderDecoderRunner, reference: ReferenceAnswers, expected: Array) -> float:
    decoder = runner.read(padded(reference.sources, reference.pad))
    rows = np.array([reference.ids] * len(reference.sources))
    decoder.start(len(rows), rows.shape[1])
    logits, _ = decoder.feed(rows, np.arange(rows.shape[1])[None].repeat(len(rows), 0))
    return float(np.abs(logits - expected).max())


class TorchDecoder:
    """PyTorch's model and one source, fed like a `DecoderRunner`; runs all tokens anew for each chunk."""

    def __init__(self, model: PreTrainedModel, arrays: Mapping[str, Array]) -> None:
        self._model = model
        self._source = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self._ids = np.zeros((1, 0), np.int64)

    def start(self, batch: int, capacity: int) -> None:
        """Forget all tokens."""
        self._ids = np.zeros((batch, 0), np.int64)

    def feed(self, input_ids: Array, positions: Array) -> tuple[Array, dict[str, Array]]:
        """Logits at some positions of a chunk; see `DecoderRunner.feed`."""
        before = self._ids.shape[1]
        self._ids = np.concatenate([self._ids, input_ids], axis=1)
        logits = reference_logits(self._model, self._source, torch.from_numpy(self._ids)).numpy()
        return np.take_along_axis(logits, (positions.astype(np.int64) + before)[..., None], axis=1), {}
