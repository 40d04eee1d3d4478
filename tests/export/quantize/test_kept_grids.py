"""Which matrices of another tool's integers are kept in blocks, and that these stand for the same numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from triform.export.checkpoint.files.packed.packing import Grid, Packed, Packing, UnpackedWeight
from triform.export.graph.linear import _PARTS
from triform.export.quantize.blockwise import dequantize
from triform.export.quantize.stored.packed import KeptBlocks


def grid_of(width=64, groups=2, bits=4, group=None, rows=3):
    draw = torch.Generator().manual_seed(width + bits)
    numbers = torch.randint(0, 2**bits, (rows, width), generator=draw, dtype=torch.int32)
    zeros = torch.randint(0, 2**bits, (rows, groups), generator=draw, dtype=torch.int32)
    scales = (1 + torch.rand(rows, groups, generator=draw)).half()
    return Grid(numbers, zeros, scales, bits, group)


def kept(*grids):
    tensors = {}
    for index, grid in enumerate(grids):
        packing = Packing("qweight", (), lambda parts, grid=grid: grid, as_grid=True)
        tensors[f"w{index}.weight"] = UnpackedWeight(Packed(f"w{index}.weight", {}, packing), {})
    return KeptBlocks(tensors)


def weight(*names):
    value = ir.Value(name="joined" if len(names) > 1 else names[0])
    if len(names) > 1:
        value.meta[_PARTS] = names
    return value


@pytest.mark.parametrize(
    ("width", "groups", "bits", "size", "wide"),
    [(64, 2, 4, 32, 4), (64, 4, 2, 16, 4), (96, 3, 3, 32, 4), (64, 1, 8, 64, 8), (128, 1, 4, 128, 4)],
)
def test_groups_of_columns_become_blocks(width, groups, bits, size, wide):
    grid = grid_of(width, groups, bits)
    blocks = kept(grid)
    found = blocks.of(weight("w0.weight"))
    assert (found.bits, found.block_size) == (wide, size)
    expected = (grid.numbers - grid.zeros.repeat_interleave(size, 1)) * grid.scales.float().repeat_interleave(size, 1)
    np.testing.assert_allclose(dequantize(found, width), expected.numpy(), rtol=1e-6)
    assert blocks.formats == {f"int{wide} in blocks of {size}": 1}


@pytest.mark.parametrize(
    ("width", "groups", "group"),
    # Blocks of 8, of 24 and of no whole number, and columns whose groups are not in order.
    [(64, 8, None), (48, 2, None), (50, 3, None), (64, 2, torch.arange(64) % 2)],
)
def test_what_no_operator_reads_is_not_kept(width, groups, group):
    blocks = kept(grid_of(width, groups, group=group))
    assert blocks.of(weight("w0.weight")) is None and not blocks.formats


def test_matrices_without_integers_have_no_blocks():
    assert kept().of(weight("nope.weight")) is None
    assert KeptBlocks({"w.weight": torch.ones(2, 2)}).of(weight("w.weight")) is None


def test_matrices_that_were_joined():
    """One below the other, if their blocks are alike and all have some."""
    one, two = grid_of(64, 2, 4), grid_of(64, 2, 3, rows=5)
    blocks = kept(one, two)
    found = dequantize(blocks.of(weight("w0.weight", "w1.weight")), 64)
    np.testing.assert_allclose(found, torch.cat([one.matrix(), two.matrix()]).float().numpy(), rtol=1e-3)
    for other in (grid_of(64, 4, 4), grid_of(64, 2, 8), grid_of(64, 8, 4)):
        assert kept(one, other).of(weight("w0.weight", "w1.weight")) is None
    assert kept(one).of(weight("model.w0.weight")) is not None
