"""Features of a fixed length against transformers' extractor of spectrograms, in the form it has with numpy alone."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import ASTFeatureExtractor

from tests.helpers.signals import SOUNDS, noise
from triform.export.describe.audio import audio_info
from triform.runtime.media.fbank import fbank


@pytest.fixture(autouse=True)
def only_numpy(monkeypatch):
    module = "transformers.models.audio_spectrogram_transformer.feature_extraction_audio_spectrogram_transformer"
    monkeypatch.setattr(f"{module}.is_speech_available", lambda: False)


@pytest.mark.parametrize("length", [400, 559, 560, 8000, 16_400, 16_559, 16_560, 40_000])
@pytest.mark.parametrize("options", [{}, {"mean": 2.0, "std": 0.25}, {"do_normalize": False}], ids=str)
def test_spectrograms_are_cut_filled_up_shifted_and_scaled(length, options):
    # 101 frames are a second and 400 samples.
    extractor = ASTFeatureExtractor(max_length=101, num_mel_bins=24, **options)
    expected = extractor(noise(3)[:length], sampling_rate=16_000, return_tensors="np")["input_values"][0]
    found = fbank(noise(3)[:length], audio_info(extractor))
    assert found.shape == expected.shape == (101, 24) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", SOUNDS)
def test_spectrograms_of_sounds(name):
    extractor = ASTFeatureExtractor(max_length=600, num_mel_bins=40)
    expected = extractor(SOUNDS[name], sampling_rate=16_000, return_tensors="np")["input_values"][0]
    np.testing.assert_allclose(fbank(SOUNDS[name], audio_info(extractor)), expected, atol=1e-4)
