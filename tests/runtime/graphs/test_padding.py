"""Rows of different lengths as arrays: what stands behind the shorter ones, and which tokens count."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.graphs.padding import pad_boxes, pad_rows, text_arrays


@pytest.mark.parametrize(("pad", "fill"), [(None, 0), (0, 0), (9, 9)])
def test_texts(pad, fill):
    arrays = text_arrays([[1, 2, 3], [], [4]], pad)
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "input_ids": [[1, 2, 3], [fill] * 3, [4, fill, fill]], "attention_mask": [[1, 1, 1], [0, 0, 0], [1, 0, 0]],
    }  # fmt: skip
    assert all(array.dtype == np.int64 for array in arrays.values())


def test_rows():
    assert pad_rows([[1], [2, 3]]).tolist() == [[1, 0], [2, 3]]
    assert pad_rows([[1], [2, 3]], -7).tolist() == [[1, -7], [2, 3]]
    assert pad_rows([[], []]).shape == (2, 0) and pad_rows([[1]]).dtype == np.int64


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_boxes(dtype):
    rows = [np.full((2, 4), 5, dtype), np.full((1, 4), 6, dtype)]
    found = pad_boxes(rows)
    assert found.dtype == dtype and found.tolist() == [[[5] * 4] * 2, [[6] * 4, [0] * 4]]
    assert pad_boxes(rows[:1]).dtype == dtype
