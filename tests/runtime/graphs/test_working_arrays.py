"""The memory of graphs that concatenate their cache: two pieces for each buffer, which grow apart."""

from __future__ import annotations

import numpy as np

from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo
from triform.runtime.graphs.concatenated.buffers import ConcatenatedBuffers, WorkingArrays

INFO = CacheInfo("float32", [LayerCacheInfo(2, 3)], growth="concatenated")


def sizes(working, name="a"):
    return [len(piece) for piece in working.flat[name]]


def test_each_piece_grows_by_itself_and_the_other_stays():
    working = WorkingArrays()
    first = working.shaped("a", 0, (2, 3), 10)
    first[:] = 7
    assert (first.shape, first.dtype, sizes(working)) == ((2, 3), np.float32, [10, 0])
    second = working.shaped("a", 1, (3, 5), 10)
    second[:] = 9
    # No smaller than what is asked for.
    assert sizes(working) == [10, 15]
    assert (working.shaped("a", 0, (2, 3), 10) == 7).all() and (working.shaped("a", 1, (3, 5), 10) == 9).all()
    # As much as there is fits; a number more does not.
    assert working.shaped("a", 0, (10,), 99).shape == (10,) and sizes(working) == [10, 15]
    assert working.shaped("a", 0, (11,), 12).shape == (11,) and sizes(working) == [12, 15]
    assert (working.shaped("a", 1, (3, 5), 10) == 9).all()
    working.shaped("b", 1, (4,), 0)
    assert sizes(working, "b") == [0, 4] and sizes(working) == [12, 15]
    assert working.shaped("c", 0, (0, 3), 0).shape == (0, 3)


def test_what_a_run_wrote_is_forgotten_where_the_buffers_change():
    """A change of rows leaves the memory, another size of the buffers does not."""
    working = WorkingArrays()
    buffers = ConcatenatedBuffers(INFO, working)
    buffers.grow(2, 4, 0, 0)
    own = buffers.nbytes
    # Keys and values of two heads of three numbers, for two rows of four tokens.
    assert own == 2 * 2 * 2 * 4 * 3 * 4
    for change, stays in (
        (lambda: buffers.move([]), True),
        (lambda: buffers.write(buffers.read(0), 0), True),
        (lambda: buffers.grow(2, 8, 0, 0), False),
        (buffers.drop, False),
    ):
        working.shaped("a", 1, (5,), 0)
        working.holds = ((1, 2), (3, 4))
        before = buffers.nbytes
        change()
        assert working.holds is None and bool(working.flat) is stays
        assert stays is False or buffers.nbytes == before == own + 5 * 4
    assert buffers.states_of(0) == {}
