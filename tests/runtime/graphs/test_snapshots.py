"""Snapshots of states: which of them a text can start from, and how many are kept."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo, StateInfo
from triform.runtime.graphs.cache import KVCache, Snapshots, is_worth_a_snapshot

INFO = CacheInfo(
    "float32",
    [LayerCacheInfo(2, 3)],
    [StateInfo("convolution", "float32", [2, 5]), StateInfo("recurrence", "float32", [3, 4, 6])],
)


def named(number):
    return {"states.0": np.full(1, number)}


def length_of(snapshot):
    return None if snapshot is None else len(snapshot.ids)


def test_the_longest_beginning_is_taken():
    snapshots = Snapshots()
    for ids in ([1, 2], [1, 2, 3, 4], [1, 5]):
        snapshots.keep(ids, named(len(ids)))
    assert length_of(snapshots.longest([1, 2, 3, 4, 5, 6], 6)) == 4
    assert length_of(snapshots.longest([1, 2, 3, 4, 5, 6], 3)) == 2
    assert length_of(snapshots.longest([1, 2, 9], 3)) == 2
    assert length_of(snapshots.longest([2, 1], 2)) is None
    assert length_of(snapshots.longest([1], 1)) is None


def test_the_one_that_was_not_used_for_longest_goes():
    snapshots = Snapshots()
    for first in range(4):
        snapshots.keep([first], named(first))
    assert length_of(snapshots.longest([0, 7], 2)) == 1
    snapshots.keep([4], named(4))
    kept = [first for first in range(5) if snapshots.longest([first, 7], 2) is not None]
    assert kept == [0, 2, 3, 4]


def test_the_same_text_is_kept_once():
    snapshots = Snapshots()
    for number in range(6):
        snapshots.keep([1, 2], named(number))
    snapshots.keep([3], named(3))
    assert snapshots.longest([1, 2, 3], 3).states["states.0"] == 5
    assert snapshots.longest([3, 2, 3], 3).states["states.0"] == 3


@pytest.mark.parametrize(("kept", "length", "worth"), [(0, 16, True), (0, 15, False), (30, 45, False), (30, 46, True)])
def test_short_beginnings_are_read_again(kept, length, worth):
    assert is_worth_a_snapshot(kept, length) == worth


def filled(rows):
    """A cache whose rows hold a token each and states of their own number, from 1."""
    cache = KVCache(INFO, 100, batch=rows)
    cache.reserve(1)
    cache.advance(1)
    for array in cache.buffers.states.values():
        array[:rows] = np.arange(1, rows + 1).reshape(rows, *[1] * (array.ndim - 1))
    return cache


def numbers(cache):
    """The number in each row's states, in which all states agree."""
    found = []
    for row in range(len(cache.lengths)):
        values = {float(value) for state in cache.states_of(row).values() for value in state.flat}
        assert len(values) == 1
        found.append(int(values.pop()))
    return found


@pytest.mark.parametrize("parents", [[2, 0, 1], [1, 1, 1, 0, 2], [2], [0, 1, 2], [], [2, 2, 0]])
def test_states_move_with_their_rows(parents):
    cache = filled(3)
    cache.select(parents)
    assert numbers(cache) == [parent + 1 for parent in parents]


def test_new_rows_have_no_states_and_longer_ones_keep_theirs():
    cache = filled(3)
    cache.reserve(90)
    assert numbers(cache) == [1, 2, 3]
    cache.resize(2)
    cache.resize(5)
    assert numbers(cache) == [1, 2, 0, 0, 0]
    cache.reset()
    assert numbers(cache) == [0] * 5


def test_a_row_goes_back_to_what_was_copied():
    cache = filled(2)
    copied = cache.states_of(1)
    cache.reset()
    assert {float(value) for value in copied["states.1"].flat} == {2.0}
    cache.rewind(0, 1, copied)
    assert (numbers(cache), cache.lengths.tolist()) == ([2, 0], [1, 0])
    cache.rewind(0, 0, None)
    assert numbers(cache) == [0, 0]


def test_a_view_of_a_row_shares_its_states():
    cache = filled(3)
    view = cache.row(1)
    assert numbers(view) == [2]
    view.rewind(0, 0, None)
    assert numbers(cache) == [1, 0, 3]


def test_states_cannot_be_cut_back():
    with pytest.raises(RuntimeError, match="cannot be cut back"):
        filled(1).trim(1)


def test_the_size_counts_everything():
    # 64 tokens of 2 heads of 3 channels, twice; and the states. Four bytes each.
    assert filled(2).nbytes == 2 * 4 * (64 * 2 * 3 * 2 + 2 * 5 + 3 * 4 * 6)
