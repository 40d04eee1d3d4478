"""Exports of small encoders of images and of speech to a goal: it is met and measured, or refused in one line."""

from __future__ import annotations

import json

import pytest
import transformers

from tests.checkpoints.ctc import save_ctc_checkpoint
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.errors import InputError


@pytest.fixture(scope="module")
def hearing(tmp_path_factory):
    """A wav2vec2 that writes letters."""
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("ctc")
    save_ctc_checkpoint(folder, "wav2vec2", "layer")
    return folder


def check(folder, report, most):
    chosen = next(point for point in report.frontier if point.chosen)
    assert chosen.bits <= most
    assert report.size_after <= chosen.size
    stored = json.loads((folder / "manifest.json").read_text())["graphs"]["encoder"]["quantization"]
    assert stored["scheme"] == "mixed"
    assert {name[:5] for name in stored["formats"]} == {"4 bit", "8 bit"}


@pytest.mark.parametrize(("family", "measured"), [("vit", "scores differ by"), ("dinov2", "cosine")])
def test_images(family, measured, exported_image_model, tmp_path):
    source = str(exported_image_model(family)[0])
    check(tmp_path / "bits", export(source, tmp_path / "bits", ExportOptions(target_bits=6.5)), 6.5)
    report = export(source, tmp_path / "loss", ExportOptions(max_loss=0.05))
    notes = [note for note in report.notes if note.startswith("measured: ")]
    assert all(measured in note for note in notes)
    assert any(point.loss is not None and point.loss <= 0.05 for point in report.frontier)
    quantized = report.parity.quantized
    assert (quantized.score_mean if quantized.cosine_mean is None else 1 - quantized.cosine_mean) <= 0.05


def test_speech(hearing, tmp_path):
    check(tmp_path / "bits", export(str(hearing), tmp_path / "bits", ExportOptions(target_bits=8.0)), 8.0)
    size = json.loads((tmp_path / "bits" / "manifest.json").read_text())["files"]["tokenizer.json"]["size"]
    assert size > 0


def test_the_loss_of_speech_is_the_share_of_tokens_that_change(hearing, tmp_path):
    report = export(str(hearing), tmp_path / "loss", ExportOptions(max_loss=0.03))
    notes = [note for note in report.notes if note.startswith("measured: ")]
    assert all("of the tokens that the float32 graph writes change" in note for note in notes)
    assert report.parity.quantized.token_errors <= 0.03
    assert any(point.loss == report.parity.quantized.token_errors for point in report.frontier)


@pytest.mark.parametrize("goal", [{"max_loss": 0.1}, {"target_bits": 6.0}, {"target_size": 10**9}])
def test_two_graphs_that_are_compared_have_no_goals(goal, exported_image_model, tmp_path):
    with pytest.raises(InputError, match="is not for zero-shot-image-classification, which has two graphs"):
        export(str(exported_image_model("clip")[0]), tmp_path / "bundle", ExportOptions(**goal))
    assert list(tmp_path.iterdir()) == []
