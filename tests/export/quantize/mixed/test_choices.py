"""What each way of storing a matrix costs, by arithmetic, and that finer ones damage less."""

from __future__ import annotations

import pytest
import torch

from triform.export.quantize.blockwise import size_of
from triform.export.quantize.mixed.choices import Part, choices_of, sampled

SCHEMES = {(bits, size) for bits in (3, 4, 5, 6) for size in (32, 64)} | {(4, 16), (6, 128), (8, 32), (8, 128)}


def part(rows, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    return Part(weight, torch.eye(width), torch.full((rows,), 1 / rows))


@pytest.mark.parametrize(
    ("width", "looked_up", "schemes"),
    [
        (96, False, SCHEMES),
        # Rows that are looked up are whole blocks: 96 is no multiple of 64 or 128.
        (96, True, {(bits, size) for bits, size in SCHEMES if size <= 32}),
        (128, True, SCHEMES),
        (20, True, {(4, 16), (8, 16)}),
        # Not even blocks of 32 divide it.
        (48, True, {(4, 16), (8, 16)}),
    ],
)
def test_blocks_that_fit_a_matrix(width, looked_up, schemes):
    found = choices_of([part(6, width), part(4, width, 1)], looked_up=looked_up, timed=True)
    assert {(choice.bits, choice.block_size) for choice in found} == schemes
    assert all(choice.size == size_of(10, width, choice.bits, choice.block_size) for choice in found)
    # Fewer bits, and larger blocks of as many bits, damage more.
    by_damage = sorted(found, key=lambda choice: choice.damage)
    assert [choice.bits for choice in by_damage] == sorted((choice.bits for choice in found), reverse=True)
    for bits in (3, 4, 5, 6, 8):
        sizes = [choice.block_size for choice in by_damage if choice.bits == bits]
        assert sizes == sorted(sizes)


@pytest.mark.parametrize(("rows", "width", "fine"), [(1024, 1088, True), (1088, 1024, True), (1040, 1088, False)])
def test_only_small_matrices_have_what_is_computed_in_8_bits(rows, width, fine):
    found = choices_of([part(rows, width)], looked_up=False, timed=True)
    assert {choice.bits for choice in found} == ({3, 4, 5, 6, 8} if fine else {3, 4, 8})


def test_bytes():
    """Of 96 numbers: two blocks of 64 have 64 bytes of 4 bits, two scales of 2 and one byte of zero points."""
    assert size_of(10, 96, 4, 64) == 10 * (64 + 4 + 1)
    assert size_of(10, 96, 8, 32) == 10 * (96 + 6 + 3)
    assert size_of(1, 64, 4, 64) == 32 + 2 + 1
    # Integers of 5 bits have a zero point of a byte, those of 3 bits one of half a byte.
    assert size_of(10, 96, 5, 32) == 10 * (60 + 6 + 3)
    assert size_of(10, 128, 3, 32) == 10 * (48 + 8 + 2)


def test_time_is_that_of_the_operator_for_each_weight():
    """Half of what one row takes, and a quarter each of what 4 and 512 take; integers of 5 bits are read as 8."""
    found = {
        (item.bits, item.block_size): item.time for item in choices_of([part(6, 128)], looked_up=False, timed=True)
    }
    assert found[4, 64] == found[3, 64] == 6 * 128
    assert found[4, 32] == found[3, 32] == pytest.approx(6 * 128 * (1.25 / 2 + 1.08 / 4 + 1.07 / 4))
    assert found[8, 32] == found[5, 32] == found[6, 32] == pytest.approx(6 * 128 * (1.56 / 2 + 1.24 / 4 + 0.94 / 4))
    looked_up = choices_of([part(6, 128)], looked_up=True, timed=False)
    assert {item.time for item in looked_up} == {0.0}


def of_four_bits(given):
    return [choice.damage for choice in choices_of([given], looked_up=False, timed=True) if choice.bits == 4]


def test_damage_is_the_error_of_outputs_by_their_share():
    """16 levels of a sixteenth lose nothing in 4 bits; a row that counts half as much as before is half as bad."""
    grid = Part((torch.arange(16.0) - 7).repeat(2, 4) / 16, torch.eye(64), torch.tensor([0.5, 0.5]))
    assert max(of_four_bits(grid)) < 1e-9
    weight = torch.stack([grid.weight[0], part(1, 64).weight[0]])
    full, less = (Part(weight, torch.eye(64), torch.tensor([1 - share, share])) for share in (0.5, 0.25))
    assert of_four_bits(full) == pytest.approx([2 * damage for damage in of_four_bits(less)], rel=1e-4)
    assert min(of_four_bits(full)) > 1e-5


def test_a_sample_is_spread_over_all_rows():
    whole = part(1000, 16)
    some = sampled(whole)
    assert some.weight.shape == (256, 16)
    assert torch.equal(some.weight[0], whole.weight[0]) and torch.equal(some.weight[-1], whole.weight[-1])
    assert torch.equal(sampled(part(9, 16)).weight, part(9, 16).weight)
