"""Buffers on a device: rows that are kept, moved, saved and read back, and what new memory holds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.fake_device import NAME, FakeDevice
from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo
from triform.runtime.graphs.buffers.contract import RowPart
from triform.runtime.graphs.device.buffers import DeviceBuffers
from triform.runtime.graphs.device.moves import RowMover

LAYERS = [LayerCacheInfo(2, 3), LayerCacheInfo(1, 4)]
SHAPES = {"0.key": (2, 3), "0.value": (2, 3), "1.key": (1, 4), "1.value": (1, 4)}
ON_CPU = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])


def make(dtype="float16"):
    device = FakeDevice(NAME)
    return DeviceBuffers(CacheInfo(dtype, LAYERS), RowMover(ON_CPU, device, 2 * len(LAYERS)), device)


def numbers(start, tokens):
    """Keys and values of a row; whole numbers up to 256 are exact in both types."""
    return {
        name: (start + np.arange(heads * tokens * size, dtype=np.float32)).reshape(heads, tokens, size)
        for name, (heads, size) in SHAPES.items()
    }


def write_rows(buffers, *rows):
    """Rows can be written only where the first of a view is."""
    for row, arrays in enumerate(rows):
        buffers.move([RowPart(row, 0, 0, 4), RowPart(0, row, 0, 4)])
        buffers.write(arrays, next(iter(arrays.values())).shape[1])
        buffers.move([RowPart(row, 0, 0, 4), RowPart(0, row, 0, 4)])


def read_row(buffers, row, tokens):
    """What is at a row's place, which is moved to the first and back."""
    buffers.move([RowPart(row, 0, 0, 4), RowPart(0, row, 0, 4)])
    arrays = buffers.read(tokens)
    buffers.move([RowPart(row, 0, 0, 4), RowPart(0, row, 0, 4)])
    return arrays


def check(buffers, row, expected, tokens):
    for name, array in read_row(buffers, row, tokens).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name][:, :tokens])


def test_new_buffers_are_zeros_and_hold_16_bits_a_number():
    buffers = make()
    assert buffers.nbytes == 0 and buffers.side == 0
    buffers.grow(3, 4, 0, 0)
    # Keys and values of 2 * 3 and of 1 * 4 numbers, for 3 rows of 4 tokens.
    assert buffers.nbytes == 2 * 2 * (6 + 4) * 3 * 4
    # Unknown numbers would be NaN here.
    assert [array.any() for array in buffers.read(4).values()] == [False] * 4
    # One token of zeros is sent for all, and each time which row is copied.
    assert buffers._device.sent == 2 * 2 * (6 + 4) + 8 + 8
    buffers.drop()
    assert buffers.nbytes == 0 and buffers.side == 0


def test_nothing_is_made_for_no_tokens():
    buffers = make()
    buffers.grow(2, 0, 0, 0)
    assert buffers.nbytes == 0
    buffers.grow(2, 1, 0, 0)
    assert buffers.nbytes == 2 * 2 * (6 + 4) * 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_growing_keeps_rows_that_are_kept(dtype):
    buffers = make(dtype)
    buffers.grow(3, 4, 0, 0)
    rows = [numbers(1, 4), numbers(50, 4), numbers(100, 4)]
    write_rows(buffers, *rows)
    buffers.grow(4, 6, 2, 4)
    for row, expected in enumerate(rows[:2]):
        check(buffers, row, expected, 4)
    for row in (2, 3):
        assert not any(array.any() for array in read_row(buffers, row, 6).values())
    assert not buffers.read(6)["0.key"][:, 4:].any()


def test_a_part_that_is_written_leaves_the_rest_and_is_read_from_the_start():
    buffers = make()
    buffers.grow(2, 4, 0, 0)
    write_rows(buffers, numbers(1, 4), numbers(50, 4))
    own = numbers(200, 2)
    buffers.write({name: array.repeat(2, axis=1)[:, ::2] for name, array in own.items()}, 1)
    for name, array in buffers.read(1).items():
        np.testing.assert_array_equal(array, own[name][:, :1])
    check(buffers, 1, numbers(50, 4), 4)


def test_rows_move_to_the_other_side_at_once():
    buffers = make()
    buffers.grow(3, 4, 0, 0)
    rows = [numbers(1, 4), numbers(50, 4), numbers(100, 4)]
    write_rows(buffers, *rows)
    side, size = buffers.side, buffers.nbytes
    places = buffers._sides[0].places + buffers._sides[1].places
    # Both sides are there by now, and no third is made.
    assert size == 2 * 2 * 2 * (6 + 4) * 3 * 4
    buffers.move([RowPart(0, 1, 0, 4), RowPart(1, 0, 2, 3)])
    assert (buffers.side, buffers.nbytes) == (1 - side, size)
    check(buffers, 0, rows[1], 4)
    check(buffers, 1, rows[0], 4)
    check(buffers, 2, rows[2], 4)
    # The memory of a side stays where it is: what was bound to it can be run again.
    assert buffers._sides[0].places + buffers._sides[1].places == places


def test_numbers_of_bfloat16_are_the_upper_half_of_float32():
    """1 is 0x3f80, -2.5 is 0xc020, 3.140625 is 0x4049."""
    buffers = make("bfloat16")
    buffers.grow(1, 1, 0, 0)
    arrays = {name: np.full((heads, 1, size), 3.140625, np.float32) for name, (heads, size) in SHAPES.items()}
    arrays["0.key"][0, 0] = 1, -2.5, 3.140625
    buffers.write(arrays, 1)
    stored = buffers._sides[buffers.side].values[0].numpy().view(np.uint16)
    assert stored[0, 0, 0].tolist() == [0x3F80, 0xC020, 0x4049]
    for name, array in buffers.read(1).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_a_view_binds_its_rows():
    buffers = make()
    buffers.grow(3, 4, 0, 0)
    bound = {}

    class Step:
        def bind_state(self, past, present, value):
            bound[past] = present, value

    buffers.view(1).bind(Step(), 2)
    first, value = (side.data_ptr() for side in buffers._sides[0].values[:2])
    present, place = bound["past_key_values.0.key"]
    # Behind a row of 2 * 4 * 3 numbers of two bytes.
    assert (present, place.address, place.shape) == ("present.0.key", first + 2 * 24, (2, 2, 4, 3))
    assert bound["past_key_values.0.value"][1].address == value + 2 * 24
    assert list(bound) == [f"past_key_values.{name}" for name in SHAPES]
    assert buffers.states_of(0) == {}
    buffers.bind(Step(), 3)
    assert bound["past_key_values.0.key"][1].address == first
