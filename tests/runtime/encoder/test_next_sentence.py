"""`triform next-sentence`, against transformers running the same checkpoint."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer, BertForNextSentencePrediction

from tests.checkpoints.encoders import bert_folder
from tests.helpers.bundles import change, read_manifest_json
from tests.helpers.commands import invoke, one_line
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.opening import load_encoder

PAIRS = [
    ("The ferry left the harbor before dawn.", "Nobody was on it."),
    ("Nobody was on it.", "The ferry left the harbor before dawn."),
    ("Rain.", "Two boats, three nets and not a single fish, and the oldest of them said so every evening."),
    ("Rain.", "Rain."),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("next-sentence") / "checkpoint"
    return bert_folder(folder, "BertForNextSentencePrediction", num_hidden_layers=1, initializer_range=0.1)


@pytest.fixture(scope="module")
def bundle(source):
    export(str(source), source.parent / "bundle", ExportOptions(quantize="none"))
    return source.parent / "bundle"


@pytest.fixture(scope="module")
def expected(source):
    """The probability that transformers gives label 0, "sequence B is a continuation of sequence A"."""
    model, tokenizer = BertForNextSentencePrediction.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    with torch.no_grad():
        logits = [model(**tokenizer(*pair, return_tensors="pt")).logits for pair in PAIRS]
    return [one.softmax(-1)[0, 0].item() for one in logits]


def test_probabilities(bundle, expected):
    assert load_encoder(bundle).next_sentence(PAIRS) == pytest.approx(expected, abs=2e-5)
    assert max(expected) - min(expected) > 1e-3


def test_output(capsys, bundle, expected):
    assert invoke(capsys, "next-sentence", bundle, *PAIRS[0]) == (0, f"{expected[0]:.4f}\n", "")
    code, out, _ = invoke(capsys, "next-sentence", bundle, *PAIRS[1], "--json")
    found = json.loads(out)
    assert code == 0
    assert found == {"first": PAIRS[1][0], "second": PAIRS[1][1], "score": pytest.approx(expected[1], abs=2e-5)}


@pytest.mark.parametrize("texts", [[], ["one"]])
def test_too_few_texts(capsys, bundle, texts):
    code, out, err = invoke(capsys, "next-sentence", bundle, *texts)
    assert (code, out) == (2, "")
    assert "give two texts" in one_line(err)


def test_a_default_bundle(capsys, bundle, expected, monkeypatch):
    monkeypatch.setenv("TRIFORM_BUNDLE", str(bundle))
    assert invoke(capsys, "next-sentence", *PAIRS[0]) == (0, f"{expected[0]:.4f}\n", "")
    code, out, err = invoke(capsys, "next-sentence", *PAIRS[0], "three")
    assert (code, out) == (2, "")
    assert "give two texts, not 3" in one_line(err)


def test_a_bundle_for_something_else(capsys, bundle, tmp_path):
    """Seen by its task alone."""
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    change(folder, task="feature-extraction", encoder={**read_manifest_json(folder)["encoder"], "labels": ["a", "b"]})
    code, out, err = invoke(capsys, "next-sentence", folder, *PAIRS[0])
    assert (code, out) == (1, "")
    assert "use `triform embed`" in one_line(err)
