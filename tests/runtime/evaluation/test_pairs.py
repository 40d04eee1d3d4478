"""Correlations by numpy and by hand, of a model that gives written vectors and logits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.errors import UnsupportedError
from triform.runtime.evaluation import pairs
from triform.runtime.evaluation.pairs import evaluate_relevance, evaluate_similarity, pearson, ranks


def values(measured):
    return {metric.name: metric.compute(measured.rows) for metric in measured.metrics}


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([3.0, 1.0, 2.0], [3, 1, 2]),
        ([5.0], [1]),
        ([2.0, 2.0], [1.5, 1.5]),
        ([1.0, 7.0, 7.0, 7.0, 9.0], [1, 3, 3, 3, 5]),
        ([-1.0, -2.0, -1.0, 4.0, 4.0], [2.5, 1, 2.5, 4.5, 4.5]),
    ],
)
def test_equal_values_share_the_mean_of_their_ranks(numbers, expected):
    assert ranks(np.array(numbers)).tolist() == expected


@pytest.mark.parametrize("seed", range(3))
def test_the_correlation_is_that_of_numpy(seed):
    rows = np.random.default_rng(seed).normal(3, 2, (9, 2))
    assert pearson(rows) == pytest.approx(np.corrcoef(rows.T)[0, 1])
    assert pearson(rows * [1, -1]) == pytest.approx(-np.corrcoef(rows.T)[0, 1])


@pytest.mark.parametrize("constant", [0, 1])
def test_what_is_constant_has_no_correlation(constant):
    rows = np.array([[1.0, 2.0], [3.0, 5.0]])
    rows[:, constant] = 4
    assert np.isnan(pearson(rows))


def test_each_pair_is_two_neighbors_of_the_vectors():
    read = []

    def embed(texts):
        read.extend(texts)
        # Cosines 1, 0 and 0.6.
        return np.array([[2, 0], [5, 0], [1, 0], [0, 3], [1, 0], [3, 4]], np.float32)

    measured = evaluate_similarity(SimpleNamespace(embed=embed), [("a", "b"), ("c", "d"), ("e", "f")], [5.0, 1.0, 2.0])
    assert read == list("abcdef")
    assert measured.rows == pytest.approx(np.array([[1, 5], [0, 1], [0.6, 2]]))
    assert values(measured) == pytest.approx({"Spearman": 1, "Pearson": np.corrcoef([1, 0, 0.6], [5, 1, 2])[0, 1]})
    assert measured.scores.tolist() == [0, 0, 0] and measured.item == "pairs"


def relevance(monkeypatch, logits, scores, labels=("relevant",)):
    monkeypatch.setattr(pairs, "label_logits", lambda model, read, task: iter(np.array(logits)[:, None]))
    model = SimpleNamespace(info=SimpleNamespace(labels=labels))
    return evaluate_relevance(model, [("q", "d")] * len(logits), scores)


def test_the_farther_a_rank_is_off_the_lower_is_the_score_of_the_pair(monkeypatch):
    # Ranks 1, 2, 3, 4 and 4, 1, 3, 2; Spearman is 1 - 6 * (9 + 1 + 0 + 4) / (64 - 4).
    measured = relevance(monkeypatch, [-40.0, 0.0, 30.0, 60.0], [9.0, 1.0, 3.0, 2.0])
    assert measured.scores.tolist() == [-3, -1, 0, -2]
    assert values(measured)["Spearman"] == pytest.approx(1 - 6 * 14 / 60)
    # Logits, which are far apart where their sigmoids are both 1.
    assert measured.rows[:, 0].tolist() == [-40, 0, 30, 60]


@pytest.mark.parametrize("labels", [(), ("no", "yes"), ("a", "b", "c")])
def test_scores_of_pairs_need_one_label(monkeypatch, labels):
    with pytest.raises(UnsupportedError, match=f"need a model with one label; this one has {len(labels)}"):
        relevance(monkeypatch, [1.0], [1.0], labels)
