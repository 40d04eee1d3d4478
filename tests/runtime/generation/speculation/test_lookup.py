"""Proposals that are copied from earlier, by a search through all places."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.generation.speculation.lookup import look_up


def by_definition(ids, count):
    for size in (3, 2):
        ends = [end for end in range(size, len(ids)) if ids[end - size : end] == ids[-size:]]
        if ends and len(ids) > size:
            following = ids[ends[-1] :]
            return [following[place % len(following)] for place in range(count)]
    return []


@pytest.mark.parametrize(
    ("ids", "count", "expected"),
    [
        ([], 3, []), ([1], 3, []), ([1, 2], 3, []), ([1, 2, 3], 3, []), ([1, 1], 3, []), ([1, 1, 1], 3, [1, 1, 1]),
        ([1, 2, 9, 1, 2], 2, [9, 1]), ([1, 2, 9, 1, 2], 5, [9, 1, 2, 9, 1]),
        ([1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3], 1, [7]),
        # The latest of several; three tokens count for more than two that came later.
        ([1, 2, 5, 1, 2, 6, 1, 2], 1, [6]), ([0, 1, 2, 5, 1, 2, 6, 0, 1, 2], 1, [5]), ([2, 9, 1, 9], 2, []),
        # A fourth does not.
        ([5, 1, 2, 3, 7, 9, 1, 2, 3, 8, 5, 1, 2, 3], 1, [8]),
    ],
)  # fmt: skip
def test_by_hand(ids, count, expected):
    found = look_up(np.array(ids, np.int64), count)
    assert found.tolist() == expected and found.dtype == np.int64


@pytest.mark.parametrize("seed", range(20))
def test_by_search(seed):
    generator = np.random.default_rng(seed)
    for length in range(14):
        ids = generator.integers(0, 3, length).tolist()
        for count in (1, 4):
            assert look_up(np.array(ids, np.int64), count).tolist() == by_definition(ids, count)
