"""How likely a model finds a text of any length, under a limited context and in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import log_sum_exp
from triform.runtime.errors import InputError
from triform.runtime.graphs.decoder_step import DecoderStep
from triform.runtime.text.token_stream import ids_around
from triform.runtime.text.tokenizer import Tokenizer

# Positions whose probabilities are summed up at once: they take a copy of their logits.
_ROWS = 16


@dataclass(frozen=True)
class Perplexity:
    """How well a text was predicted.

    Attributes:
        perplexity: exponential of `loss`.
        loss: mean negative log-likelihood in nats, of each token but the first given those before it.
        tokens: how many the text has.
    """

    perplexity: float
    loss: float
    tokens: int


@dataclass(frozen=True)
class TextScore:
    """The tokens of a text and how likely each was.

    Attributes:
        token_ids: of the text.
        tokens: what each of them says.
        logprobs: natural logarithms of the probability of each token given those before it; None for the first.
    """

    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]


def perplexity(step: DecoderStep, ids: Iterable[int], window: int, tokenizer: Tokenizer) -> Perplexity:
    """Arguments as `losses_of`; ids are read as they are needed.

    Raises:
        InputError: there are fewer than two ids.
    """
    total, count = 0.0, 0
    for losses in losses_of(step, ids, window, tokenizer):
        total += float(losses.sum())
        count += len(losses)
    loss = total / count
    # A model that is sure of something else may be as wrong as can be.
    return Perplexity(math.exp(loss) if loss < math.log(np.finfo(np.float64).max) else math.inf, loss, count + 1)


def losses_of(
    step: DecoderStep, ids: Iterable[int], window: int, tokenizer: Tokenizer
) -> Iterator[NDArray[np.float64]]:
    """Negative log-likelihood of each token given those before it.

    Args:
        step: the model; its cache is used and left dirty.
        ids: at least two tokens, with those that the tokenizer puts before a text.
        window: tokens the model sees at once, at least two more than the tokenizer puts before a text. A longer text is
            read in windows that overlap by half; each token counts once, in the first window that holds it.
        tokenizer: of the model. What it puts before a text, each window begins with: some models need it.

    Yields:
        float64 (tokens,), in order; together one number for each token but the first.

    Raises:
        InputError: there are fewer than two ids.
    """
    stream, (beginning, _) = iter(ids), ids_around(tokenizer)
    share = window - len(beginning)
    context = list(islice(stream, window))
    if len(context) < 2:
        raise InputError("perplexity needs a text of at least two tokens")
    fresh = context[1:]
    while fresh:
        step.cache.reset()
        done = len(context) - 1 - len(fresh)
        for losses in _losses(step, context):
            yield losses[max(done, 0) :]
            done -= len(losses)
        fresh = list(islice(stream, min(window // 2, share)))
        context = [*beginning, *(context + fresh)[-share:]]


def _losses(step: DecoderStep, ids: Sequence[int]) -> Iterator[NDArray[np.float64]]:
    """Negative log-likelihood of ids[1:], in parts."""
    targets = np.asarray(ids[1:])
    done = 0
    for logits in step.logits_in_chunks(ids):
        # The last position of all predicts what the text does not say.
        chunk = targets[done : done + len(logits)]
        for start in range(0, len(chunk), _ROWS):
            part = chunk[start : start + _ROWS]
            table = logits[start : start + len(part)]
            yield log_sum_exp(table)[:, 0] - table[np.arange(len(part)), part]
        done += len(logits)
