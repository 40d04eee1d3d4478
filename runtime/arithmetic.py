"""Probabilities, unit vectors and checks for NaN: the formulas that several forms share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import BundleError

# float32 of any shape.
Array = NDArray[np.float32]
# The result has the precision of the argument.
Floats = TypeVar("Floats", NDArray[np.float32], NDArray[np.float64])


def softmax(logits: Floats) -> Floats:
    """Probabilities that sum to 1 over the last axis; minus infinity becomes 0."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """A probability for each logit."""
    # Exponentials of sums neither overflow nor round to nothing.
    probabilities: NDArray[np.float64] = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
    return probabilities


def log_sum_exp(logits: Array) -> NDArray[np.float64]:
    """The logarithm of the sum of exponentials over the last axis, which is kept with a size of 1."""
    largest = logits.max(-1, keepdims=True)
    total: NDArray[np.float64] = largest + np.log(np.exp(logits - largest).sum(-1, keepdims=True, dtype=np.float64))
    return total


def log_softmax(logits: Array) -> Array:
    """Logarithms of each row's probabilities, a new float32 array of the shape of `logits`.

    Raises:
        BundleError: the logits hold NaN, or an infinity that leaves no distribution.
    """
    largest = logits.max(-1, keepdims=True)
    if not np.isfinite(largest).all():
        raise not_numbers()
    shifted = logits - largest
    result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def log_probability(logits: Array, token: int) -> float:
    """The natural logarithm of one token's probability.

    Args:
        logits: float32 (vocab_size,).
        token: its id.
    """
    return float(logits[token]) - float(log_sum_exp(logits)[0])


def unit(vectors: Floats) -> Floats:
    """Vectors (…, dimension) scaled to length 1; a vector of zeros stays one."""
    lengths = np.sqrt(np.sum(np.square(vectors), axis=-1, keepdims=True))
    scaled: Floats = vectors / np.maximum(lengths, vectors.dtype.type(1e-12))
    return scaled


def units(vectors: Sequence[Array]) -> Array:
    """Vectors one by one as rows of length 1; see `unit`."""
    return unit(np.stack(vectors))


def cosines(left: Array, right: Array) -> NDArray[np.float64]:
    """The cosine of each vector with each, from -1 to 1; 0 where one of the two is all zeros.

    Args:
        left: (rows, dimension), or (dimension,).
        right: the same, of as many dimensions as `left`.

    Returns:
        (rows of `left`, rows of `right`), without the axis that a single vector does not have.
    """
    products = unit(left.astype(np.float64)) @ unit(right.astype(np.float64)).T
    return np.clip(products, -1.0, 1.0)


def check_numbers(results: Iterable[Array]) -> None:
    """Check that results are numbers.

    Raises:
        BundleError: one holds NaN or an infinity.
    """
    if not all(np.isfinite(result).all() for result in results):
        raise not_numbers("results")


def not_numbers(what: str = "logits") -> BundleError:
    """The error of a model whose results hold NaN.

    Args:
        what: the results, as a plural noun.
    """
    return BundleError(f"the model computed {what} that are not numbers (NaN); check its files with `triform verify`")
