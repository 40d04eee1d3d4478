"""Encoders made for GPUs, run on the CPU: their results are transformers' within what float16 rounds.

A float16 has 11 bits, so that a number is off by at most 2^-11 of itself; of a few dozen roundings one after the other,
each independent, four times the root of their number remains: 4 * 2^-11 * sqrt(50) = 0.014.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_allclose

from tests.checkpoints.ctc import RATE, save_ctc_checkpoint
from tests.checkpoints.encoders import bert_folder
from tests.checkpoints.images import vision_folder
from tests.helpers.sentences import TEXTS, mean_vectors
from triform.export.options import ExportOptions
from triform.export.pipeline import export, plan
from triform.export.recheck.against import verify_against
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.targets import for_gpu
from triform.runtime.encoder.model import Encoder
from triform.runtime.errors import ExportError, InputError
from triform.runtime.graphs.session import open_session

TOLERANCE = 0.014


@pytest.fixture(scope="module")
def both(sentence_source, tmp_path_factory):
    """A bundle for CPUs and GPUs."""
    folder = tmp_path_factory.mktemp("gpu") / "both"
    export(str(sentence_source), folder, ExportOptions(quantize="none", target="cpu,gpu"))
    return folder


def test_texts(both, sentence_source):
    bundle = open_bundle(both)
    on_gpu = Encoder(replace(bundle, manifest=for_gpu(bundle.manifest)), provider="cpu")
    expected = mean_vectors(sentence_source, TEXTS)
    lengths = np.linalg.norm(on_gpu.embed(TEXTS, prompt_name="plain") - expected, axis=-1)
    # Rounded, but not more.
    assert 1e-5 < lengths.max() < TOLERANCE
    on_cpu = Encoder(replace(bundle, manifest=replace(bundle.manifest, gpu=None)), provider="cpu")
    assert_allclose(on_cpu.embed(TEXTS, prompt_name="plain"), expected, atol=2e-6)


def test_both_targets_are_shown(both, call):
    manifest = open_bundle(both).manifest
    assert manifest.target == "cpu" and manifest.gpu.dtype == "float16"
    assert manifest.graphs["encoder"].file == "encoder.onnx"
    assert manifest.gpu.graphs["encoder"].file == "gpu-encoder.onnx"
    assert manifest.gpu.parity.quantized.cosine_worst > 1 - TOLERANCE**2 / 2
    operators = manifest.gpu.graphs["encoder"].operators
    # Two in each layer; in the CPU's graph they are slower than what they replace.
    assert operators["SkipLayerNormalization"] == 4
    assert "SkipLayerNormalization" not in manifest.graphs["encoder"].operators
    code, out, _ = call("inspect", both)
    assert code == 0
    assert "CPUs, and GPUs with float16" in out and "graph encoder for GPUs" in out
    code, out, _ = call("inspect", both, "--sbom")
    assert code == 0 and "cpu,gpu" in out


def test_a_bundle_is_verified_for_each_target(both, sentence_source):
    parity = verify_against(open_bundle(both), str(sentence_source))
    assert max(parity.batch, parity.single) < 1e-5


def test_images(tmp_path):
    source = vision_folder(tmp_path / "vit", "vit", "ViTForImageClassification")
    export(str(source), tmp_path / "bundle", ExportOptions(target="gpu"))
    bundle = open_bundle(tmp_path / "bundle")
    assert bundle.manifest.target == "gpu" and bundle.manifest.gpu is None
    pixels = np.random.default_rng(0).normal(size=(3, 3, 24, 40)).astype(np.float32)
    model = transformers.ViTForImageClassification.from_pretrained(source).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels)).logits.numpy()
    (logits,) = Encoder(bundle, provider="cpu").images.feed({"pixel_values": pixels}, ["logits"])
    assert 0 < np.abs(logits - expected).max() < TOLERANCE * np.abs(expected).max()


def test_audio(tmp_path):
    source = tmp_path / "wav2vec2"
    source.mkdir()
    save_ctc_checkpoint(source, "wav2vec2", "layer")
    export(str(source), tmp_path / "bundle", ExportOptions(target="gpu"))
    bundle = open_bundle(tmp_path / "bundle")
    # Longer than float16 counts, and padded: the second has 20,000 samples.
    generator, mask = np.random.default_rng(0), np.ones((2, 3 * RATE), np.int64)
    mask[1, 20_000:] = 0
    samples = (generator.normal(size=mask.shape) * mask).astype(np.float32)
    model = transformers.Wav2Vec2ForCTC.from_pretrained(source).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(samples), attention_mask=torch.from_numpy(mask)).logits.numpy()
    session = open_session(bundle.graph("encoder")[0], provider="cpu")
    (logits,) = session.run(["logits"], {"input_values": samples, "attention_mask": mask})
    # Frames of 160 samples, the first of which reaches over 164.
    real = [logits.shape[1], (20_000 - 20) // 16 // 10]
    for index, frames in enumerate(real):
        difference = np.abs(logits[index, :frames] - expected[index, :frames]).max()
        assert 0 < difference < TOLERANCE * np.abs(expected).max()


def test_a_model_beyond_float16_is_refused(tmp_path):
    source = bert_folder(tmp_path / "large", num_hidden_layers=1)
    model = transformers.BertModel.from_pretrained(source)
    layer = model.encoder.layer[0]
    with torch.no_grad():
        # The same function in float32, by way of numbers beyond 65,504.
        layer.intermediate.dense.weight.mul_(1e5)
        layer.output.dense.weight.mul_(1e-5)
    model.save_pretrained(source)
    with pytest.raises(ExportError, match=r"beyond float16's 65,504 .* export with `dtype` bfloat16"):
        export(str(source), tmp_path / "float16", ExportOptions(target="gpu"))
    assert not (tmp_path / "float16").exists()
    report = export(str(source), tmp_path / "bfloat16", ExportOptions(target="gpu", dtype="bfloat16"))
    assert report.parity.quantized.cosine_worst > 0.99
    assert open_bundle(tmp_path / "bfloat16").manifest.graphs["encoder"].notes["dtype"] == "bfloat16"


def test_what_is_not_for_gpus(sentence_source, tmp_path, call):
    with pytest.raises(InputError, match="int8 is for CPUs: encoders have float16 weights on GPUs"):
        plan(sentence_source, ExportOptions(target="gpu", quantize="int8"))
    assert ("weights", "float16") in plan(sentence_source, ExportOptions(target="gpu"))
    assert ("weights", "int8; bfloat16 for GPUs") in plan(
        sentence_source, ExportOptions(target="cpu,gpu", dtype="bfloat16")
    )
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("rain 0.5 1.5\nsnow 2.5 -1.0\n")
    code, out, err = call("export", vectors, tmp_path / "bundle", "--target", "gpu")
    assert (code, out) == (2, "")
    assert "error: --target gpu is not for static word vectors" in err
