"""Answers that a float encoder-decoder writes to sources: what its decoder is calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

from triform.export.quantize.energies import energies_of
from triform.export.quantize.mixed.moments import Differentiable, drawn_likelihood
from triform.export.report import Counted, uncounted
from triform.export.runners import EncoderDecoderRunner, Result, greedy_tokens
from triform.export.samples.batches import Array, Sample, padded
from triform.models.encoder_decoder.reference import computed_logits


@dataclass(frozen=True)
class Answer:
    """What a model writes to a source.

    Attributes:
        source: the encoder's inputs, a batch of one.
        ids: tokens, beginning with the one that decoding starts with; without the end.
    """

    source: Mapping[str, Array]
    ids: list[int]


def greedy_answers(
    runner: EncoderDecoderRunner,
    sources: Sequence[Sample],
    pad: int,
    start: int,
    ends: Sequence[int],
    longest: int,
    counted: Counted = uncounted,
) -> list[Answer]:
    """Let a model answer sources, one by one.

    Args:
        runner: of its graphs.
        sources: to answer.
        pad: token id that pads a source.
        start: the token that decoding starts with.
        ends: tokens that end an answer.
        longest: most tokens of an answer.
        counted: reports how many sources are answered.
    """
    answers = []
    for source in counted(sources):
        arrays = padded([source], pad)
        answers.append(Answer(arrays, greedy_tokens(runner.read(arrays), start, longest, ends)))
    return answers


def answer_energies(
    runner: EncoderDecoderRunner, outputs: Mapping[str, str], answers: Sequence[Answer]
) -> dict[str, torch.Tensor]:
    """The energy of each input channel of the products of a decoder, float32 (in_features,) by weight name.

    Args:
        runner: of float graphs; the decoder has the outputs that `add_energy_outputs` adds.
        outputs: the names of these, by weight name.
        answers: fed to the decoder.
    """
    total = energies_of((_read(runner, answer) for answer in answers), len(answers))
    return {weight: total[output] for weight, output in outputs.items()}


def _read(runner: EncoderDecoderRunner, answer: Answer) -> Result:
    """Feed a whole answer at once."""
    decoder, count = runner.read(answer.source), len(answer.ids)
    decoder.start(1, count)
    return decoder.feed(np.array([answer.ids]), np.arange(count)[None])


def differentiable_pair(model: PreTrainedModel, answers: Sequence[Answer]) -> Differentiable:
    """An encoder-decoder, with the log-likelihoods of tokens that it draws itself along answers."""
    return Differentiable(model, partial(_likelihoods, model, answers), sum(len(answer.ids) for answer in answers))


def _likelihoods(model: PreTrainedModel, answers: Sequence[Answer]) -> Iterator[torch.Tensor]:
    """One number for each answer."""
    draw = torch.Generator().manual_seed(0)
    for answer in answers:
        arrays = {name: torch.from_numpy(array) for name, array in answer.source.items()}
        with torch.enable_grad():
            logits = computed_logits(model, arrays, torch.tensor([answer.ids]))[0].float()
            yield drawn_likelihood(logits, draw)
