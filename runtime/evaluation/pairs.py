"""Correlation of a model's scores of pairs with people's scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import cosines
from triform.runtime.encoder.classification import label_logits
from triform.runtime.encoder.model import Encoder
from triform.runtime.errors import UnsupportedError
from triform.runtime.evaluation.measurement import Measurement, Metric, Rows
from triform.runtime.text.rows import Pair


def evaluate_similarity(model: Encoder, pairs: Sequence[Pair], scores: Sequence[float]) -> Measurement:
    """Compare the cosine of each pair's vectors with its score.

    Args:
        model: a feature-extraction bundle.
        pairs: two texts each.
        scores: for each pair; higher means more alike.
    """
    vectors = model.embed([text for pair in pairs for text in pair])
    computed = [float(cosines(left, right)) for left, right in zip(vectors[::2], vectors[1::2], strict=True)]
    return _correlations(computed, scores)


def evaluate_relevance(model: Encoder, pairs: Sequence[Pair], scores: Sequence[float]) -> Measurement:
    """Compare the score that a model with one label gives to each pair with the right one.

    Args:
        model: a text-classification bundle with one label.
        pairs: a query and a document each, or two texts.
        scores: for each pair; higher means that the document answers the query better, or more alike.

    Raises:
        UnsupportedError: the model has several labels.
    """
    if len(model.info.labels) != 1:
        raise UnsupportedError(f"scores of pairs need a model with one label; this one has {len(model.info.labels)}")
    # The logits: the sigmoid leaves their order as it is, and rounds large ones to 1.
    logits = [float(logits[0]) for logits in label_logits(model, pairs, "evaluate")]
    return _correlations(logits, scores)


def _correlations(computed: Sequence[float], scores: Sequence[float]) -> Measurement:
    rows = np.array([computed, scores], np.float64).T
    distance = np.abs(ranks(rows[:, 0]) - ranks(rows[:, 1]))
    metrics = (Metric("Spearman", _spearman), Metric("Pearson", pearson))
    return Measurement(rows, -distance, metrics, "pairs")


def pearson(rows: Rows) -> float:
    """The correlation of the two columns; NaN if one of them is constant."""
    centered = rows - rows.mean(0)
    norms = np.sqrt((centered**2).sum(0))
    if not norms.all():
        return float("nan")
    return float((centered[:, 0] / norms[0]) @ (centered[:, 1] / norms[1]))


def _spearman(rows: Rows) -> float:
    return pearson(np.stack([ranks(column) for column in rows.T], axis=1))


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value, float64 (values,), from 1; equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: NDArray[np.float64] = last - (counts - 1) / 2
    return means[places]
