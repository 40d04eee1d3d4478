"""A decoder keeps the integers of a checkpoint that another tool quantized."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.checkpoints.packed import awq_folder, in_blocks
from triform.export.checkpoint.files.packed.packing import Grid, Packed, Packing, UnpackedWeight
from triform.export.options import ExportOptions
from triform.export.pipeline import export, plan
from triform.export.quantize.blockwise import dequantize
from triform.export.quantize.stored.packed import KeptBlocks
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder, _ = awq_folder(tmp_path_factory.mktemp("awq") / "model", hidden_size=64, intermediate_size=128)
    return folder


def kept(bits, group=None, groups=2):
    """The blocks that are kept of a matrix, and the matrix itself."""
    numbers, zeros, scales, matrix = in_blocks(bits, groups=groups)
    grid = Grid(torch.from_numpy(numbers).int(), torch.from_numpy(zeros).int(), scales, bits, group)
    packed = Packed("up.weight", {}, Packing("qweight", (), lambda _: grid, as_grid=True))
    blocks = KeptBlocks({"up.weight": UnpackedWeight(packed, {})})
    weight = ir.val("model.up.weight", ir.DataType.FLOAT, matrix.shape)
    return blocks.of(weight), matrix.numpy()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_blocks_stand_for_the_same_numbers(bits, groups):
    blocks, matrix = kept(bits, groups=groups)
    assert (blocks.bits, blocks.block_size) == (8 if bits == 8 else 4, matrix.shape[1] // groups)
    np.testing.assert_array_equal(dequantize(blocks, matrix.shape[1]), matrix)


def test_columns_in_another_order_and_short_groups_are_no_blocks():
    assert kept(4, group=torch.arange(64) % 2)[0] is None
    assert kept(4, groups=8)[0] is None


def test_an_export_keeps_them_by_default(checkpoint, tmp_path):
    report = export(str(checkpoint), tmp_path / "kept", ExportOptions())
    quantization = open_bundle(tmp_path / "kept").manifest.graphs["decoder"].quantization
    layers = json.loads((checkpoint / "config.json").read_text())["num_hidden_layers"]
    # Per layer: q, k and v in one, the attention's output, gate and up in one, down. Then the tied table.
    assert quantization.scheme == "keep"
    assert quantization.formats == {"int4 in blocks of 32": 3 * layers, "int4 in blocks of 64": layers, "int8": 1}
    again = export(str(checkpoint), tmp_path / "again", ExportOptions(quantize="int4"))
    assert report.parity.quantized.mean_kl < again.parity.quantized.mean_kl / 4


def test_options_that_do_not_go_with_it(checkpoint):
    assert dict(plan(str(checkpoint), ExportOptions()))["weights"] == "the blocks of the checkpoint"
    with pytest.raises(InputError, match="keeps its own blocks"):
        plan(str(checkpoint), ExportOptions(block_size=32))
