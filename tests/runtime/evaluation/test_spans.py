"""Precision, recall and F1 of spans by arithmetic, also where as many are found as there are."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from triform.runtime.evaluation import labels
from triform.runtime.evaluation.labels import evaluate_spans

A, B, C = (0, 1, "X"), (2, 3, "X"), (2, 3, "Y")


def measured(monkeypatch, found, right):
    spans = ([SimpleNamespace(start=start, end=end, label=label) for start, end, label in row] for row in found)
    monkeypatch.setattr(labels, "tag", lambda model, texts: spans)
    result = evaluate_spans(None, ["text"] * len(found), right)
    return {metric.name: metric.compute(result.rows) for metric in result.metrics}, result.scores.tolist()


@pytest.mark.parametrize(
    ("found", "right", "precision", "recall", "f1", "scores"),
    [
        ([[A]], [[A]], 1, 1, 1, [0]), ([[A, B]], [[A, C]], 0.5, 0.5, 0.5, [-2]), ([[A]], [[A, B]], 1, 0.5, 2 / 3, [-1]),
        ([[A, B, C]], [[A]], 1 / 3, 1, 0.5, [-2]), ([[A], [B]], [[A], []], 0.5, 1, 2 / 3, [0, -1]),
        ([[A]], [[B]], 0, 0, 0, [-2]),
    ],
)  # fmt: skip
def test_spans_with_exactly_their_ends_and_label(monkeypatch, found, right, precision, recall, f1, scores):
    values, of_texts = measured(monkeypatch, found, right)
    assert values == pytest.approx({"F1": f1, "precision": precision, "recall": recall}) and of_texts == scores


def test_nothing_found_of_nothing(monkeypatch):
    values, _ = measured(monkeypatch, [[]], [[]])
    assert all(map(math.isnan, values.values()))
