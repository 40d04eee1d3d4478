"""all-MiniLM-L6-v2, the real weights: parity, and how close 8 bits stay."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from triform.cli.main import run
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples import texts
from triform.runtime.opening import load_encoder


@pytest.fixture(scope="module")
def reference(real_minilm):
    """sentence-transformers' recipe for this model, written out: mean over tokens, then length 1."""
    tokenizer = AutoTokenizer.from_pretrained(real_minilm)
    model = AutoModel.from_pretrained(real_minilm).eval()

    def embed(text):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            states = model(**inputs).last_hidden_state[0]
        return torch.nn.functional.normalize(states.mean(0), dim=0).numpy()

    return embed


def test_float_graph_is_pytorchs(minilm_bundle):
    parity = json.loads((minilm_bundle / "manifest.json").read_text())["export"]["encoder_parity"]
    assert 0 < parity["batch"] <= parity["tolerance"]
    assert 0 < parity["single"] <= parity["tolerance"]
    assert parity["quantized"]["rows"] == 48


def test_int8_vectors_stay_close(minilm_bundle, reference):
    """The aim that this way to quantize was chosen by: 0.997 on average, 0.993 at worst, on texts not calibrated on."""
    passages = texts.passages("evaluation", 40)
    found = load_encoder(minilm_bundle, threads=2).embed(passages)
    cosines = (found * np.stack([reference(text) for text in passages])).sum(1)
    assert cosines.mean() >= 0.997
    assert cosines.min() >= 0.993
    assert cosines.max() < 1 - 1e-6


def test_int4_is_smaller_and_keeps_a_cosine_of_099(minilm_bundle, real_minilm, reference, tmp_path):
    export(str(real_minilm), tmp_path / "int4", ExportOptions(quantize="int4"))
    sizes = [sum(path.stat().st_size for path in folder.iterdir()) for folder in (tmp_path / "int4", minilm_bundle)]
    assert sizes[0] < 0.75 * sizes[1]
    passages = texts.passages("evaluation", 40)
    found = load_encoder(tmp_path / "int4", threads=2).embed(passages)
    assert (found * np.stack([reference(text) for text in passages])).sum(1).mean() >= 0.99


def test_int8_rows_do_not_see_each_other(minilm_bundle):
    """Float sums in another order may round to a neighboring step here and there, no more."""
    model = load_encoder(minilm_bundle, threads=1)
    passages = texts.passages("evaluation", 12)
    together = model.embed(passages)
    alone = np.concatenate([model.embed([text]) for text in passages])
    assert (together * alone).sum(1).min() > 0.9999


def test_the_bundle_is_a_third_of_the_weights(minilm_bundle, real_minilm):
    size = sum(path.stat().st_size for path in minilm_bundle.iterdir())
    assert size < (real_minilm / "model.safetensors").stat().st_size / 3


def test_the_manifest_names_every_choice(minilm_bundle):
    graph = json.loads((minilm_bundle / "manifest.json").read_text())["graphs"]["encoder"]
    choices = graph["quantization"]["activations"]
    # Six layers of a packed input projection, an attention output, and two products of the feed-forward part.
    assert len(choices) == 6 * 4
    assert set(choices.values()) <= {"static", "rows"}
    assert graph["operators"]["MatMulIntegerToFloat"] == 6 * 4
    assert graph["operators"]["MultiHeadAttention"] == 6


def test_verifying_against_the_source_measures_again(minilm_bundle, real_minilm, capsys):
    assert run(["verify", str(minilm_bundle), "--against", str(real_minilm), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["parity"]
    recorded = json.loads((minilm_bundle / "manifest.json").read_text())["export"]["encoder_parity"]["quantized"]
    # Against PyTorch here, against the float graph then: the same to six digits.
    assert found["quantized"]["cosine_mean"] == pytest.approx(recorded["cosine_mean"], abs=1e-6)
    assert found["quantized"]["rows"] == recorded["rows"]
