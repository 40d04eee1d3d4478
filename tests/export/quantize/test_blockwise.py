"""Blockwise quantization: the arithmetic, the operator's reading of it, and what is stored."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.quantize.blockwise import dequantize, fitting_block_size, quantize_matrix


def random_matrix(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([3, 4, 5, 6, 8]),
    st.sampled_from([16, 32, 64, 128]),
    st.integers(1, 40),
    st.integers(1, 300),
    st.integers(0, 9),
)
def test_no_weight_is_further_off_than_its_step(bits, block_size, rows, columns, seed):
    weight = random_matrix(rows, columns, seed)
    blocks = quantize_matrix(weight, None, bits, block_size)
    error = np.abs(dequantize(blocks, columns) - weight.numpy())
    span = np.pad(weight.numpy(), ((0, 0), (0, -columns % block_size))).reshape(rows, -1, block_size)
    span = np.maximum(span.max(-1), 0) - np.minimum(span.min(-1), 0)
    # Rounding, and below 8 bits clipping at 0.7 of the range, whose ends then lie up to 0.3 of it away.
    worst = span * (0.31 if bits < 8 else 1 / 255)
    assert (error <= np.repeat(worst, block_size, -1)[:, :columns] + 1e-6).all()


@pytest.mark.parametrize(
    ("width", "bits", "largest", "size"),
    [
        # Whole blocks: fewer scales take less.
        (1536, 8, 128, 128), (1024, 4, 64, 64),
        # 5 (128 + 3) = 655 bytes, 9 (64 + 3) = 603, 18 (32 + 3) = 630.
        (576, 8, 128, 64),
        # 5 (64 + 2.5) = 332.5 bytes, 9 (32 + 2.5) = 310.5, 18 (16 + 2.5) = 333.
        (576, 4, 128, 64),
        # 8 (256 + 3) = 2,072 bytes are less than 16 (128 + 3) = 2,096, though 48 of them pad.
        (2000, 8, 256, 256),
        # 1 (32 + 3) = 35 bytes, 2 (16 + 3) = 38; and 1 (16 + 3) = 19 at the least.
        (20, 8, 128, 32), (5, 8, 128, 16),
        (576, 8, 16, 16),
    ],
)  # fmt: skip
def test_padding_is_weighed_against_scales(width, bits, largest, size):
    assert fitting_block_size(width, bits, largest) == size


def test_numbers_on_the_grid_are_kept_exactly():
    """16 levels of 0.25 from -1.75 to 2.0 need no rounding at all."""
    weight = (torch.arange(16.0) - 7).repeat(2, 4)[:, torch.randperm(64)] / 4
    assert np.abs(dequantize(quantize_matrix(weight, None, 4, 64), 64) - weight.numpy()).max() < 1e-6


@pytest.mark.parametrize(("bits", "wide"), [(3, 4), (4, 4), (5, 8), (6, 8), (8, 8)])
def test_integers_have_as_many_bits_as_are_kept(bits, wide):
    """All levels of 0.25 are kept exactly; of what the operator reads the lower bits are zero."""
    levels = torch.arange(2.0**bits) - 2 ** (bits - 1)
    weight = (levels.repeat(256 // len(levels)) / 4)[None]
    blocks = quantize_matrix(weight, None, bits, 256)
    assert np.abs(dequantize(blocks, 256) - weight.numpy()).max() < 1e-6
    assert (blocks.bits, blocks.kept_bits) == (wide, bits)
    own = blocks.packed if wide == 8 else np.stack([blocks.packed & 15, blocks.packed >> 4])
    assert np.array_equal(np.unique(own), np.arange(2**bits) * 2 ** (wide - bits))


def test_important_channels_are_kept_better():
    weight, importance = random_matrix(64, 128), torch.ones(128)
    importance[::8] = 1000
    plain = (dequantize(quantize_matrix(weight, None, 4, 64), 128) - weight.numpy())[:, ::8]
    weighted = (dequantize(quantize_matrix(weight, importance, 4, 64), 128) - weight.numpy())[:, ::8]
    assert (weighted**2).mean() < 0.8 * (plain**2).mean()


@pytest.mark.parametrize("bits", [3, 4, 5, 6, 8])
@pytest.mark.parametrize("columns", [128, 96, 80])
def test_the_operator_reads_what_was_written(bits, columns):
    """MatMulNBits with the identity gives the dequantized matrix back."""
    weight = random_matrix(24, columns)
    blocks = quantize_matrix(weight, None, bits, 64)
    constants = {"B": blocks.packed, "scales": blocks.scales, "zero_points": blocks.zero_points}
    node = helper.make_node(
        "MatMulNBits", ["A", *constants], ["Y"], domain="com.microsoft", K=columns, N=24,
        bits=blocks.bits, block_size=64, accuracy_level=1,
    )  # fmt: skip
    found = run(node, constants, {"A": np.eye(columns, dtype=np.float32)}, 2)
    assert np.abs(found.T - dequantize(blocks, columns)).max() < 1e-5


@pytest.mark.parametrize("bits", [3, 4, 5, 6, 8])
def test_the_embedding_reads_the_same_bytes(bits):
    weight = random_matrix(40, 96)
    blocks = quantize_matrix(weight, None, bits, 32)
    constants = {
        "data": blocks.packed.reshape(40, -1), "scales": blocks.scales, "zero_points": blocks.zero_points,
    }  # fmt: skip
    node = helper.make_node(
        "GatherBlockQuantized", ["data", "ids", "scales", "zero_points"], ["Y"], domain="com.microsoft",
        bits=blocks.bits, block_size=32, gather_axis=0, quantize_axis=1,
    )  # fmt: skip
    ids = np.array([3, 39, 0, 7])
    assert np.abs(run(node, constants, {"ids": ids}, 2) - dequantize(blocks, 96)[ids]).max() < 1e-6


def run(node, constants, feeds, rank):
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    inputs = [helper.make_tensor_value_info(name, kinds[array.dtype], array.shape) for name, array in feeds.items()]
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * rank)]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], "test", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def test_a_tied_embedding_is_stored_once(int4_bundle):
    graph = onnx.load(int4_bundle / "decoder.onnx", load_external_data=False).graph
    places = {}
    for tensor in graph.initializer:
        location = {entry.key: entry.value for entry in tensor.external_data}
        places[tensor.name] = (location.get("offset"), location.get("length"))
    assert places["model.lm_head.weight.blocks"] == places["model.lm_head.weight.rows.blocks"]
    assert places["model.lm_head.weight.blocks"][1] == str(400 * 96 // 2)


@pytest.mark.parametrize(("quantize", "least", "most"), [("int8", 0.95, 1e-4), ("int4", 0.5, 1)])
def test_quantization_report(checkpoint, tmp_path, quantize, least, most):
    """Random weights have no structure to lose, which makes them hard to quantize: 4 bits keep the half at least.

    In 8 bits the likeliest token changes only where two are all but equally likely, so the divergence is what tells.
    """
    report = export(str(checkpoint), tmp_path / "bundle", ExportOptions(quantize=quantize, block_size=32))
    measured = report.parity.quantized
    assert measured.top1_agreement >= least
    assert 0 <= measured.mean_kl < most
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    quantization = manifest["graphs"]["decoder"]["quantization"]
    # 3 layers of q/k/v, output, gate/up, down; and the head, which is the embedding.
    assert quantization["matrices"] == 3 * 4 + 1
    assert manifest["graphs"]["decoder"]["operators"]["MatMulNBits"] == 13
    assert manifest["graphs"]["decoder"]["operators"]["GatherBlockQuantized"] == 1


def test_an_untied_embedding_is_quantized_too(tmp_path):
    from tests.checkpoints.decoders import llama_folder

    folder = llama_folder(tmp_path / "model", tie_word_embeddings=False)
    export(str(folder), tmp_path / "bundle", ExportOptions(quantize="int4", block_size=32))
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["graphs"]["decoder"]["quantization"]["matrices"] == 3 * 4 + 2


def test_context_length_limits_the_tables(checkpoint, tmp_path):
    export(str(checkpoint), tmp_path / "bundle", ExportOptions(quantize="none", context_length=64))
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["max_length"] == 64
    graph = onnx.load(tmp_path / "bundle" / "decoder.onnx", load_external_data=False).graph
    tables = [tensor for tensor in graph.initializer if list(tensor.dims) == [64, 8]]
    assert len(tables) == 2
