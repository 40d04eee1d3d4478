"""Blocks taken apart stand for what gguf's own decoder says, and so do some of them, in another order or smaller."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Format
from gguf import dequantize

from tests.checkpoints.gguf_blocks import random_tensor
from triform.export.checkpoint.gguf.blocks import block_order, can_decode, decode, has_minimums, size_of_blocks

DECODED = [kind for kind in Format if can_decode(kind)]


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_numbers_are_those_of_gguf(kind):
    tensor = random_tensor(kind, 3, 768)
    found = decode(tensor)
    assert np.array_equal(found.values, dequantize(tensor.data, kind))
    assert found.numbers.shape == (3, 768 // found.block_size, found.block_size)
    assert found.numbers.max() < 2**found.bits


def test_formats_that_people_have_are_decoded():
    names = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS"
    assert {kind.name for kind in DECODED} == set(names.split())


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_what_is_known_of_a_format_before_it_is_decoded(kind):
    found = decode(random_tensor(kind, 2, 512))
    assert found.block_size == size_of_blocks(kind)
    # The codes of IQ4 stand for numbers of eight bits.
    assert found.bits == (8 if kind.name.startswith("IQ4") else int(kind.name[1]))
    assert has_minimums(kind) == (found.minimums is not None)


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_rows_and_blocks_in_another_order(kind):
    """Of 768 columns, which are three super-blocks of most formats."""
    tensor = random_tensor(kind, 5, 768)
    matrix, values = decode(tensor), dequantize(tensor.data, kind)
    rows = np.array([3, 0, 0, 4])
    assert np.array_equal(matrix.in_rows(rows).values, values[rows])
    count = 768 // matrix.block_size
    blocks = values.reshape(5, count, matrix.block_size)
    whole = np.arange(count).reshape(3, -1)
    halves = np.arange(count).reshape(6, -1)
    for order in (
        np.random.default_rng(0).permutation(count), whole[[2, 0, 1]].ravel(), halves[[3, 1, 5, 2, 0, 4]].ravel(),
        np.arange(count), np.arange(count)[::-1],
    ):  # fmt: skip
        assert np.array_equal(matrix.in_blocks(order).values, blocks[:, order].reshape(5, -1))
    if matrix.scales.steps is not None:
        # Super-blocks that stay whole keep one base, and those that are cut in two get two.
        bases = [
            matrix.in_blocks(order).scales.base.shape for order in (whole[[2, 0, 1]].ravel(), halves[::-1].ravel())
        ]
        assert bases == [(5, 3), (5, 6)]


@pytest.mark.parametrize("kind", DECODED, ids=lambda kind: kind.name)
def test_smaller_blocks(kind):
    tensor = random_tensor(kind, 3, 512)
    for size in (16, 8):
        found = decode(tensor).cut(size)
        assert found.block_size == size and np.array_equal(found.values, dequantize(tensor.data, kind))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_orders_of_columns_that_keep_blocks_together(size):
    """All orders of three blocks, and all of them with two columns exchanged."""
    for blocks in itertools.permutations(range(3)):
        order = np.array([size * block + column for block in blocks for column in range(size)])
        assert block_order(order, size).tolist() == list(blocks)
        for one, other in itertools.combinations(range(3 * size), 2):
            changed = order.copy()
            changed[[one, other]] = order[[other, one]]
            found = block_order(changed, size)
            apart = [changed[start : start + size].tolist() for start in range(0, 3 * size, size)]
            kept = all(row[0] % size == 0 and row == list(range(row[0], row[0] + size)) for row in apart)
            assert (found is not None) == kept
            assert found is None or found.tolist() == [row[0] // size for row in apart]
