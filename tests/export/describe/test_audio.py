"""What preprocessor_config.json says, read, checked, or refused in one line."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from transformers import (
    CohereAsrFeatureExtractor,
    EncodecFeatureExtractor,
    OmniASRFeatureExtractor,
    Speech2TextFeatureExtractor,
    SpeechT5FeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from triform.export.describe.audio import audio_info, check_audio_features, read_audio_info
from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.checked_json import build
from triform.runtime.errors import ExportError, UnsupportedError

# The content of openai/whisper-large-v3's file, but for its list of filters.
WHISPER = {
    "chunk_length": 30,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 128,
    "hop_length": 160,
    "n_fft": 400,
    "n_samples": 480000,
    "nb_max_frames": 3000,
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "WhisperProcessor",
    "return_attention_mask": False,
    "sampling_rate": 16000,
}


def test_whispers_file_is_read(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(WHISPER))
    assert read_audio_info(tmp_path) == AudioInfo("log_mel", 16000, 128, 0.0, 30, 400, 400, 160)


@pytest.mark.parametrize(
    ("extractor", "expected"),
    [
        (WhisperFeatureExtractor(), AudioInfo("log_mel", 16000, 80, 0.0, 30, 400, 400, 160)),
        (
            Speech2TextFeatureExtractor(normalize_vars=False),
            AudioInfo("fbank", 16000, 80, 0.0, None, 400, 512, 160, True, False),
        ),
        (Wav2Vec2FeatureExtractor(do_normalize=False), AudioInfo("waveform", 16000, 1, 0.0)),
        (SpeechT5FeatureExtractor(), AudioInfo("waveform", 16000, 1, 0.0)),
        (
            OmniASRFeatureExtractor(),
            AudioInfo("waveform", 16000, 1, 0.0, normalize_means=True, normalize_vars=True, variance_floor=1e-5),
        ),
    ],
)
def test_what_transformers_saves_is_read(tmp_path, extractor, expected):
    extractor.save_pretrained(tmp_path)
    info = read_audio_info(tmp_path)
    assert info == expected
    assert build(AudioInfo, json.loads(json.dumps(dataclasses.asdict(info)))) == info


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        (EncodecFeatureExtractor(), "EncodecFeatureExtractor is not supported, only WhisperFeatureExtractor"),
        (WhisperFeatureExtractor(dither=1e-4), "adds noise"),
        (CohereAsrFeatureExtractor(dither=1e-3), "adds noise"),
        (Speech2TextFeatureExtractor(sampling_rate=8000), "takes 8000 samples a second"),
    ],
)
def test_others_are_refused(tmp_path, extractor, message):
    extractor.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match=message) as caught:
        read_audio_info(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"sampling_rate": 0}, {"sampling_rate": None}, {"padding_value": "none"}])
def test_settings_that_are_none_are_named(tmp_path, settings):
    """transformers takes whatever a file says."""
    Wav2Vec2FeatureExtractor(**settings).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="the settings of the Wav2Vec2FeatureExtractor cannot be used") as caught:
        read_audio_info(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_the_file_is_one_line(tmp_path):
    with pytest.raises(ExportError, match=r"no usable preprocessor_config\.json") as caught:
        read_audio_info(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_extractor_that_does_something_else_is_noticed():
    extractor = WhisperFeatureExtractor()
    extractor.mel_filters = extractor.mel_filters * 1.01
    with pytest.raises(ExportError, match="features differ by"):
        check_audio_features(extractor, audio_info(extractor))
    extractor = WhisperFeatureExtractor()
    with pytest.raises(ExportError, match="shape"):
        check_audio_features(extractor, dataclasses.replace(audio_info(extractor), chunk_length=29))


def test_noise_below_the_floor_is_left_out():
    extractor = CohereAsrFeatureExtractor()
    floor = audio_info(extractor).mel.floor
    # The energy that white noise has in the band that hears most of it.
    window = torch.hann_window(extractor.win_length, periodic=False)
    energy = extractor.dither**2 * window.square().sum() * extractor.mel_filters.sum(1).max()
    assert 0 < energy < floor / 50
