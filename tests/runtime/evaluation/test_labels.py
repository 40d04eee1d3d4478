"""Accuracy and F1 of labels, each counted by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.evaluation import labels
from triform.runtime.evaluation.labels import evaluate_labels


def measured(monkeypatch, predicted, right, **info):
    # The best label comes first; the others are there to be left alone.
    found = ([(label, 0.75), ("b" if label == "a" else "a", 0.25)] for label in predicted)
    monkeypatch.setattr(labels, "classify", lambda model, texts: found)
    model = SimpleNamespace(info=SimpleNamespace(**{"labels": ("a", "b", "c"), "problem_type": None, **info}))
    return evaluate_labels(model, ["text"] * len(right), right)


@pytest.mark.parametrize(
    ("predicted", "right", "accuracy", "f1"),
    [
        ("aaab", "aabb", 0.75, (4 / 5 + 2 / 3) / 2),
        ("abc", "abc", 1, 1),
        ("ab", "ba", 0, 0),
        # Of c nothing is right, but it is predicted: its F1 of 0 counts. Of a, two of three are found.
        ("aac", "aaa", 2 / 3, (4 / 5 + 0) / 2),
        # It is right, and never predicted.
        ("aaa", "aac", 2 / 3, (4 / 5 + 0) / 2),
        ("b", "b", 1, 1),
    ],
)
def test_accuracy_and_the_mean_of_the_f1_of_what_occurs(monkeypatch, predicted, right, accuracy, f1):
    found = measured(monkeypatch, predicted, right)
    assert {one.name: one.compute(found.rows) for one in found.metrics} == pytest.approx(
        {"accuracy": accuracy, "macro F1": f1}
    )
    assert found.scores.tolist() == [float(one == other) for one, other in zip(predicted, right, strict=True)]
    assert found.rows.tolist() == [[("abc").index(two) for two in pair] for pair in zip(right, predicted, strict=True)]


def test_the_item_with_an_unknown_label_is_named(monkeypatch):
    with pytest.raises(InputError, match=r"^item 2 has the label 'd'; the model has a, b, c$"):
        measured(monkeypatch, "aa", "ad")


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression", "single_label_classification", None])
def test_models_that_choose_one_label(monkeypatch, kind):
    if kind in ("multi_label_classification", "regression"):
        with pytest.raises(UnsupportedError, match=f"this one is for {kind}"):
            measured(monkeypatch, "a", "a", problem_type=kind)
    else:
        assert measured(monkeypatch, "a", "a", problem_type=kind).scores.tolist() == [1]
