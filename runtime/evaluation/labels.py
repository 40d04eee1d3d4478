"""Accuracy and F1 of encoders that give labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from triform.runtime.encoder.classification import classify
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.encoder.tagging import tag
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.evaluation.measurement import Measurement, Metric, Rows, ratio
from triform.runtime.text.rows import Pair

# A span of a text: its first character, the one after its last, and its label.
Span = tuple[int, int, str]


def evaluate_labels(model: OpenEncoder, texts: Sequence[str | Pair], labels: Sequence[str]) -> Measurement:
    """Measure how often the best label is the right one.

    Args:
        model: a text-classification bundle.
        texts: texts, or pairs of texts.
        labels: for each text the right label.

    Returns:
        accuracy, and the macro F1: the mean of the F1 of each label that is right or predicted at least once.

    Raises:
        InputError: the model does not know a label.
        UnsupportedError: several labels may fit a text, or the labels are numbers.
    """
    _check_single_label(model)
    known = {label: index for index, label in enumerate(model.info.labels)}
    for number, label in enumerate(labels, 1):
        if label not in known:
            raise InputError(f"item {number} has the label {label!r:.60}; the model has {', '.join(known)}")
    predicted = [known[result[0][0]] for result in classify(model, texts)]
    rows = np.array([[known[label] for label in labels], predicted], np.float64).T
    scores = (rows[:, 0] == rows[:, 1]).astype(np.float64)
    return Measurement(rows, scores, (Metric("accuracy", _accuracy), Metric("macro F1", _macro_f1)), "texts")


def _check_single_label(model: OpenEncoder) -> None:
    if model.info.problem_type in ("multi_label_classification", "regression"):
        raise UnsupportedError(
            f"accuracy is for models that choose one label for a text; this one is for {model.info.problem_type}"
        )


def _accuracy(rows: Rows) -> float:
    return float((rows[:, 0] == rows[:, 1]).mean())


def _macro_f1(rows: Rows) -> float:
    right, predicted = rows.T
    scores = []
    for label in np.unique(rows):
        hits = np.sum((right == label) & (predicted == label))
        scores.append(2 * hits / (np.sum(right == label) + np.sum(predicted == label)))
    return float(np.mean(scores))


def evaluate_spans(model: OpenEncoder, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> Measurement:
    """Measure how many spans a token-classification model finds, with exactly the right ends and label.

    Args:
        model: a token-classification bundle.
        texts: texts of any length.
        spans: for each text the right spans.

    Returns:
        precision, recall and F1, over the spans of all texts.
    """
    counts = []
    for right, result in zip(spans, tag(model, texts), strict=True):
        predicted = {(one.start, one.end, one.label) for one in result}
        counts.append([len(predicted & set(right)), len(predicted), len(set(right))])
    rows = np.array(counts, np.float64)
    # The spans that were missed, and those that are wrong.
    scores = 2 * rows[:, 0] - rows[:, 1] - rows[:, 2]
    metrics = (Metric("F1", _f1), ratio("precision", 0, 1), ratio("recall", 0, 2))
    return Measurement(rows, scores, metrics, "texts")


def _f1(rows: Rows) -> float:
    hits, predicted, right = rows.sum(0)
    return float(2 * hits / (predicted + right)) if predicted + right else float("nan")
