"""From logits to a token. Processors are pure functions on numpy arrays, composed once into one callable."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import BundleError
from triform.runtime.manifest import GenerationDefaults
from triform.runtime.options import GenerationOptions

Logits = NDArray[np.float32]
Sampler = Callable[[Logits], int]


def make_sampler(options: GenerationOptions, defaults: GenerationDefaults) -> Sampler:
    """Build the sampler for one generation.

    Temperature, then top-k, then top-p, as transformers orders them.

    Args:
        options: what the user asked for.
        defaults: what the model's generation config says; used only when `options` names no sampling at all.

    Returns:
        a function from logits, float32 (vocab_size,), to a token id.
    """
    temperature, top_k, top_p = _settings(options, defaults)
    if temperature == 0:
        return greedy
    generator = np.random.default_rng(options.seed)

    def sample(logits: Logits) -> int:
        tokens, kept = keep_top_k(logits, top_k)
        tokens, probabilities = keep_top_p(tokens, softmax(kept, temperature), top_p)
        # Inverse of the cumulative distribution; where rounding puts the draw on the total itself, the last token.
        cumulative = np.cumsum(probabilities)
        index = np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right")
        return int(tokens[min(int(index), len(tokens) - 1)])

    return sample


def _settings(options: GenerationOptions, defaults: GenerationDefaults) -> tuple[float, int, float]:
    asked = (options.temperature, options.top_k, options.top_p)
    if all(value is None for value in asked):
        if not defaults.do_sample:
            return 0.0, 0, 1.0
        asked = (defaults.temperature, defaults.top_k, defaults.top_p)
    temperature, top_k, top_p = asked
    return 1.0 if temperature is None else temperature, top_k or 0, 1.0 if top_p is None else top_p


def greedy(logits: Logits) -> int:
    """The most likely token; the first of several that are equal.

    Raises:
        BundleError: the logits hold NaN, so no token is the most likely.
    """
    token = int(logits.argmax())
    # argmax stops at the first NaN, so looking at one number tells.
    if np.isnan(logits[token]):
        raise _not_numbers()
    return token


def softmax(logits: Logits, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities after dividing the logits by `temperature`, float64, the shape of `logits`.

    Raises:
        BundleError: the logits hold NaN, or an infinity that leaves no distribution.
    """
    largest = np.max(logits)
    if not np.isfinite(largest):
        raise _not_numbers()
    weights: NDArray[np.float64] = logits.astype(np.float64)
    weights -= largest
    # A temperature close to 0 sends all but the largest to minus infinity, whose weight is 0: nothing to warn of.
    with np.errstate(over="ignore"):
        weights /= temperature
    np.exp(weights, out=weights)
    weights /= weights.sum()
    return weights


def keep_top_k(logits: Logits, top_k: int) -> tuple[NDArray[Any], Logits]:
    """The `top_k` largest logits and their token ids; all of them when `top_k` is 0 or more than there are.

    Tokens as likely as the last one kept are kept too, as transformers does.
    """
    if top_k == 0 or top_k >= len(logits):
        return _all_tokens(len(logits)), logits
    threshold = np.partition(logits, -top_k)[-top_k]
    # partition puts NaN last, that is, among the largest: keep it, for softmax to refuse.
    tokens = np.flatnonzero(~(logits < threshold))
    return tokens, logits[tokens]


def keep_top_p(
    tokens: NDArray[Any], probabilities: NDArray[np.float64], top_p: float
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The fewest most likely tokens whose probabilities sum to at least `top_p` (https://arxiv.org/abs/1904.09751).

    Of tokens equally likely at the edge, the first ones are kept.
    """
    if top_p >= 1:
        return tokens, probabilities
    # Tokens at most this likely sum to less than 1 - top_p, so the nucleus is among the others.
    likely = probabilities[probabilities > (1 - top_p) / len(probabilities)]
    # Sorting values is several times faster than sorting positions; the edge's value then finds the positions.
    likely.sort()
    descending = likely[::-1]
    count = min(int(np.searchsorted(np.cumsum(descending), top_p)) + 1, len(descending))
    edge = descending[count - 1]
    chosen = np.flatnonzero(probabilities >= edge)
    surplus = len(chosen) - count
    if surplus:
        equal = np.flatnonzero(probabilities[chosen] == edge)
        chosen = np.delete(chosen, equal[len(equal) - surplus :])
    return tokens[chosen], probabilities[chosen]


@lru_cache(maxsize=1)
def _all_tokens(count: int) -> NDArray[np.int64]:
    tokens = np.arange(count)
    tokens.flags.writeable = False
    return tokens


def _not_numbers() -> BundleError:
    return BundleError("the model computed logits that are not numbers (NaN); check its files with `triform verify`")
