"""The largest of many logits, against a sort: of few and of many, with ties, at the ends of the table and behind it."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.generation.processors import ranking
from triform.runtime.generation.processors.ranking import SMALL, at_least, largest

LENGTHS = [1, 2, 63, SMALL - 1, SMALL, SMALL + 1, SMALL + 63, 5000, 20_000]


def by_sorting(values, count):
    return np.flatnonzero(values >= np.sort(values)[-count])


@pytest.mark.parametrize("length", LENGTHS)
def test_the_largest(length):
    generator = np.random.default_rng(length)
    for values in (
        generator.normal(size=length), generator.integers(0, 9, length), np.arange(length), np.arange(length)[::-1],
        np.zeros(length), np.where(generator.random(length) < 0.01, 5.0, -np.inf),
    ):  # fmt: skip
        values = values.astype(np.float32)
        for count in {1, 2, 15, 16, 17, length // 256, length // 256 + 1, length - 1, length} & set(
            range(1, length + 1)
        ):
            found = largest(values, count)
            np.testing.assert_array_equal(found, by_sorting(values, count))


@pytest.mark.parametrize("length", LENGTHS)
def test_all_above_a_bound(length):
    values = np.random.default_rng(length).normal(size=length).astype(np.float32)
    for bound in (-10.0, -1.0, 0.0, 2.0, 3.0, 10.0, float(values.max()), float(values[-1])):
        np.testing.assert_array_equal(at_least(values, bound), np.flatnonzero(values >= bound))


@pytest.mark.parametrize("place", [0, 63, 64, SMALL - 1, SMALL, SMALL + 20, SMALL + 61])
def test_one_that_stands_out(place):
    """The table has 64 rows; what is left over stands behind it."""
    values = np.zeros(SMALL + 62, np.float32)
    values[place] = 1
    assert largest(values, 1).tolist() == at_least(values, 0.5).tolist() == at_least(values, 1.0).tolist() == [place]


def test_few_of_many_do_not_need_a_search_through_all(monkeypatch):
    """Above a certain length, only columns of the table are searched that reach the bound."""
    searched = []
    original = ranking._among

    def among(values, bound, maxima):
        searched.append(maxima is not None)
        return original(values, bound, maxima)

    monkeypatch.setattr(ranking, "_among", among)
    values = np.random.default_rng(0).normal(size=SMALL).astype(np.float32)
    largest(values, 15)
    largest(values, 16)
    largest(values[:-1], 1)
    at_least(values, 2.0)
    at_least(values[:-1], 2.0)
    # 64 columns: fewer than a quarter of them.
    assert searched == [True, True, False]
