"""Voices differ: what a speech encoder multiplies in 8 bits has a scale for each row, however it is stored."""

from __future__ import annotations

import json

import pytest
import transformers

from tests.checkpoints.ctc import save_ctc_checkpoint
from triform.export.options import ExportOptions
from triform.export.pipeline import export


def activations(folder):
    """How the activations of the encoder's 8-bit products are rounded."""
    graphs = json.loads((folder / "manifest.json").read_text())["graphs"]
    return set(graphs["encoder"]["quantization"]["activations"].values())


@pytest.mark.parametrize("options", [{"quantize": "int8"}, {"quantize": "int4"}, {"target_bits": 9.3}])
def test_speech_that_is_answered(options, exported_family, tmp_path):
    export(str(exported_family("whisper")[0]), tmp_path / "bundle", ExportOptions(**options))
    assert activations(tmp_path / "bundle") == {"rows"}


@pytest.mark.parametrize("options", [{"quantize": "int4"}, {"target_bits": 9.3}])
def test_speech_that_is_spelled(options, tmp_path):
    transformers.utils.logging.disable_progress_bar()
    (tmp_path / "checkpoint").mkdir()
    save_ctc_checkpoint(tmp_path / "checkpoint", "wav2vec2", "layer")
    export(str(tmp_path / "checkpoint"), tmp_path / "bundle", ExportOptions(**options))
    assert activations(tmp_path / "bundle") == {"rows"}
