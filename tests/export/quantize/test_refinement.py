"""Refined matrices: the error of the product never grows, and no other integer or scale is better."""

import pytest
import torch

from triform.export.quantize import error_feedback
from triform.export.quantize.blockwise import dequantize, search_blocks
from triform.export.quantize.error_feedback import quantize_with_moments
from triform.export.quantize.refinement import Rounded, refine

ROWS, BLOCKS, SIZE = 7, 3, 16


@pytest.fixture
def weight():
    return torch.randn(ROWS, BLOCKS * SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def moments():
    inputs = torch.randn(200, BLOCKS * SIZE, generator=torch.Generator().manual_seed(2))
    inputs[:, 1:] += 0.8 * inputs[:, :-1]
    return inputs.T @ inputs / len(inputs)


def rounded_to_nearest(weight):
    blocks = weight.view(ROWS, BLOCKS, SIZE)
    integers, scales, zeros = search_blocks(blocks, torch.ones(1, BLOCKS, SIZE), 4)
    return Rounded(integers.float(), scales.squeeze(-1), zeros.squeeze(-1), 15)


def error(weight, values, moments):
    difference = (weight - values).double()
    return (difference @ moments.double() * difference).sum(-1)


def test_the_error_of_every_row_is_smaller_and_of_all_by_a_quarter(weight, moments):
    before = rounded_to_nearest(weight)
    errors = error(weight, before.values(), moments)
    refined = refine(weight, moments, before)
    smaller = error(weight, refined.values(), moments)
    assert (smaller < errors).all()
    assert smaller.sum() < 0.75 * errors.sum()
    assert refined.integers.min() >= 0
    assert refined.integers.max() <= 15
    torch.testing.assert_close(refined.integers, refined.integers.round(), rtol=0, atol=0)
    torch.testing.assert_close(refined.scales, refined.scales.half().float(), rtol=0, atol=0)


def test_the_scales_are_those_of_least_squares(weight, moments):
    refined = refine(weight, moments, rounded_to_nearest(weight))
    # With L @ L.T the moments, the error of a row is the squared length of (w - sum of scale * integers) @ L.
    root = torch.linalg.cholesky(moments.double())
    for row in range(ROWS):
        columns = [
            torch.nn.functional.pad(integers, (block * SIZE, (BLOCKS - 1 - block) * SIZE)).double() @ root
            for block, integers in enumerate(refined.centered()[row])
        ]
        best = torch.linalg.lstsq(torch.stack(columns, 1), (weight[row].double() @ root)[:, None]).solution[:, 0]
        torch.testing.assert_close(refined.scales[row].double(), best, rtol=2e-3, atol=0)


@pytest.mark.parametrize(("bits", "refined"), [(3, True), (4, True), (6, True), (8, False)])
def test_what_has_fewer_than_8_bits_is_refined(weight, moments, monkeypatch, bits, refined):
    def errors():
        stored = dequantize(quantize_with_moments(weight, moments, bits, SIZE, 0.001), BLOCKS * SIZE)
        return error(weight, torch.from_numpy(stored), moments)

    found = errors()
    monkeypatch.setattr(error_feedback, "refine", lambda weight, moments, rounded: rounded)
    assert (found < errors()).all() if refined else torch.equal(found, errors())


def test_what_is_exact_stays(moments):
    draw = torch.Generator().manual_seed(4)
    integers = torch.randint(0, 16, (ROWS, BLOCKS, SIZE), generator=draw).float()
    exact = Rounded(integers.clone(), torch.full((ROWS, BLOCKS), 0.25), torch.full((ROWS, BLOCKS), 7.0), 15)
    refined = refine(exact.values(), moments, exact)
    torch.testing.assert_close(refined.integers, integers, rtol=0, atol=0)
    torch.testing.assert_close(refined.scales, torch.full((ROWS, BLOCKS), 0.25), rtol=1e-3, atol=0)


def test_blocks_of_zeros_stay_zeros(weight, moments):
    weight[:, SIZE : 2 * SIZE] = 0
    stored = dequantize(quantize_with_moments(weight, moments, 4, SIZE, 0.1), BLOCKS * SIZE)
    assert abs(stored[:, :SIZE]).max() > 0
    assert torch.from_numpy(stored).isfinite().all()


def test_columns_that_fill_no_block_are_padded(weight, moments):
    width = BLOCKS * SIZE - 5
    stored = dequantize(quantize_with_moments(weight[:, :width], moments[:width, :width], 4, SIZE, 0.01), width)
    plain = rounded_to_nearest(weight).values()[:, :width]
    inside = moments[:width, :width]
    assert (error(weight[:, :width], torch.from_numpy(stored), inside) < error(weight[:, :width], plain, inside)).all()
