"""Exports of a small encoder to a goal: it is met, measured, or refused in one line."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from transformers import ViTConfig

from triform.export.checkpoint.loading import read_config
from triform.export.checkpoint.resolve import find_checkpoint
from triform.export.checkpoint.source import Source
from triform.export.default_scheme import choose_scheme
from triform.export.forms.encoder import load
from triform.export.forms.encoders.projections import differentiable
from triform.export.forms.encoders.text_encoder import text_encoder, text_outputs, text_samples
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples import texts
from triform.export.samples.batches import padded
from triform.runtime.errors import InputError


@pytest.fixture(scope="module")
def small(sentence_source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("goal") / "bundle"
    return folder, export(str(sentence_source), folder, ExportOptions(target_bits=6.5))


def test_the_manifest_says_how_each_matrix_is_stored(small):
    folder, report = small
    stored = json.loads((folder / "manifest.json").read_text())["graphs"]["encoder"]["quantization"]
    assert stored["scheme"] == report.scheme == "mixed"
    assert len(stored["products"]) == stored["matrices"] == sum(stored["formats"].values())
    assert any(name.startswith("4 bit") for name in stored["formats"])
    assert any(name.startswith("8 bit") for name in stored["formats"])


def test_a_cosine_is_kept_and_measured(sentence_source, tmp_path):
    report = export(str(sentence_source), tmp_path / "bundle", ExportOptions(max_loss=0.004))
    cosine = report.parity.quantized.cosine_mean
    assert cosine >= 0.996
    assert any(f"cosine {cosine:.5f}" in note for note in report.notes if note.startswith("measured: "))


def test_a_bundle_is_no_larger_than_its_target(small):
    """What a report says of the chosen point is an upper bound, which a target is compared with."""
    _, report = small
    chosen = next(point for point in report.frontier if point.chosen)
    assert chosen.bits <= 6.5
    assert report.size_after <= chosen.size


def test_a_target_that_is_too_small_is_refused(sentence_source, tmp_path):
    # 48 weights in three blocks of 16 take 24 bytes, three scales of 2 bytes, and 2 bytes of zero points.
    with pytest.raises(InputError, match=r"`target_bits` is too small: this model takes at least 5\.33"):
        export(str(sentence_source), tmp_path / "bundle", ExportOptions(target_bits=2.0))
    assert not (tmp_path / "bundle").exists()


def test_the_gradients_tell_what_an_error_does_to_the_vector(sentence_source):
    """The squares of the gradients' products with a small error are the squared relative changes that it makes."""
    origin = find_checkpoint(str(sentence_source), trust_remote_code=False, revision=None, weights=True)
    origin, options = dataclasses.replace(origin, task="feature-extraction"), ExportOptions()
    encoder = text_encoder(load(origin, read_config(origin), options), options)
    samples = text_samples(encoder, texts.spread_passages(texts.calibration_mixture(), 40))
    name = "encoder.layer.0.output.dense.weight"
    names = ["last_hidden_state", "sentence_embedding"]
    subject = differentiable(encoder.checkpoint.model, encoder.traced, samples, names, 0)
    weight = subject.parameters[name].requires_grad_(True)
    error = 1e-3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    squares = [float((torch.autograd.grad(value, weight)[0] * error).sum()) ** 2 for value in subject.values()]
    assert len(squares) == subject.count
    weight.requires_grad_(False)
    before = [text_outputs(encoder, padded([sample], 0))[1] for sample in samples]
    weight += error
    after = [text_outputs(encoder, padded([sample], 0))[1] for sample in samples]
    changes = [float((new - old).square().sum() / old.square().sum()) for new, old in zip(after, before, strict=True)]
    # Of eighty random directions the mean square is off by 16 % as a rule.
    assert sum(squares) / len(squares) == pytest.approx(sum(changes) / len(changes), rel=0.5)


def test_static_vectors_have_no_goals(tmp_path):
    with pytest.raises(InputError, match="`max_loss` is not for static word vectors, which are stored in one way"):
        choose_scheme("static", Source("model", tmp_path, tmp_path, tmp_path), ViTConfig(), ExportOptions(max_loss=0.1))
