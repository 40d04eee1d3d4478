"""Buffers in numpy arrays: what grows, moves and is forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo, StateInfo
from triform.runtime.graphs.buffers.contract import RowPart
from triform.runtime.graphs.buffers.host import HostBuffers

INFO = CacheInfo(
    "float32", [LayerCacheInfo(2, 3), LayerCacheInfo(1, 4)], states=[StateInfo("recurrence", "float32", [5])]
)
NAMES = ["0.key", "0.value", "1.key", "1.value"]


@pytest.fixture
def buffers():
    """Three rows of four tokens, of which no number is that of another place."""
    buffers = HostBuffers(INFO)
    buffers.grow(3, 4, 0, 0)
    for index, array in enumerate([*buffers.arrays.values(), *buffers.states.values()]):
        array[...] = 1000 * (index + 1) + np.arange(array.size).reshape(array.shape)
    return buffers


def copies(buffers):
    return {name: array.copy() for name, array in (buffers.arrays | buffers.states).items()}


def test_new_buffers_are_zeros():
    buffers = HostBuffers(INFO)
    assert buffers.nbytes == 0 and buffers.side == 0
    buffers.grow(2, 4, 0, 0)
    assert {name: array.shape for name, array in buffers.arrays.items()} == {
        "0.key": (2, 2, 4, 3), "0.value": (2, 2, 4, 3), "1.key": (2, 1, 4, 4), "1.value": (2, 1, 4, 4),
    }  # fmt: skip
    assert {name: array.shape for name, array in buffers.states.items()} == {"states.0": (2, 5)}
    assert all(array.dtype == np.float32 and not array.any() for array in copies(buffers).values())
    assert buffers.nbytes == 4 * (2 * 48 + 2 * 32 + 10)
    buffers.drop()
    assert buffers.nbytes == 0 and buffers.arrays == buffers.states == {}


def test_growing_keeps_tokens_of_kept_rows_and_zeros_the_others(buffers):
    before = copies(buffers)
    buffers.grow(4, 6, 2, 3)
    for name in NAMES:
        grown = buffers.arrays[name]
        assert grown.shape[0] == 4 and grown.shape[2] == 6
        np.testing.assert_array_equal(grown[:2, :, :3], before[name][:2, :, :3])
        assert not grown[2:].any() and not grown[:, :, 3:].any()
    np.testing.assert_array_equal(buffers.states["states.0"][:2], before["states.0"][:2])
    assert not buffers.states["states.0"][2:].any()


def test_as_many_rows_keep_all_states(buffers):
    before = copies(buffers)
    # Nothing of the texts is kept, so that keys and values are zeros.
    buffers.grow(3, 8, 1, 0)
    np.testing.assert_array_equal(buffers.states["states.0"], before["states.0"])
    assert not any(array.any() for array in buffers.arrays.values())


def test_parts_of_rows_move_as_if_all_moved_at_once(buffers):
    before = copies(buffers)
    buffers.move([RowPart(0, 1, 1, 3), RowPart(1, 0, 0, 2), RowPart(2, 1, 2, 4)])
    for name in NAMES:
        expected = before[name].copy()
        expected[0, :, 1:3] = before[name][1, :, 1:3]
        expected[1, :, 0:2] = before[name][0, :, 0:2]
        expected[2, :, 2:4] = before[name][1, :, 2:4]
        np.testing.assert_array_equal(buffers.arrays[name], expected)
    np.testing.assert_array_equal(buffers.states["states.0"], before["states.0"][[1, 0, 1]])


def test_states_of_a_row(buffers):
    states = buffers.states_of(1)
    buffers.clear_states(1, 3)
    assert [row.any() for row in buffers.states["states.0"]] == [True, False, False]
    # A copy.
    assert states["states.0"].any()
    buffers.set_states(2, states)
    np.testing.assert_array_equal(buffers.states["states.0"][2], states["states.0"])
    buffers.set_states(2, None)
    assert not buffers.states["states.0"][1:].any()


def test_a_view_shares_memory(buffers):
    view = buffers.view(1)
    read = view.read(2)
    assert list(read) == NAMES
    np.testing.assert_array_equal(read["1.key"], buffers.arrays["1.key"][1, :, :2])
    view.write({name: -array for name, array in read.items()}, 1)
    assert (buffers.arrays["0.key"][1, :, :1] < 0).all() and (buffers.arrays["0.key"][1, :, 1:] > 0).all()
    assert (buffers.arrays["0.key"][[0, 2]] > 0).all()
    view.clear_states(0, 1)
    assert [row.any() for row in buffers.states["states.0"]] == [True, False, True]


def test_the_first_rows_are_bound_under_the_names_of_the_graph(buffers):
    bound = {}

    class Step:
        def bind_state(self, past, present, value):
            bound[past] = present, value

    buffers.view(1).bind(Step(), 2)
    assert {past: present for past, (present, _) in bound.items()} == {
        **{f"past_key_values.{name}": f"present.{name}" for name in NAMES}, "past_states.0": "present_states.0",
    }  # fmt: skip
    for past, (_, value) in bound.items():
        whole = (buffers.arrays | buffers.states)[past.removeprefix("past_key_values.").removeprefix("past_")]
        assert value.shape[0] == 2 and np.shares_memory(value, whole)
        np.testing.assert_array_equal(value, whole[1:])
