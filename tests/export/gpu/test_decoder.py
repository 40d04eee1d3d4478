"""What becomes of a decoder's graph for GPUs, and which are refused."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.checkpoints.decoders import llama_folder
from tests.checkpoints.wandering import wandering_folder
from triform.export.gpu.blocks import symmetric_blocks
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.quantize.blockwise import dequantize
from triform.export.recheck.against import verify_against
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.errors import ExportError, InputError, UnsupportedError
from triform.runtime.opening import load_decoder

SHORT = 160


@pytest.fixture(scope="module")
def both(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets") / "both"
    export(str(checkpoint), folder, ExportOptions(target="cpu,gpu", quantize="none"))
    return folder


def operators(path):
    return [node.op_type for node in ir.load(path).graph]


def test_a_length_that_a_model_takes_back_is_not_computed_from_the_whole(tmp_path):
    """TrOCR's decoder computes past = (past + new) - new, for which CUDA would leave the lengths to the CPU."""
    export(str(wandering_folder(tmp_path / "trocr", "trocr")), tmp_path / "out", ExportOptions(target="gpu"))
    graph = ir.load(tmp_path / "out" / "decoder.onnx").graph
    (lengths,) = (value for value in graph.inputs if value.name == "seqlens_k")
    assert {use.node.op_type for use in lengths.uses()} == {"GroupQueryAttention"}


def test_nothing_of_a_step_is_computed_on_the_host(both):
    """CUDA has no kernels for these, or reads sizes on the host for them."""
    graph = operators(both / "gpu-decoder.onnx")
    assert not {"Range", "GatherND", "ReduceMax", "Shape", "Squeeze"} & set(graph)
    assert graph.count("GroupQueryAttention") == 3


def test_both_targets_are_described_and_compared(both, checkpoint):
    manifest = open_bundle(both).manifest
    assert (manifest.target, manifest.schema_version) == ("cpu", 4)
    assert manifest.cache.dtype == "float32"
    assert manifest.gpu.dtype == "float16"
    assert [tensor.dtype for tensor in manifest.gpu.graphs["decoder"].outputs if tensor.name == "logits"] == ["float32"]
    parity = manifest.gpu.parity
    # Four times 11 bits, times the root of as many roundings as there are operators.
    count = len(operators(both / "gpu-decoder.onnx"))
    assert parity.tolerance == pytest.approx(4 * 2**-11 * count**0.5 * parity.scale)
    assert 0 < parity.prefill <= parity.tolerance
    assert verify_against(open_bundle(both), str(checkpoint)).prefill < 1e-3


def test_numbers_that_float16_cannot_hold(tmp_path):
    source = llama_folder(tmp_path / "loud", num_hidden_layers=2)
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"] *= 1e7
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"float16 cannot hold; export with .*dtype.* bfloat16"):
        export(str(source), tmp_path / "out", ExportOptions(target="gpu"))
    assert not (tmp_path / "out").exists()
    export(str(source), tmp_path / "out", ExportOptions(target="gpu", dtype="bfloat16"))
    manifest = open_bundle(tmp_path / "out").manifest
    assert manifest.cache.dtype == "bfloat16"
    assert "rounded to bfloat16" in manifest.graphs["decoder"].notes["compared"]
    with pytest.raises(Exception, match="computes with bfloat16, which needs a GPU"):
        load_decoder(tmp_path / "out")


@pytest.mark.parametrize(
    ("family", "reason"),
    [("bloom", "adds a bias to the scores"), ("mamba", "states of fixed size"), ("mixtral", "chooses among experts")],
)
def test_what_cuda_has_no_kernel_for_is_refused(family, reason, tmp_path):
    source = wandering_folder(tmp_path / family, family)
    with pytest.raises(UnsupportedError, match=f"cannot be exported with .*target.* gpu: it.*{reason}"):
        export(str(source), tmp_path / "out", ExportOptions(target="gpu", context_length=SHORT))
    assert not (tmp_path / "out").exists()


def test_four_bits(checkpoint, tmp_path):
    export(str(checkpoint), tmp_path / "int4", ExportOptions(target="gpu", quantize="int4"))
    graph = ir.load(tmp_path / "int4" / "decoder.onnx").graph
    products = [node for node in graph if node.op_type == "MatMulNBits"]
    # The shapes that the fused kernels take; 400 tokens are no multiple of 64.
    assert {(node.attributes["N"].value % 64, node.attributes["block_size"].value) for node in products} == {(0, 32)}
    assert all(len(node.inputs) == 3 for node in products)
    assert load_decoder(tmp_path / "int4", provider="cpu").generate("Hello").text


def test_symmetric_blocks_of_numbers_that_they_hold():
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(-8, 8, (64, 4, 32), generator=generator)
    integers[..., 0] = -8
    scales = (torch.rand((64, 4, 1), generator=generator) + 0.5).half().float()
    weight = (integers * scales).view(64, -1)
    # A scale may have the other sign, where the largest weights are -8 and nothing else is.
    np.testing.assert_allclose(dequantize(symmetric_blocks(weight, None), 128), weight, rtol=2e-3, atol=0)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target": "tpu"}, "must be cpu, gpu or cpu,gpu"),
        ({"dtype": "float16"}, "is for .*target.* gpu"),
        ({"target": "gpu", "dtype": "float32"}, "must be float16 or bfloat16"),
        ({"target": "gpu", "quantize": "keep"}, "keep is for .*target.* cpu"),
    ],
)
def test_options_that_contradict(options, reason):
    with pytest.raises(InputError, match=reason):
        ExportOptions(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"quantize": "int8"}, "takes .*quantize.* none.*or int4"),
        ({"quantize": "int4", "block_size": 64}, "in blocks of 32"),
        ({"target_size": 10**6}, "is for .*target.* cpu"),
    ],
)
def test_schemes_of_the_cpu(options, reason, checkpoint, tmp_path):
    with pytest.raises(InputError, match=reason):
        export(str(checkpoint), tmp_path / "out", ExportOptions(target="gpu", **options))
