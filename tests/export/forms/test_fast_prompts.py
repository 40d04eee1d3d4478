"""A decoder's graph for long prompts: what it computes, what it shares with the decoder's own, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from gguf import GGMLQuantizationType as Format

from tests.checkpoints.decoders import llama_folder
from tests.checkpoints.encoders import bert_folder
from tests.checkpoints.gguf_files import make_model, write_gguf
from triform.cli.main import run
from triform.export import ExportOptions, export
from triform.export.quantize.columns.search import smoothed_rows
from triform.export.runners import DecoderRunner
from triform.export.verify.decoder import all_logits
from triform.runtime.bundle.reading import read_manifest
from triform.runtime.errors import InputError

IDS = np.random.default_rng(0).integers(3, 400, 200).tolist()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """The same checkpoint, with biases, in float32 and in 4 bits with a graph for prompts."""
    folder = tmp_path_factory.mktemp("fast-prompts")
    source = llama_folder(folder / "llama", attention_bias=True, mlp_bias=True)
    export(source, folder / "float", ExportOptions(quantize="none"))
    export(source, folder / "int4", ExportOptions(quantize="int4", fast_prompts=True))
    return source, folder / "float", folder / "int4"


def logits_of(bundle: Path, graph: str) -> np.ndarray:
    return all_logits(DecoderRunner(bundle / graph, read_manifest(bundle).cache, 2), IDS)


def test_prompts_are_closer_to_the_checkpoint_than_4_bits(bundles):
    _, exact, quantized = bundles
    expected = logits_of(exact, "decoder.onnx")
    errors = {
        graph: np.abs(logits_of(quantized, graph) - expected).mean() for graph in ("decoder.onnx", "prompts.onnx")
    }
    # Both have a head of 4 bits. 8 bits in all of the layers are 1 % off or less.
    assert errors["prompts.onnx"] < 0.8 * errors["decoder.onnx"]
    assert errors["prompts.onnx"] < 0.1 * np.abs(expected).mean()


def test_what_is_stored_once_and_what_twice(bundles):
    _, _, folder = bundles
    graph = onnx.load(folder / "prompts.onnx", load_external_data=False).graph
    columns = {item.name: list(item.dims) for item in graph.initializer if item.name.endswith(".int8")}
    # Three layers of four products: queries with keys and values, their output, gate with up, down.
    assert sorted(map(tuple, columns.values())) == sorted(3 * [(96, 160), (96, 96), (96, 320), (160, 96)])
    holders = {
        item.name: next(entry.value for entry in item.external_data if entry.key == "location")
        for item in graph.initializer
        if item.external_data
    }
    assert {holder for name, holder in holders.items() if name in columns} == {"prompts.onnx.data"}
    # The embedding, which is the head too.
    tables = {holder for name, holder in holders.items() if name.endswith(".blocks")}
    assert tables == {"decoder.onnx.data"}
    manifest = read_manifest(folder)
    assert manifest.schema_version == 6
    assert manifest.graphs["prompts"].operators["MatMulIntegerToFloat"] == 12
    assert manifest.graphs["prompts"].quantization.matrices == 12


def test_a_row_is_what_the_arithmetic_says():
    """Of smoothed activations in 8 bits with the row's own scale, and columns of weights with theirs."""
    generator = torch.Generator().manual_seed(1)
    weight, energy = torch.randn(6, 10, generator=generator), torch.rand(10, generator=generator) + 0.1
    recipe = smoothed_rows(weight, energy)
    assert recipe.factors is not None
    restored = recipe.weights.integers.float() * recipe.weights.scales[:, None] * recipe.factors
    step = recipe.weights.scales[:, None] * recipe.factors
    assert ((restored - weight).abs() <= step / 2 + 1e-6).all()
    # Loud channels become quieter against the others.
    loud = energy.sqrt() * recipe.factors
    assert loud.max() / loud.min() < energy.sqrt().max() / energy.sqrt().min() * weight.abs().amax(0).max()
    assert smoothed_rows(weight, None).factors is None


def test_the_manifest_and_verify_tell_how_close_it_is(bundles, capsys):
    source, _, folder = bundles
    recorded = read_manifest(folder).export.parity
    assert recorded.prompts.tokens == recorded.quantized.tokens
    assert 0 < recorded.prompts.mean_kl < recorded.quantized.mean_kl
    assert run(["verify", str(folder), "--against", str(source), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["parity"]
    assert found["prompts"]["mean_kl"] == pytest.approx(recorded.prompts.mean_kl, rel=0.01)
    assert run(["inspect", str(folder)]) == 0
    assert "prompts.onnx" in capsys.readouterr().out


def test_the_blocks_of_a_file(tmp_path):
    model = make_model("llama", hidden_size=96, intermediate_size=160)
    path = write_gguf(tmp_path / "model.gguf", "llama", model, format_of=Format.Q4_1)
    export(path, tmp_path / "bundle", ExportOptions(quantize="keep", fast_prompts=True))
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.graphs["decoder"].quantization.scheme == "keep"
    assert manifest.export.parity.prompts.mean_kl < 0.01
    assert manifest.graphs["prompts"].operators["MatMulIntegerToFloat"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantize": "none"}, "quantize. none"),
        ({"target_bits": 5.0}, "target_bits"),
        ({"max_loss": 0.01}, "max_loss"),
        ({"target": "gpu"}, "is for .*target. cpu"),
    ],
)
def test_what_does_not_go_with_it(options, said):
    with pytest.raises(InputError, match=f"fast_prompts.*{said}"):
        ExportOptions(fast_prompts=True, **options)


def test_encoders_have_no_prompts(tmp_path, capsys):
    code = run(["export", str(bert_folder(tmp_path / "bert")), str(tmp_path / "out"), "--fast-prompts"])
    said = capsys.readouterr().err
    assert (code, said.splitlines()[-1]) == (
        2,
        "error: --fast-prompts is for decoders, and this model is of the form encoder; leave it out",
    )
    assert not (tmp_path / "out").exists()
