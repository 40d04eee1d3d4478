"""From logits to a token: processors applied in order, then the most likely token or a sampled one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import not_numbers
from triform.runtime.errors import InputError
from triform.runtime.generation.processors.contract import Filter, Processor, Temperature
from triform.runtime.generation.processors.truncation import reached, weights_of
from triform.runtime.generation.steps import Ids, Logits
from triform.runtime.likeliest import Likeliest, Scores, all_logits

__all__ = [
    "Logits",
    "Sampler",
    "answer_generator",
    "draw",
    "greedy",
    "make_sampler",
    "process",
    "row_generator",
    "wanted",
]
# Called with the ids of the row so far, int64 (length,), and what the model says about the next token.
Sampler = Callable[[Ids, Scores], int]
# Beyond a top-k's own tokens: those that are as likely as the last of them belong to it, too.
_EQUALS = 16


def row_generator(seed: int | None, row: int) -> np.random.Generator:
    """Random numbers of one row of a batch: they depend on the seed and the row, not on the rest of the batch.

    Args:
        seed: below 2**64; fresh randomness when None.
        row: its index.
    """
    if seed is None:
        return np.random.Generator(np.random.Philox())
    return np.random.Generator(np.random.Philox(key=np.array([seed, row], np.uint64)))


def answer_generator(generator: np.random.Generator, index: int) -> np.random.Generator:
    """The random numbers of one of several answers, jumped ahead so that no two answers share any.

    Args:
        generator: from `row_generator`; not changed.
        index: of the answer; the first is 0 and has the generator's own numbers.
    """
    return np.random.Generator(cast(np.random.Philox, generator.bit_generator).jumped(index))


def make_sampler(processors: Sequence[Processor], generator: np.random.Generator | None) -> Sampler:
    """Build the sampler for one row of one generation.

    Args:
        processors: from `build_processors`; at least those with a state are the row's own.
        generator: the row's; one number is drawn for each token. None always takes the most likely token.

    Returns:
        a function from the row's ids and logits to a token id. It raises BundleError where the logits hold NaN or an
        infinity, and InputError where the processors ban every token.
    """
    if generator is None:
        if not processors:
            return lambda ids, scores: best_token(scores)
        return lambda ids, scores: greedy(process(processors, ids, all_logits(scores)))
    whole, narrowing = _split(processors)

    def sample(ids: Ids, scores: Scores) -> int:
        tokens: NDArray[Any] | None = None
        if isinstance(scores, Likeliest):
            # See `wanted`: they are all that the processors leave, and perhaps more.
            best_token(scores)
            tokens, logits = scores.tokens, scores.logits
        else:
            logits = process(whole, ids, scores)
        _check(logits)
        for step in narrowing:
            kept = step.keep(logits) if isinstance(step, Filter) else None
            if kept is not None:
                tokens = kept if tokens is None else tokens[kept]
                logits = logits[kept]
            elif isinstance(step, Temperature):
                logits = step(ids, logits)
        index = draw(weights_of(logits), generator.random())
        return index if tokens is None else int(tokens[index])

    return sample


def _split(processors: Sequence[Processor]) -> tuple[Sequence[Processor], Sequence[Processor]]:
    """The steps up to the last one that depends on ids or positions; those after it need only the tokens left."""
    split = max((i + 1 for i, step in enumerate(processors) if not isinstance(step, Filter | Temperature)), default=0)
    return processors[:split], processors[split:]


def wanted(processors: Sequence[Processor], generator: np.random.Generator | None, vocab_size: int) -> int | None:
    """How many of the likeliest tokens a sampler needs; None if it needs all logits.

    Args:
        processors: of `make_sampler`.
        generator: of `make_sampler`.
        vocab_size: of the model.
    """
    if generator is None:
        return None if processors else 1
    whole, narrowing = _split(processors)
    first = next((step for step in narrowing if isinstance(step, Filter)), None)
    if whole or first is None or first.most is None:
        return None
    return min(first.most + _EQUALS, vocab_size)


def best_token(scores: Scores) -> int:
    """The most likely token; the first of several that are equal. Errors as `greedy`."""
    if not isinstance(scores, Likeliest):
        return greedy(scores)
    if scores.best < 0:
        raise not_numbers()
    return scores.best


def process(processors: Sequence[Processor], ids: Ids, logits: Logits) -> Logits:
    """Apply processors in turn. Arguments and result as `Processor`.

    Raises:
        BundleError: the logits hold NaN or infinity, which a processor might hide.
    """
    if processors and not logits.max() < math.inf:
        raise not_numbers()
    for step in processors:
        logits = step(ids, logits)
    return logits


def greedy(logits: Logits) -> int:
    """The most likely token; the first of several that are equal.

    Raises:
        BundleError: the logits hold NaN or an infinity, so no token is the most likely.
        InputError: every token is banned.
    """
    token = int(logits.argmax())
    # argmax returns the first NaN, so checking one number is enough.
    _check(logits[token])
    return token


def draw(weights: NDArray[Any], uniform: float) -> int:
    """The position at which the cumulative sum of the weights passes `uniform` of their total.

    Args:
        weights: float (count,), not negative, some positive.
        uniform: in [0, 1).
    """
    return reached(weights, uniform * float(weights.sum()))


def _check(logits: Any) -> None:
    largest = float(logits.max())
    if largest == -math.inf:
        raise InputError("every token is banned, so none can be chosen; allow more by the options that ban tokens")
    if not math.isfinite(largest):
        raise not_numbers()
