"""Integers without their gaps: they come back as they were, and take as many bits as they have."""

from __future__ import annotations

import numpy as np
import pytest

from triform.export.graph.packed import PackedTensor, pack_apart, packed

KINDS = [(2, 4), (3, 4), (2, 8), (3, 8), (4, 8), (5, 8), (6, 8)]


@pytest.mark.parametrize(("own", "bits"), KINDS)
def test_integers_come_back(own, bits):
    """Of each integer the upper bits; there are two in a byte, or one."""
    numbers = np.random.default_rng(own).integers(0, 2**own, (4, 2, 8 * (8 // bits))).astype(np.uint8)
    integers = numbers << np.uint8(bits - own)
    if bits == 4:
        integers = integers[..., ::2] | integers[..., 1::2] << np.uint8(4)
    found = packed(integers, own, bits)
    assert found.packed.size * 8 == numbers.size * own
    np.testing.assert_array_equal(found.numpy(), integers)
    assert list(found.shape) == list(integers.shape)
    again = found.reshaped((8, -1))
    assert isinstance(again, PackedTensor) and again.packed is found.packed
    np.testing.assert_array_equal(again.numpy(), integers.reshape(8, -1))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_numbers_in_a_byte_are_far_apart(width):
    count = 8 // width
    numbers = np.random.default_rng(0).integers(0, 2**width, 5 * count).astype(np.uint8)
    expected = [sum(int(numbers[5 * part + place]) << width * part for part in range(count)) for place in range(5)]
    before = numbers.copy()
    assert pack_apart(numbers, width).tolist() == expected
    np.testing.assert_array_equal(numbers, before)
