"""From logits to a token. Processors are pure functions on numpy arrays, composed once into one callable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import TriformError
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
        probabilities = softmax(kept / temperature)
        tokens, probabilities = keep_top_p(tokens, probabilities, top_p)
        # Inverse of the cumulative distribution; rounding can leave the total a little under the draw.
        index = np.searchsorted(np.cumsum(probabilities), generator.random() * probabilities.sum(), side="right")
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
        TriformError: the logits hold NaN, so no token is the most likely.
    """
    token = int(logits.argmax())
    # argmax stops at the first NaN, so looking at one number tells.
    if np.isnan(logits[token]):
        raise TriformError("the model computed NaN logits; its weights may be damaged: run `triform verify`")
    return token


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Probabilities, float64, the shape of `logits`."""
    weights: NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits.max())
    weights /= weights.sum()
    return weights


def keep_top_k(logits: Logits, top_k: int) -> tuple[NDArray[Any], Logits]:
    """The `top_k` largest logits and their token ids; all of them when `top_k` is 0 or more than there are.

    Tokens as likely as the last one kept are kept too, as transformers does.
    """
    if top_k == 0 or top_k >= len(logits):
        return np.arange(len(logits)), logits
    threshold = np.partition(logits, -top_k)[-top_k]
    tokens = np.flatnonzero(logits >= threshold)
    return tokens, logits[tokens]


def keep_top_p(
    tokens: NDArray[Any], probabilities: NDArray[np.float64], top_p: float
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The fewest most likely tokens whose probabilities sum to at least `top_p` (https://arxiv.org/abs/1904.09751)."""
    if top_p >= 1:
        return tokens, probabilities
    # What a token below this threshold could add is less than 1 - top_p in total: it can never be needed.
    likely = np.flatnonzero(probabilities > (1 - top_p) / len(probabilities))
    order = likely[np.argsort(-probabilities[likely], kind="stable")]
    count = int(np.searchsorted(np.cumsum(probabilities[order]), top_p)) + 1
    chosen = order[:count]
    return tokens[chosen], probabilities[chosen]
