"""Truncation of the sampling distribution by filters, each of which keeps at least `least` tokens.

Beams need more than one, as transformers' `min_tokens_to_keep`. Weights below are unnormalized probabilities: the
exponentials of the logits minus the largest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.generation.processors.contract import Filter
from triform.runtime.generation.processors.ranking import SMALL, at_least, largest
from triform.runtime.generation.steps import Logits, Positions

# A nucleus or typical set is first searched for among this many tokens, then among all.
_GUESS = 256
_BLOCK = 512
_TINIEST = 5e-324


def weights_of(logits: Logits) -> NDArray[Any]:
    """Exponentials of the logits minus the largest: float64, or float32 for large vocabularies, to save time."""
    kind = np.float64 if len(logits) <= SMALL else np.float32
    weights: NDArray[Any] = np.subtract(logits, logits.max(), dtype=kind)
    np.exp(weights, out=weights)
    return weights


def reached(weights: NDArray[Any], target: float) -> int:
    """The first position up to which the weights sum to at least `target`, or the last with a weight above 0.

    Args:
        weights: float (count,), not negative, some positive.
        target: above 0.
    """
    start = 0
    if len(weights) > SMALL:
        # A cumulative sum over a large vocabulary takes a millisecond; sums of blocks show which block needs it.
        sums = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK)).astype(np.float64)
        block = _reached(sums, target)
        target -= float(sums[:block].sum())
        start = block * _BLOCK
        weights = weights[start : start + _BLOCK]
    return start + _reached(weights, target)


def _reached(weights: NDArray[Any], target: float) -> int:
    ends = weights.cumsum(dtype=np.float64)
    # Rounding may put the target slightly out of range: at or below 0, or above the sum.
    return int(ends.searchsorted(min(max(target, _TINIEST), ends[-1])))


def top_k(k: int, least: int = 1) -> Filter:
    """The `k` most likely tokens and all that are as likely as the last. transformers: TopKLogitsWarper."""
    count = max(k, least)

    def keep(logits: Logits) -> Positions | None:
        return None if count >= len(logits) else largest(logits, count)

    return Filter(keep, most=count)


def top_p(p: float, least: int = 1) -> Filter:
    """Nucleus: the fewest most likely tokens whose probabilities sum to `p` or more (https://arxiv.org/abs/1904.09751).

    Of equally likely tokens at the edge, the first ones are kept. transformers: TopPLogitsWarper.

    Args:
        p: above 0, below 1.
        least: see the module.
    """

    def keep(logits: Logits) -> Positions:
        weights = weights_of(logits)
        target = p * float(weights.sum())
        candidates = _heaviest(logits, weights, target)
        heaviest = weights if candidates is None else weights[candidates]
        # Sorting values is several times faster than sorting positions; the value at the edge then gives the positions.
        descending = np.sort(heaviest)[::-1]
        count = min(max(reached(descending, target) + 1, least), len(heaviest))
        chosen = np.flatnonzero(heaviest >= descending[count - 1])
        surplus = len(chosen) - count
        if surplus:
            equal = np.flatnonzero(heaviest[chosen] == descending[count - 1])
            chosen = np.delete(chosen, equal[len(equal) - surplus :])
        return chosen if candidates is None else candidates[chosen]

    return Filter(keep)


def _heaviest(logits: Logits, weights: NDArray[Any], target: float) -> Positions | None:
    """Positions that include the heaviest tokens whose weights sum to the target; None for all positions."""
    if len(logits) > SMALL:
        guess = largest(logits, _GUESS)
        if weights[guess].sum() > target:
            return guess
    return None


def min_p(p: float, least: int = 1) -> Filter:
    """Tokens at least `p` times as likely as the most likely one (https://arxiv.org/abs/2407.01082).

    transformers: MinPLogitsWarper.

    Args:
        p: above 0, at most 1.
        least: see the module.
    """
    distance = -math.log(p)

    def keep(logits: Logits) -> Positions:
        return _above(logits, float(logits.max()) - distance, least)

    return Filter(keep)


def _above(logits: Logits, bound: float, least: int) -> Positions:
    kept = at_least(logits, min(bound, float(logits.max())))
    return kept if len(kept) >= least else largest(logits, min(least, len(logits)))


def epsilon_cutoff(epsilon: float, least: int = 1) -> Filter:
    """Tokens with a probability of at least `epsilon` (https://arxiv.org/abs/2210.15191).

    transformers: EpsilonLogitsWarper.

    Args:
        epsilon: above 0, below 1.
        least: see the module.
    """

    def keep(logits: Logits) -> Positions:
        total = float(weights_of(logits).sum())
        return _above(logits, float(logits.max()) + math.log(epsilon) + math.log(total), least)

    return Filter(keep)


def eta_cutoff(epsilon: float, least: int = 1) -> Filter:
    """Tokens with a probability of at least ``min(epsilon, sqrt(epsilon) * exp(-entropy))``.

    https://arxiv.org/abs/2210.15191; transformers: EtaLogitsWarper.

    Args:
        epsilon: above 0, below 1.
        least: see the module.
    """

    def keep(logits: Logits) -> Positions:
        weights = weights_of(logits)
        total = float(weights.sum())
        entropy = _entropy(logits, weights, total)
        bound = min(math.log(epsilon), math.log(epsilon) / 2 - entropy)
        return _above(logits, float(logits.max()) + bound + math.log(total), least)

    return Filter(keep)


def _entropy(logits: Logits, weights: NDArray[Any], total: float) -> float:
    """In nats."""
    return math.log(total) - float(np.dot(weights, _shifted(logits, weights))) / total


def _shifted(logits: Logits, weights: NDArray[Any]) -> NDArray[Any]:
    """The logits minus the largest, in the weights' dtype; 0 for tokens whose weight is 0 if any logit is infinite."""
    shifted: NDArray[Any] = logits.astype(weights.dtype)
    shifted -= shifted.max()
    if not np.isfinite(shifted.min()):
        shifted[weights == 0] = 0
    return shifted


def typical_p(mass: float, least: int = 1) -> Filter:
    """The tokens whose surprise is closest to the entropy, until their probabilities sum to `mass`.

    Tokens as close as the last are kept too. https://arxiv.org/abs/2202.00666; transformers: TypicalLogitsWarper.

    Args:
        mass: above 0, below 1.
        least: see the module.
    """

    def keep(logits: Logits) -> Positions:
        weights = weights_of(logits)
        total = float(weights.sum())
        # Surprise and entropy both contain the logarithm of the total, which cancels out.
        nearness = _shifted(logits, weights)
        nearness -= weights.dtype.type(np.dot(weights, nearness) / total)
        np.negative(np.abs(nearness, out=nearness), out=nearness)
        nearness[weights == 0] = -np.inf
        candidates = _heaviest(nearness, weights, mass * total)
        nearest = nearness if candidates is None else nearness[candidates]
        order = np.argsort(-nearest)
        ordered = order if candidates is None else candidates[order]
        count = min(max(reached(weights[ordered], mass * total) + 1, least), len(ordered))
        return at_least(nearness, nearness[ordered[count - 1]])

    return Filter(keep)


def top_n_sigma(n: float, least: int = 1) -> Filter:
    """Logits within `n` standard deviations of the largest (https://arxiv.org/abs/2411.07641).

    Tokens that are already removed do not count. transformers has no such step.

    Args:
        n: above 0.
        least: see the module.
    """

    def keep(logits: Logits) -> Positions:
        most = float(logits.max())
        known = logits if np.isfinite(logits.min()) else logits[np.isfinite(logits)]
        return _above(logits, most - n * float(known.std()), least)

    return Filter(keep)


def xtc(threshold: float, probability: float, generator: np.random.Generator, least: int = 1) -> Filter:
    """Sometimes remove all tokens that reach `threshold` but the least likely of them ("exclude top choices").

    Reference: p-e-w's description in text-generation-webui, pull request 6335. transformers has no such step.

    Args:
        threshold: a probability, at most 0.5, since at least two tokens must reach it.
        probability: of doing so at each step.
        generator: the row's; one number is drawn at each step, whether or not tokens are removed.
        least: see the module.
    """

    def keep(logits: Logits) -> Positions | None:
        if generator.random() >= probability:
            return None
        weights = weights_of(logits)
        reaching = at_least(weights, threshold * float(weights.sum()))
        if len(reaching) < 2 or len(logits) - len(reaching) + 1 < least:
            return None
        # Of several equally unlikely ones, the last is kept.
        last = len(reaching) - 1 - int(np.argmin(weights[reaching][::-1]))
        return np.delete(np.arange(len(logits)), np.delete(reaching, last))

    return Filter(keep)
