"""Likelihoods of texts of any length, in windows of the model's context and in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import log_sum_exp, not_numbers
from triform.runtime.errors import InputError
from triform.runtime.generation.options.checks import whole_between
from triform.runtime.graphs.decoding.step import DecoderStep
from triform.runtime.likeliest import all_logits
from triform.runtime.text.token_stream import ids_around
from triform.runtime.text.tokenizer import Tokenizer

# Positions to compute at once: log_sum_exp copies their logits.
_ROWS = 16
# Negative log-likelihoods in nats, float64 (tokens,).
Losses = NDArray[np.float64]


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text.

    Attributes:
        perplexity: exponential of `loss`.
        loss: mean negative log-likelihood, in nats, of each token but the first given the tokens before it.
        tokens: number of tokens in the text.
    """

    perplexity: float
    loss: float
    tokens: int


@dataclass(frozen=True)
class TextScore:
    """The tokens of a text and their log-probabilities.

    Attributes:
        token_ids: the text's token ids.
        tokens: the text of each token.
        logprobs: for each token, the natural logarithm of its probability given the tokens before it; None for the
            first.
    """

    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]


def perplexity(step: DecoderStep, ids: Iterable[int], window: int, tokenizer: Tokenizer) -> Perplexity:
    """The perplexity of a text whose ids are read lazily. Arguments as `losses_of`.

    Raises:
        InputError: there are fewer than two ids.
    """
    total, count = 0.0, 0
    for losses in losses_of(step, ids, window, tokenizer):
        total += float(losses.sum())
        count += len(losses)
    loss = total / count
    # The exponential of a very large loss overflows.
    return Perplexity(math.exp(loss) if loss < math.log(np.finfo(np.float64).max) else math.inf, loss, count + 1)


def losses_of(step: DecoderStep, ids: Iterable[int], window: int, tokenizer: Tokenizer) -> Iterator[Losses]:
    """Negative log-likelihood of each token given the tokens before it, in nats.

    Args:
        step: the model; its cache is overwritten.
        ids: at least two token ids, with the special tokens that the tokenizer adds.
        window: the model's context in tokens, at least two more than the special tokens before a text. A longer text
            is read in windows that overlap by half; each token counts once, in the first window that contains it.
        tokenizer: the model's. Each window begins with the special tokens that it puts before a text, because some
            models need them.

    Yields:
        float64 (tokens,), in order; together a value for each token but the first.

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


def text_score(step: DecoderStep, ids: Sequence[int], window: int | None, most: int, tokenizer: Tokenizer) -> TextScore:
    """The tokens of a text and their log-probabilities.

    Args:
        step: the model; its cache is overwritten.
        ids: at least one token id.
        window: tokens to read at once; `most` when None.
        most: the model's context.
        tokenizer: the model's.

    Raises:
        InputError: see `window_of`.
    """
    window = window_of(window, most, tokenizer)
    losses = losses_of(step, ids, window, tokenizer) if len(ids) > 1 else ()
    logprobs = [-float(loss) for part in losses for loss in part]
    texts = tuple(tokenizer.decode([token], skip_special_tokens=False) for token in ids)
    return TextScore(tuple(ids), texts, (None, *logprobs))


def continuation_losses(step: DecoderStep, context: Sequence[int], continuation: Sequence[int]) -> tuple[Losses, bool]:
    """Negative log-likelihood of each token of a continuation given those before it, in nats.

    Tokens that the context shares with the one before it are not run again.

    Args:
        step: the model; its cache is overwritten.
        context: at least one token id.
        continuation: at least one token id; all but the last must fit into the model's context.

    Returns:
        float64 (len(continuation),), and whether each of its tokens is the most likely one.

    Raises:
        InputError: the tokens do not fit into the model's context.
        BundleError: a logit is NaN or an infinity.
    """
    step.wanted = None
    first = all_logits(step.prefill(context))[None].copy()
    if not np.isfinite(first).all():
        raise not_numbers()
    losses, greedy, done = [], True, 0
    for logits in chain((first,), step.logits_in_chunks(continuation[:-1])):
        targets = np.asarray(continuation[done : done + len(logits)])
        losses.append(log_sum_exp(logits)[:, 0] - logits[np.arange(len(targets)), targets])
        greedy &= bool((logits.argmax(1) == targets).all())
        done += len(logits)
    return np.concatenate(losses), greedy


def window_of(window: int | None, most: int, tokenizer: Tokenizer) -> int:
    """The window of `losses_of`: all that the model can read when None.

    Args:
        window: the user's, in tokens.
        most: the model's context.
        tokenizer: the model's.

    Raises:
        InputError: the window is longer than the context, or has no room for two tokens.
    """
    if window is None:
        return most
    least = len(ids_around(tokenizer)[0]) + 2
    whole_between(least, most, f"from {least} to the model's {most} tokens").judge("window", window)
    return window


def _losses(step: DecoderStep, ids: Sequence[int]) -> Iterator[Losses]:
    """Negative log-likelihoods of ids[1:], float64 (tokens,), in parts."""
    targets = np.asarray(ids[1:])
    done = 0
    for logits in step.logits_in_chunks(ids):
        # The last position of the text predicts a token that the text does not have, so it has no target.
        chunk = targets[done : done + len(logits)]
        for start in range(0, len(chunk), _ROWS):
            part = chunk[start : start + _ROWS]
            table = logits[start : start + len(part)]
            yield log_sum_exp(table)[:, 0] - table[np.arange(len(part)), part]
        done += len(logits)
