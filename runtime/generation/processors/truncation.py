"""Filters: which tokens may be drawn, by how likely they are. Each keeps at least `least` tokens.

Beams need more than one, as transformers' `min_tokens_to_keep`. Weights below are probabilities up to a factor: the
exponentials of the logits less the largest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.generation.processors.contract import Filter
from triform.runtime.generation.processors.ranking import SMALL, at_least, largest
from triform.runtime.generation.steps import Logits, Positions

# How many tokens a nucleus or a typical set is looked for among, before looking at all.
_GUESS = 256
_BLOCK = 512
_TINIEST = 5e-324


def weights_of(logits: Logits) -> NDArray[Any]:
    """Exponentials of the logits less the largest: float64, or float32 where there are so many that it takes time."""
    kind = np.float64 if len(logits) <= SMALL else np.float32
    weights: NDArray[Any] = np.subtract(logits, logits.max(), dtype=kind)
    np.exp(weights, out=weights)
    return weights


def reached(weights: NDArray[Any], target: float) -> int:
    """The first position up to which the weights sum to at least `target`; the last one that has a weight at most.

    Args:
        weights: float (count,), not negative, some positive.
        target: above 0.
    """
    start = 0
    if len(weights) > SMALL:
        # Adding up a large vocabulary in order takes a millisecond; sums of blocks tell which block to add up.
        sums = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK)).astype(np.float64)
        block = _reached(sums, target)
        target -= float(sums[:block].sum())
        start = block * _BLOCK
        weights = weights[start : start + _BLOCK]
    return start + _reached(weights, target)


def _reached(weights: NDArray[Any], target: float) -> int:
    ends = weights.cumsum(dtype=np.float64)
    # Rounding may put the target a little outside: below every weight, or above their sum.
    return int(ends.searchsorted(min(max(target, _TINIEST), ends[-1])))


def top_k(k: int, least: int = 1) -> Filter:
    """The `k` most likely tokens and all that are as likely as the last. transformers: TopKLogitsWarper."""
    count = max(k, least)

    def keep(logits: Logits) -> Positions | None:
        return None if count >= len(logits) else largest(logits, count)

    return Filter(keep)


def top_p(p: float, least: int = 1) -> Filter:
    """The fewest most likely tokens whose probabilities reach `p` (https://arxiv.org/abs/1904.09751).

    Of tokens equally likely at the edge, the first ones are kept. transformers: TopPLogitsWarper.

    Args:
        p: above 0, below 1.
        least: see the module.
    """

    def keep(logits: Logits) -> Positions:
        weights = weights_of(logits)
        target = p * float(weights.sum())
        candidates = _heaviest(logits, weights, target)
        found = weights if candidates is None else weights[candidates]
        # Sorting values is several times faster than sorting positions; the edge's value then finds the positions.
        descending = np.sort(found)[::-1]
        count = min(max(reached(descending, target) + 1, least), len(found))
        chosen = np.flatnonzero(found >= descending[count - 1])
        surplus = len(chosen) - count
        if surplus:
            equal = np.flatnonzero(found[chosen] == descending[count - 1])
            chosen = np.delete(chosen, equal[len(equal) - surplus :])
        return chosen if candidates is None else candidates[chosen]

    return Filter(keep)


def _heaviest(logits: Logits, weights: NDArray[Any], target: float) -> Positions | None:
    """Positions among which the most likely tokens that reach the target are; None for all."""
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
    """Tokens of a probability of at least `epsilon` (https://arxiv.org/abs/2210.15191).

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
    """Tokens of a probability of at least ``min(epsilon, sqrt(epsilon) * exp(-entropy))``.

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
    """The logits less the largest, as precise as the weights; tokens without a weight count for nothing, and get 0."""
    shifted: NDArray[Any] = logits.astype(weights.dtype)
    shifted -= shifted.max()
    if not np.isfinite(shifted.min()):
        shifted[weights == 0] = 0
    return shifted


def typical_p(mass: float, least: int = 1) -> Filter:
    """The tokens whose surprise is nearest to the entropy, until they reach `mass` (https://arxiv.org/abs/2202.00666).

    Tokens as near as the last are kept too. transformers: TypicalLogitsWarper.

    Args:
        mass: above 0, below 1.
        least: see the module.
    """

    def keep(logits: Logits) -> Positions:
        weights = weights_of(logits)
        total = float(weights.sum())
        # Surprise and entropy are both the logarithm of the total less something, so it need not be there.
        nearness = _shifted(logits, weights)
        nearness -= weights.dtype.type(np.dot(weights, nearness) / total)
        np.negative(np.abs(nearness, out=nearness), out=nearness)
        nearness[weights == 0] = -np.inf
        candidates = _heaviest(nearness, weights, mass * total)
        found = nearness if candidates is None else nearness[candidates]
        order = np.argsort(-found)
        ordered = order if candidates is None else candidates[order]
        count = min(max(reached(weights[ordered], mass * total) + 1, least), len(ordered))
        return at_least(nearness, nearness[ordered[count - 1]])

    return Filter(keep)


def top_n_sigma(n: float, least: int = 1) -> Filter:
    """Logits within `n` standard deviations of the largest (https://arxiv.org/abs/2411.07641).

    Tokens that are out already do not count. transformers has no such step.

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
    """Now and then, remove every token that reaches `threshold` but the least likely of them ("exclude top choices").

    Reference: p-e-w's description in text-generation-webui, pull request 6335. transformers has no such step.

    Args:
        threshold: a probability; nothing happens unless two tokens reach it, so not above 0.5.
        probability: of doing so at any one token.
        generator: the row's; one number is drawn for every token, whatever comes of it.
        least: see the module.
    """

    def keep(logits: Logits) -> Positions | None:
        if generator.random() >= probability:
            return None
        weights = weights_of(logits)
        reaching = at_least(weights, threshold * float(weights.sum()))
        if len(reaching) < 2 or len(logits) - len(reaching) + 1 < least:
            return None
        # Of several that are least likely, the last stays.
        last = len(reaching) - 1 - int(np.argmin(weights[reaching][::-1]))
        return np.delete(np.arange(len(logits)), np.delete(reaching, last))

    return Filter(keep)
