"""Sounds that a model with an encoder and a decoder is calibrated on and compared on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import soundfile
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from triform.export.samples.sources import audio_sources, text_sources

RATE = 16000


def test_no_sound_is_longer_than_what_a_model_hears_at_once(tmp_path):
    """10 s in windows of 160 samples; a recording of the user's own is longer, too."""
    extractor = WhisperFeatureExtractor(feature_size=12, chunk_length=10)
    extractor.save_pretrained(tmp_path)
    config = WhisperConfig(
        vocab_size=64, num_mel_bins=12, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=4, decoder_ffn_dim=4, pad_token_id=0, bos_token_id=1, eos_token_id=1,
        decoder_start_token_id=1, suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    source = SimpleNamespace(model_folder=tmp_path)
    checkpoint = SimpleNamespace(source=source, model=WhisperForConditionalGeneration(config))
    sound = np.random.default_rng(3).normal(0, 0.1, 14 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "own.wav", sound, RATE, subtype="FLOAT")
    samples = audio_sources(checkpoint, []).samples
    for part in (samples.parity, samples.calibration, samples.evaluation):
        assert {sample["input_features"].shape for sample in part} == {(12, 1000)}
    (own,) = audio_sources(checkpoint, [str(tmp_path / "own.wav")]).samples.calibration
    expected = extractor(sound[: 10 * RATE], sampling_rate=RATE, return_tensors="np").input_features[0]
    np.testing.assert_allclose(own["input_features"], expected, atol=1e-4)


def test_texts_are_compared_on_others_than_are_calibrated_on():
    """Three, and six of other passages than those of the calibration, which are 24; no text comes twice in either."""
    numbers = {}
    checkpoint = SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace(src_vocab_size=1000)),
        tokenizer=lambda text: {"input_ids": [numbers.setdefault(text, len(numbers))] * 600},
    )
    for longest, length in ((None, 512), (40, 40), (700, 512)):
        samples = text_sources(checkpoint, longest, []).samples
        parts = [[int(sample["input_ids"][0]) for sample in part]
                 for part in (samples.parity, samples.evaluation, samples.calibration)]  # fmt: skip
        assert [len(set(part)) for part in parts] == [len(part) for part in parts] == [3, 6, 24]
        assert not {*parts[0], *parts[1]} & {*parts[2]}
        for sample in (*samples.parity, *samples.calibration, *samples.evaluation):
            assert sample["input_ids"].shape == sample["attention_mask"].shape == (length,)
            assert sample["attention_mask"].all()
