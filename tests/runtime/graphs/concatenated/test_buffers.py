"""The two pieces of memory of a graph that concatenates: which one grows, and when what is in them counts no more."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo
from triform.runtime.graphs.concatenated.buffers import ConcatenatedBuffers, WorkingArrays

INFO = CacheInfo("float32", [LayerCacheInfo(2, 3)], growth="concatenated")


@pytest.mark.parametrize("piece", [0, 1])
def test_a_piece_grows_and_leaves_the_other_alone(piece):
    working = WorkingArrays()
    other = working.shaped("key", 1 - piece, (2, 3), 0)
    other[:] = 7
    first = working.shaped("key", piece, (2, 2), 10)
    # There is room for ten numbers, so that up to ten the memory stays.
    assert (first.shape, first.dtype) == ((2, 2), np.float32)
    assert [len(one) for one in working.flat["key"]] == ([10, 6] if piece == 0 else [6, 10])
    first[:] = [[1, 2], [3, 4]]
    assert working.shaped("key", piece, (5, 2), 0)[:2].tolist() == [[1, 2], [3, 4]]
    assert np.shares_memory(working.shaped("key", piece, (10,), 99), first)
    # Eleven do not fit, and what is larger counts: what is needed, or what there is to be room for.
    assert not np.shares_memory(working.shaped("key", piece, (11,), 4), first)
    assert len(working.flat["key"][piece]) == 11
    assert working.shaped("key", 1 - piece, (2, 3), 0).tolist() == [[7] * 3] * 2
    assert not np.shares_memory(*working.flat["key"])


def test_each_name_has_memory_of_its_own():
    working = WorkingArrays()
    for name, value in (("key", 1), ("value", 2)):
        working.shaped(name, 0, (4,), 4)[:] = value
    assert [working.shaped(name, 0, (4,), 4).tolist() for name in ("key", "value")] == [[1] * 4, [2] * 4]


@pytest.fixture
def buffers():
    made = ConcatenatedBuffers(INFO, WorkingArrays())
    made.grow(2, 5, 0, 0)
    return made


def used(buffers):
    buffers._working.shaped("key", 0, (6,), 6)
    buffers._working.holds = ((1,), (3,))
    return buffers._working


def test_memory_is_counted_with_what_follows_it(buffers):
    # Keys and values of two rows, two heads, five tokens of three numbers, four bytes each.
    own = 2 * 2 * 2 * 5 * 3 * 4
    assert buffers.nbytes == own
    used(buffers)
    assert buffers.nbytes == own + 6 * 4
    assert buffers.states_of(0) == {}


@pytest.mark.parametrize(
    ("change", "leaves_memory"),
    [
        (lambda buffers: buffers.grow(3, 6, 2, 1), False),
        (lambda buffers: buffers.drop(), False),
        (lambda buffers: buffers.move([]), True),
        (lambda buffers: buffers.write({name: np.ones((2, 1, 3)) for name in ("0.key", "0.value")}, 1), True),
    ],
    ids=["grow", "drop", "move", "write"],
)
def test_what_changes_the_buffers_makes_what_was_written_old(buffers, change, leaves_memory):
    working = used(buffers)
    change(buffers)
    assert working.holds is None and bool(working.flat) is leaves_memory


def test_reading_and_views_change_nothing(buffers):
    working = used(buffers)
    buffers.read(2)
    view = buffers.view(1)
    assert isinstance(view, ConcatenatedBuffers) and view._working is working
    view.read(2)["0.key"][:] = 5
    assert not buffers.read(5)["0.key"].any() and (view.read(2)["0.key"] == 5).all()
    assert view.read(2)["0.key"].shape == (2, 2, 3)
    assert working.holds == ((1,), (3,)) and len(working.flat["key"][0]) == 6
