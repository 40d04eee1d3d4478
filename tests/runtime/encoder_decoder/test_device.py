"""Encoder-decoders for GPUs, run on the CPU: what they write is what transformers writes in float32."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.fake_device import fake_device
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.targets import for_gpu
from triform.runtime.encoder_decoder import writer
from triform.runtime.encoder_decoder.model import EncoderDecoder
from triform.runtime.errors import UnsupportedError
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.graphs.device import opening
from triform.runtime.graphs.padding import text_arrays
from triform.runtime.opening import load_encoder_decoder

__all__ = ["fake_device"]
# In transformers' greedy answers, each token's logit is above the next one's by 0.006 or more: float16 rounds logits of
# about 2 to 0.001.
TEXTS = ["The house is small.", "Nobody knows the trouble I have seen since then.", "Where is my hat?"]
GREEDY = GenerationOptions(temperature=0, max_new_tokens=16)


@pytest.fixture(scope="module")
def bundle(exported_family, tmp_path_factory):
    """Marian for both targets."""
    path = tmp_path_factory.mktemp("gpu") / "marian"
    export(str(exported_family("marian")[0]), path, ExportOptions(quantize="none", target="cpu,gpu"))
    return path


@pytest.fixture
def model(bundle, fake_device, monkeypatch):
    """The graphs for GPUs of the bundle, on a device that notices what is on the host."""
    monkeypatch.setattr(writer, "open_session", opening.open_session)
    opened = open_bundle(bundle)
    return EncoderDecoder(replace(opened, manifest=for_gpu(opened.manifest)), provider="cpu")


def test_a_bundle_for_both_targets_has_four_graphs(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    files = {graph["file"] for graph in manifest["gpu"]["graphs"].values()}
    assert files == {"gpu-encoder.onnx", "gpu-decoder.onnx"}
    passed = [item for item in manifest["gpu"]["graphs"]["encoder"]["outputs"] if item["name"].startswith("cross_")]
    assert passed and {item["dtype"] for item in passed} == {"float16"}
    assert {graph["file"] for graph in manifest["graphs"].values()} == {"encoder.onnx", "decoder.onnx"}
    assert load_encoder_decoder(bundle, provider="cpu").manifest.target == "cpu"


def test_greedy_answers_equal_transformers(model, written):
    expected = [written(text, "marian", max_new_tokens=16, num_beams=1) for text in TEXTS]
    assert [model.generate(text, GREEDY, beams=Beams(num_beams=1)).text for text in TEXTS] == expected
    batch = model.generate_all(TEXTS, GREEDY, beams=Beams(num_beams=1))
    assert [answers[0].text for answers in batch] == expected


def test_the_likeliest_tokens_are_chosen_on_the_device(model, written, fake_device):
    ids = [model.text.read([text])[0] for text in TEXTS]
    step = model.reader.batch_step(model.reader.read(text_arrays(ids, model.manifest.tokens.pad)))
    step.wanted = 1
    rows = [[row.best] for row in step.prefill([[model.info.decoder_start]] * len(ids))]
    for _ in range(10):
        for row, scores in zip(rows, step.next([row[-1] for row in rows], range(len(rows))), strict=True):
            row.append(scores.best)
    original = written.model("marian")
    for source, row in zip(ids, rows, strict=True):
        before = torch.tensor([[model.info.decoder_start, *row[:-1]]])
        with torch.no_grad():
            logits = original(input_ids=torch.tensor([source]), decoder_input_ids=before).logits[0]
        assert logits.argmax(-1).tolist() == row
    # Three tokens, their positions and their lengths go to the device, and three tokens come back.
    assert step._memory.device in fake_device.made
    assert all(device.largest <= 8 * len(ids) * max(map(len, ids)) for device in fake_device.made)


def test_sources_are_chosen_on_the_device(model):
    ids = [model.text.read([text])[0] for text in TEXTS]
    encoded = model.reader.read(text_arrays(ids, model.manifest.tokens.pad))
    start = [model.info.decoder_start]
    expected = model.reader.batch_step(encoded).prefill([start] * 3)
    chosen = encoded.only([2, 0])
    assert (chosen.sources, chosen.length) == (2, encoded.length)
    np.testing.assert_array_equal(model.reader.batch_step(chosen).prefill([start] * 2), expected[[2, 0]])


def test_beams_equal_transformers(model, written):
    for text in TEXTS:
        expected = written(text, "marian", max_new_tokens=12, num_beams=3, num_return_sequences=3)
        options, beams = GenerationOptions(max_new_tokens=12), Beams(num_beams=3, num_return_sequences=3)
        (answers,) = model.generate_all([text], options, beams=beams)
        assert [answer.text for answer in answers] == expected


def test_a_model_with_relative_positions_is_refused(exported_family, tmp_path):
    with pytest.raises(UnsupportedError, match="gpu: its attention adds a bias") as refusal:
        export(str(exported_family("t5")[0]), tmp_path / "t5", ExportOptions(target="gpu"))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "t5").exists()
