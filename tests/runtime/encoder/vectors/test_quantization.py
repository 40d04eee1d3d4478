"""Vectors in fewer bits, by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.encoder.vectors.quantization import check_dtype, int8_ranges, quantize, storage
from triform.runtime.errors import InputError


@pytest.mark.parametrize(("dimension", "largest"), [(1, 1.0), (64, 1.0), (65, 8 / 65**0.5), (256, 0.5), (1024, 0.25)])
def test_127_stands_for_eight_times_the_usual_size(dimension, largest):
    """Of numbers in a vector of length 1, which are about 1 / sqrt(dimension); from -128.5 to 126.5 steps."""
    low, high = int8_ranges(dimension)
    assert low.shape == high.shape == (dimension,) and low.dtype == np.float32
    np.testing.assert_allclose(low, -128.5 * largest / 127, rtol=1e-6)
    np.testing.assert_allclose(high, 126.5 * largest / 127, rtol=1e-6)


def test_vectors_are_rounded_to_the_nearest_step():
    """Scaled to length 1 first: a step is 1 / 127 up to 64 dimensions."""
    angles = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = quantize((5 * unit).astype(np.float32), "int8")
    assert found.dtype == np.int8
    assert np.abs(found - 127 * unit).max() <= 0.5001
    # A number that is larger than eight times the usual is cut off.
    alone = np.zeros((2, 256), np.float32)
    alone[:, 0] = 3, -3
    assert quantize(alone, "int8")[:, :2].tolist() == [[127, 0], [-128, 0]]


def test_steps_over_given_ranges():
    """256 steps from the least to the greatest value, of which the first is -128; where both are equal a step is 1."""
    ranges = np.array([[0, -10, 3], [255, 500, 3]], np.float32)
    vectors = np.array([[0, -10, 3], [1.5, -8, 4.5], [255, 500, 2], [-9, 999, 300]], np.float32)
    assert quantize(vectors, "int8", ranges).tolist() == [
        [-128, -128, -128], [-127, -127, -127], [127, 127, -128], [-128, 127, 127],
    ]  # fmt: skip


def test_one_bit_per_number():
    """The first is the highest bit; 0 is not above 0. 128 is subtracted from each byte."""
    vectors = np.array([[1, -1, 0, 2, -3, -4, -5, 6, 7], [-1, 1, 1, 1, 1, 1, 1, 1, -1]], np.float32)
    found = quantize(vectors, "binary")
    assert found.dtype == np.int8
    assert found.tolist() == [[0b10010001 - 128, 0b10000000 - 128], [0b01111111 - 128, -128]]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_floats(dtype):
    found = quantize(np.array([[1 / 3, 2]], np.float32), dtype)
    assert found.dtype == dtype and found.tolist() == np.array([[np.float32(1 / 3), 2]]).astype(dtype).tolist()


def test_other_types_are_refused():
    for dtype in ("float32", "float16", "int8", "binary"):
        check_dtype(dtype)
    with pytest.raises(InputError, match=r"^vectors can be float32, float16, int8, binary, not int4$"):
        quantize(np.ones((1, 2), np.float32), "int4")


@pytest.mark.parametrize(
    ("dimensions", "dtype", "expected"),
    [
        (9, "binary", (2, "int8")), (8, "binary", (1, "int8")), (1, "binary", (1, "int8")), (9, "int8", (9, "int8")),
        (9, "float16", (9, "float16")),
    ],
)  # fmt: skip
def test_how_vectors_are_stored(dimensions, dtype, expected):
    assert storage(dimensions, dtype) == expected
    if dtype != "float16":
        stored = quantize(np.ones((3, dimensions), np.float32), dtype)
        assert (stored.shape[1], str(stored.dtype)) == expected
