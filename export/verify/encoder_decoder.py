"""Every encoder-decoder proves itself: the float graphs against PyTorch, the quantized ones against the float ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from triform.export.runners import PairRunner, answer
from triform.export.samples.batches import Array, Sample, together
from triform.export.samples.sources import Sources
from triform.export.verify import decoder as verify
from triform.models.encoder_decoder.graph import reference_logits
from triform.runtime.bundle.export_record import Parity, QuantizedParity

# Decoder tokens compared with PyTorch, and generated to compare the quantized graphs on.
_PARITY_TOKENS, _COMPARED_TOKENS = 48, 32


@dataclass(frozen=True)
class Trial:
    """What the graphs are tried with.

    Attributes:
        sources: one by one, and as a batch if they can be put together.
        expected: of each source, PyTorch's logits after each of `ids`.
        expected_together: the same of the batch; None where there is none.
        compared: sources to compare quantized graphs on.
        ids: decoder tokens.
        start: the token that decoding starts with.
        pad: the token that pads.
    """

    sources: Sequence[Sample]
    expected: Sequence[Array]
    expected_together: Array | None
    compared: Sequence[Sample]
    ids: list[int]
    start: int
    pad: int


def trial_of(model: PreTrainedModel, sources: Sources, start: int, max_length: int, pad: int) -> Trial:
    """Ask PyTorch what it makes of a few sources and some decoder tokens."""
    size = model.config.get_text_config(decoder=True).vocab_size
    count = min(_PARITY_TOKENS, max_length - 1)
    generator = torch.Generator().manual_seed(0)
    ids = [start, *torch.randint(size // 10, size, (count - 1,), generator=generator).tolist()]
    expected = [_logits(model, [one], ids, pad)[0] for one in sources.parity]
    batch = _logits(model, sources.parity, ids, pad) if sources.padded else None
    return Trial(sources.parity, expected, batch, sources.compared, ids, start, pad)


def compare_with_reference(runner: PairRunner, trial: Trial) -> Parity:
    """Compare the float graphs with PyTorch: each source by itself in the four ways of a decoder, and all in one batch.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    parity = measure(runner, trial)
    verify.check(parity)
    return parity


def measure(runner: PairRunner, trial: Trial) -> Parity:
    """The differences of `compare_with_reference`, without judging them; `ragged` covers the batch, too."""
    found = [
        verify.measure(runner.read(together([one], trial.pad)), expected, trial.ids)
        for one, expected in zip(trial.sources, trial.expected, strict=True)
    ]
    batch = [] if trial.expected_together is None else [_batch_difference(runner, trial)]
    return Parity(
        prefill=_worst(one.prefill for one in found),
        chunked=_worst(one.chunked for one in found),
        step=_worst(one.step for one in found),
        ragged=_worst([*(one.ragged for one in found), *batch]),
        scale=_worst(one.scale for one in found),
        tolerance=_worst(one.tolerance for one in found),
    )


def compare_quantized(original: Any, quantized: PairRunner, trial: Trial) -> QuantizedParity:
    """How far the quantized graphs' predictions are from the original's, along the original's own answers.

    Args:
        original: a `PairRunner`, or what can be used as one.
        quantized: the graphs.
        trial: what to compare them on.
    """
    found = []
    for sample in trial.compared:
        arrays = together([sample], trial.pad)
        decoder, small = original.read(arrays), quantized.read(arrays)
        ids = answer(decoder, trial.start, min(_COMPARED_TOKENS, len(trial.ids)))
        found.append(
            verify.compare_quantized(lambda piece, run=decoder: verify.all_logits(run, piece), small, ids, len(ids))
        )
    return QuantizedParity(
        top1_agreement=float(np.mean([one.top1_agreement for one in found])),
        mean_kl=float(np.mean([one.mean_kl for one in found])),
        # Every source counts the same number of tokens, so the mean of logarithms is that of all tokens.
        perplexity_original=float(np.exp(np.mean([np.log(one.perplexity_original) for one in found]))),
        perplexity_quantized=float(np.exp(np.mean([np.log(one.perplexity_quantized) for one in found]))),
        tokens=sum(one.tokens for one in found),
    )


def _worst(numbers: Iterable[float]) -> float:
    # np.max and not max(): a NaN must come through.
    return float(np.max(list(numbers)))


def _logits(model: PreTrainedModel, samples: Sequence[Sample], ids: list[int], pad: int) -> Array:
    arrays = {name: torch.from_numpy(array) for name, array in together(samples, pad).items()}
    found: Array = reference_logits(model, arrays, torch.tensor([ids] * len(samples))).float().numpy()
    return found


def _batch_difference(runner: PairRunner, trial: Trial) -> float:
    decoder = runner.read(together(trial.sources, trial.pad))
    rows = np.array([trial.ids] * len(trial.sources))
    decoder.start(len(rows), rows.shape[1])
    logits, _ = decoder.feed(rows, np.arange(rows.shape[1])[None].repeat(len(rows), 0))
    return float(np.abs(logits - trial.expected_together).max())
