"""Rows of the cache moved about, against lists of numbers moved about."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo, StateInfo
from triform.runtime.errors import InputError
from triform.runtime.graphs.cache import KVCache, place_rows

INFO = CacheInfo("float32", [LayerCacheInfo(2, 3), LayerCacheInfo(1, 4)])


def write(cache, numbers):
    """Append one number a row, as the graph would: everywhere in the buffers, in place."""
    cache.reserve(int(cache.lengths.max(initial=0)) + 1)
    for array in cache.buffers.arrays.values():
        for row, number in enumerate(numbers):
            array[row, :, cache.lengths[row]] = number
    cache.advance(1)


def content(cache):
    """What each row holds; all layers, heads and channels must agree on it."""
    rows = []
    for row, length in enumerate(cache.lengths):
        for array in cache.buffers.arrays.values():
            held = array[row, :, :length]
            assert (held == held[:1, :, :1]).all()
        first = cache.buffers.arrays["0.key"][row, 0, :length, 0] if cache.buffers.arrays else np.zeros(0)
        rows.append(first.tolist())
    return rows


class EveryWayOfMovingRows(RuleBasedStateMachine):
    """The cache next to lists that hold what its rows should hold."""

    @initialize(batch=st.integers(0, 3))
    def make(self, batch):
        self.cache = KVCache(INFO, 5000, batch=batch)
        self.rows = [[] for _ in range(batch)]
        self.count = 0

    def fresh(self, count):
        """Numbers that were not used before."""
        self.count += count
        return list(range(self.count - count + 1, self.count + 1))

    @rule(times=st.integers(1, 3))
    def write(self, times):
        for _ in range(times):
            numbers = self.fresh(len(self.rows))
            write(self.cache, numbers)
            self.rows = [[*row, number] for row, number in zip(self.rows, numbers, strict=True)]

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), settled=st.booleans())
    def select(self, data, settled):
        parents = data.draw(st.lists(st.integers(0, len(self.rows) - 1), max_size=7))
        if settled:
            places = place_rows(parents)
            assert sorted(places) == list(range(len(parents)))
            parents = [parents[index] for index in np.argsort(places)]
        self.cache.select(parents)
        self.rows = [list(self.rows[parent]) for parent in parents]

    @precondition(lambda self: self.rows)
    @rule(children=st.integers(2, 4))
    def branch_and_write(self, children):
        self.cache.select([0] * children)
        self.rows = [list(self.rows[0]) for _ in range(children)]
        self.write(1)

    @precondition(lambda self: len(self.rows) > 1)
    @rule()
    def swap(self):
        order = [1, 0, *range(2, len(self.rows))]
        self.cache.select(order)
        self.rows = [self.rows[index] for index in order]

    @rule(batch=st.integers(0, 7))
    def resize(self, batch):
        self.cache.resize(batch)
        self.rows = [*self.rows, *([] for _ in range(batch))][:batch]

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), anew=st.booleans())
    def write_through_a_row(self, data, anew):
        index = data.draw(st.integers(0, len(self.rows) - 1))
        self.cache.reserve(len(self.rows[index]) + 2)
        view, numbers = self.cache.row(index), self.fresh(2)
        if anew:
            view.reset()
            self.rows[index] = []
        for number in numbers:
            write(view, [number])
        self.rows[index] = self.rows[index] + numbers

    @rule(count=st.integers(0, 3))
    def trim(self, count):
        self.cache.trim(count)
        self.rows = [row[: max(len(row) - count, 0)] for row in self.rows]

    @rule()
    def grow(self):
        if self.cache.capacity < 1000:
            self.cache.reserve(self.cache.capacity + 1)

    @rule()
    def write_from_the_start(self):
        self.cache.reset()
        self.rows = [[] for _ in self.rows]
        self.write(2)

    @invariant()
    def same(self):
        assert content(self.cache) == self.rows


TestEveryWayOfMovingRows = EveryWayOfMovingRows.TestCase
TestEveryWayOfMovingRows.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_beams_share_their_prompt_and_only_what_differs_is_copied():
    cache = KVCache(INFO, 500)
    for number in range(10):
        write(cache, [number])
    cache.select([0, 0, 0])
    write(cache, [100, 200, 300])
    for array in cache.buffers.arrays.values():
        # If the prompt was copied again, this would be copied with it.
        array[1, :, :10] = -1
    cache.select([0, 1, 1])
    assert [row[0] for row in content(cache)] == [0, -1, 0]
    assert [row[-1] for row in content(cache)] == [100, 200, 200]


def rewrite_one_row(cache):
    view = cache.row(1)
    view.reset()
    write(view, [100])


def trim_and_write(cache):
    cache.trim(2)
    write(cache, [100, 200])


def start_again(cache):
    cache.reset()
    write(cache, [100, 200])


@pytest.mark.parametrize("change", [rewrite_one_row, trim_and_write, start_again])
def test_rows_that_were_alike_are_copied_where_they_are_not_any_more(change):
    cache = KVCache(INFO, 500)
    for number in range(5):
        write(cache, [number])
    cache.select([0, 0])
    change(cache)
    expected = content(cache)
    assert expected[0] != expected[1]
    cache.select([1, 0])
    assert content(cache) == expected[::-1]


@pytest.mark.parametrize("length", [1, 64, 65, 100])
def test_a_row_is_as_long_as_the_context_and_no_longer(length):
    cache = KVCache(INFO, length)
    assert cache.reserve(length) and cache.capacity == length and not cache.reserve(length)
    with pytest.raises(InputError, match=f"{length + 1} tokens do not fit into the model's context of {length}"):
        cache.reserve(length + 1)


def test_what_was_stored_is_the_first_row_again():
    cache = KVCache(INFO, 500, batch=2)
    for numbers in ([1, 2], [3, 4], [5, 6]):
        write(cache, numbers)
    arrays = {name: array.copy() for name, array in cache.stored(2).items()}
    other = KVCache(INFO, 500, batch=2)
    write(other, [7, 8])
    other.load(arrays, 2)
    assert content(other) == [[1, 3], []]


def test_rows_that_stay_are_not_touched():
    cache = KVCache(INFO, 500, batch=4)
    write(cache, [1, 2, 3, 4])
    buffers = dict(cache.buffers.arrays)
    for array in buffers.values():
        array.flags.writeable = False
    cache.select([0, 1, 2, 3])
    cache.select([0, 1])
    assert all(cache.buffers.arrays[name] is array for name, array in buffers.items())
    assert content(cache) == [[1], [2]]


def test_the_layout_changes_when_the_buffers_do_and_when_rows_come_or_go():
    cache = KVCache(INFO, 500, batch=2)
    seen = [cache.layout]
    for change in (
        lambda: cache.reserve(1),
        lambda: cache.resize(3),
        lambda: cache.resize(2),
        lambda: cache.reserve(65),
    ):
        change()
        assert cache.layout not in seen
        seen.append(cache.layout)
    before, buffers = cache.layout, dict(cache.buffers.arrays)
    cache.select([1, 0])
    assert cache.layout == before
    assert all(cache.buffers.arrays[name] is array for name, array in buffers.items())


@pytest.mark.parametrize(
    ("parents", "places"),
    [
        ([0, 1, 2], [0, 1, 2]),
        ([2, 1, 0], [2, 1, 0]),
        ([1, 1, 1], [1, 0, 2]),
        ([0, 0, 1, 1], [0, 2, 1, 3]),
        ([5, 5], [0, 1]),
        ([3, 0], [1, 0]),
        ([], []),
    ],
)
def test_rows_are_settled_where_their_parents_are(parents, places):
    assert place_rows(parents).tolist() == places


def test_settled_rows_are_never_read_after_they_were_written():
    generator = np.random.default_rng(0)
    for _ in range(300):
        parents = generator.integers(0, generator.integers(1, 8), generator.integers(1, 8))
        order = np.empty_like(parents)
        order[place_rows(parents)] = parents
        moves = [(to, source) for to, source in enumerate(order) if to != source]
        assert not {to for to, _ in moves} & {source for _, source in moves}


def test_a_cache_too_large_for_the_memory_leaves_an_empty_one(monkeypatch):
    cache = KVCache(INFO, 500, batch=2)
    write(cache, [1, 2])

    def refuse(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(cache.buffers, "grow", refuse)
        with pytest.raises(InputError, match="a cache of 2 rows of 128 tokens does not fit into memory"):
            cache.reserve(65)
    assert cache.lengths.tolist() == [0, 0]
    write(cache, [3, 4])
    assert content(cache) == [[3], [4]]


def test_states_of_fixed_size_are_not_cut_back():
    info = CacheInfo("float32", [LayerCacheInfo(2, 3)], [StateInfo("recurrence", "float32", [5])])
    cache = KVCache(info, 500)
    cache.advance(3)
    # Of no tokens nothing is cut.
    cache.trim(0)
    assert cache.lengths.tolist() == [3]
    with pytest.raises(RuntimeError, match="a state of fixed size cannot be cut back"):
        cache.trim(1)
    assert cache.lengths.tolist() == [3]
