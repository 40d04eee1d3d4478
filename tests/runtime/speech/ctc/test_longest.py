"""A model with positions for less than 30 s: what it reads at once is found by running it, and recordings are cut."""

from __future__ import annotations

import difflib
import json

import pytest
import transformers

import triform
from tests.checkpoints.ctc import save_ctc_checkpoint
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples.vowels import synthetic_voice
from triform.runtime.errors import TriformError

RATE, FRAME = 16000, 160
# Of 160 samples each: 5 s.
POSITIONS = 500


def test_recordings_are_cut_to_what_it_has_positions_for(tmp_path):
    folder, bundle = tmp_path / "model", tmp_path / "bundle"
    folder.mkdir()
    save_ctc_checkpoint(
        folder, "wav2vec2-conformer", "layer", position_embeddings_type="relative", max_source_positions=POSITIONS,
        conv_depthwise_kernel_size=5, num_hidden_layers=1,
    )  # fmt: skip
    # With 8 bits, whose calibration samples are longer than that.
    export(folder, bundle, ExportOptions(quantize="int8"))
    longest = json.loads((bundle / "manifest.json").read_text())["encoder"]["audio"]["longest"]
    assert longest == pytest.approx(POSITIONS * FRAME / RATE, abs=0.101)
    speech = triform.load_speech(bundle)
    sound = synthetic_voice(13.2, RATE, 3)
    with pytest.raises(TriformError, match="onnxruntime could not run the encoder"):
        speech.log_probs([sound])
    # Of the same chunks in transformers, without rounding to 8 bits.
    pipeline = transformers.pipeline(
        "automatic-speech-recognition",
        model=transformers.AutoModelForCTC.from_pretrained(folder).eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        feature_extractor=transformers.AutoFeatureExtractor.from_pretrained(folder),
    )
    expected = pipeline(
        {"raw": sound, "sampling_rate": RATE}, chunk_length_s=longest, stride_length_s=longest / 6
    )["text"]  # fmt: skip
    found = "".join(segment.text for segment in speech.transcribe(sound)).strip()
    # Other rounding changes a letter here and there; random texts of these letters have less than half in common.
    assert difflib.SequenceMatcher(None, found, expected, autojunk=False).ratio() > 0.9
