"""Blocks in another order, or of two tensors, stand for the same numbers in that order."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Format
from gguf import dequantize

from tests.checkpoints.gguf_blocks import random_tensor
from triform.export.checkpoint.gguf.blocks import can_decode, decode, size_of_blocks
from triform.export.checkpoint.gguf.placed_blocks import blocks_of, format_of, stacked
from triform.export.checkpoint.gguf.placement import Placement

DECODED = [kind for kind in Format if can_decode(kind)]
ROWS, COLUMNS = np.array([4, 1, 0, 3]), 768


def runs(length):
    """Columns in runs of a length, in a random order."""
    return np.random.default_rng(5).permutation(np.arange(COLUMNS).reshape(-1, length)).reshape(-1)


@pytest.mark.parametrize("length", [32, 64, 128, 256])
@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_columns_in_runs_of_whole_blocks(kind, length):
    tensor, columns = random_tensor(kind, 5, COLUMNS), runs(length)
    placement = Placement(tensor, rows=ROWS, columns=columns)
    assert format_of(placement) is kind
    matrix = blocks_of(placement)
    assert np.array_equal(matrix.values, dequantize(tensor.data, kind)[ROWS][:, columns])
    # Under another matrix whose super-blocks are whole.
    below = stacked([decode(tensor), matrix])
    assert np.array_equal(below.values[5:], matrix.values)
    assert np.array_equal(below.values[:5], dequantize(tensor.data, kind))


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_two_tensors_with_their_rows_mixed(kind):
    one, other = random_tensor(kind, 3, COLUMNS), random_tensor(kind, 2, COLUMNS)
    matrix = blocks_of(Placement(one, rows=ROWS, second=other))
    whole = np.concatenate([dequantize(part.data, kind) for part in (one, other)])
    assert np.array_equal(matrix.values, whole[ROWS])


def test_what_has_no_blocks_of_its_own():
    tensor = random_tensor(Format.Q4_0, 5, COLUMNS)
    assert format_of(Placement(tensor, columns=runs(16))) is None
    assert format_of(Placement(tensor, columns=np.roll(np.arange(COLUMNS), 8))) is None
    assert format_of(Placement(random_tensor(Format.Q6_K, 5, COLUMNS), columns=runs(16))) is Format.Q6_K
    assert format_of(Placement(tensor, second=random_tensor(Format.Q4_1, 2, COLUMNS))) is None


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_sizes_of_blocks(kind):
    assert size_of_blocks(kind) == decode(random_tensor(kind, 1, 256)).block_size
