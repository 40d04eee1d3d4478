"""Labels for texts, by a model that was trained to give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from triform.runtime.encoder import Encoder
from triform.runtime.errors import BundleError
from triform.runtime.rows import Pair

TASK = "text-classification"


def classify(model: Encoder, texts: Iterable[str | Pair]) -> Iterator[list[tuple[str, float]]]:
    """Every label's score for each text, as transformers' text-classification pipeline computes it.

    Args:
        model: a text-classification bundle.
        texts: any number of texts, or pairs of texts.

    Yields:
        for each text, (label, score) of every label, the highest score first: probabilities that sum to 1 when one
        label applies; each label's own probability when several may, or there is only one; the model's number as it
        is for a regression.

    Raises:
        UnsupportedError: the bundle is for another task.
        BundleError: it does not name its labels.
        InputError: a text cannot be read.
        TriformError: onnxruntime failed.
    """
    for logits in label_logits(model, texts, "classify"):
        named = zip(model.info.labels, scores(logits, model.info.problem_type).tolist(), strict=True)
        yield sorted(named, key=lambda pair: pair[1], reverse=True)


def label_logits(model: Encoder, texts: Iterable[str | Pair], command: str) -> Iterator[NDArray[np.float32]]:
    """What the model says of each label, before it is made a probability.

    Args:
        model: a text-classification bundle.
        texts: any number of texts, or pairs of texts.
        command: who asks, for errors.

    Yields:
        for each text, float32 of shape (labels,).

    Raises:
        UnsupportedError: the bundle is for another task.
        BundleError: it does not name its labels.
        InputError: a text cannot be read.
        TriformError: onnxruntime failed.
    """
    model.require(command, TASK)
    labels = model.info.labels
    for (logits,) in model.step.in_batches(model.reader().stream(texts), ("logits",)):
        if len(logits) != len(labels):
            raise BundleError(
                f"the bundle names {len(labels)} labels for a graph that gives {len(logits)}; export the model again"
            )
        yield logits


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities that sum to 1 over the last axis."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    found: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return found


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """A probability for each logit."""
    # Exponentials of sums neither overflow nor round to nothing.
    found: NDArray[np.float64] = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
    return found


def scores(logits: NDArray[np.floating], problem_type: str | None) -> NDArray[np.floating]:
    """What transformers' pipelines make of logits (…, labels): probabilities, or a regression's numbers as they are.

    Args:
        logits: what a model says of each label.
        problem_type: single_label_classification, as which None counts, multi_label_classification or regression.
    """
    if problem_type == "regression":
        return logits
    if problem_type == "multi_label_classification" or logits.shape[-1] == 1:
        return sigmoid(logits)
    return softmax(logits)
