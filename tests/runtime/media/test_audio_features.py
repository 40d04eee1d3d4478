"""Features against transformers' feature extractors, in the form these have where only numpy is installed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from transformers import (
    LasrFeatureExtractor,
    ParakeetFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Speech2TextFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from tests.helpers.signals import RATE, SOUNDS, noise, silence, tone, voice
from triform.export.describe.audio import audio_info
from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.errors import UnsupportedError
from triform.runtime.media.audio_features import audio_features, pad_features
from triform.runtime.media.log_mel import LogMelWindows, log_mel, log_mel_maximum

TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def only_numpy(monkeypatch):
    modules = "transformers.models.{0}.feature_extraction_{0}.{1}"
    monkeypatch.setattr(modules.format("whisper", "is_torch_available"), lambda: False)
    monkeypatch.setattr(modules.format("speech_to_text", "is_speech_available"), lambda: False)


def extracted(extractor, samples, **options):
    given = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np", **options)
    return given[extractor.model_input_names[0]]


def in_blocks(samples, size=7001):
    return (samples[start : start + size] for start in range(0, len(samples), size))


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("name", SOUNDS)
def test_log_mel_is_transformers(name, bands):
    extractor = WhisperFeatureExtractor(feature_size=bands)
    (expected,) = extracted(extractor, SOUNDS[name])
    found = log_mel(SOUNDS[name], audio_info(extractor))
    assert found.dtype == np.float32
    assert found.shape == (bands, 3000)
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize("length", [0, 1, 159, 160, 201, 4000, 479_000, 479_600, 479_601, 479_999, 480_000])
def test_log_mel_of_any_length(length):
    extractor = WhisperFeatureExtractor()
    samples = noise(30)[:length]
    (expected,) = extracted(extractor, samples)
    assert np.abs(log_mel(samples, audio_info(extractor)) - expected).max() <= TOLERANCE


def test_log_mel_with_other_settings():
    extractor = WhisperFeatureExtractor(40, 16000, 100, 5, 512, padding_value=0.25)
    (expected,) = extracted(extractor, SOUNDS["voice"][:20000])
    assert np.abs(log_mel(SOUNDS["voice"][:20000], audio_info(extractor)) - expected).max() <= TOLERANCE


@pytest.fixture(scope="module")
def long_sound():
    """61.3 s and a few samples; the loudest part is in the last window."""
    return np.concatenate([voice(20), silence(3), 0.01 * noise(25.3), voice(5, 200), tone(8, 2000), noise(0.0011)])


@pytest.fixture
def whole(long_sound, only_numpy):
    (features,) = extracted(WhisperFeatureExtractor(), long_sound, truncation=False, padding="longest")
    return features


INFO = audio_info(WhisperFeatureExtractor())


def test_log_mel_does_not_cut(long_sound, whole):
    found = log_mel(long_sound, INFO)
    assert found.shape == whole.shape
    assert np.abs(found - whole).max() <= TOLERANCE


def test_windows_of_a_long_file_are_slices_of_its_features(long_sound, whole):
    maximum = log_mel_maximum(in_blocks(long_sound), INFO)
    # Whisper's range is (log10 + 4) / 4.
    assert maximum == pytest.approx(4 * whole.max() - 4, abs=4 * TOLERANCE)
    windows = LogMelWindows(in_blocks(long_sound), INFO, maximum)
    for first in (0, 1, 2, 500, 500, 2999, 3000, whole.shape[1] - 3000, 5000, whole.shape[1] - 1, whole.shape[1], 9000):
        found, count = windows.window(first)
        expected = whole[:, first : first + 3000]
        assert count == expected.shape[1]
        assert found.shape == (80, 3000)
        assert np.abs(found[:, :count] - expected).max(initial=0) <= TOLERANCE
        assert not found[:, count:].any()


def test_a_running_maximum_is_of_what_was_heard(long_sound, whole):
    windows = LogMelWindows(in_blocks(long_sound), INFO)
    found, _ = windows.window(0)
    quiet, loud = whole[:, :3000].max(), whole.max()
    assert quiet < loud - 0.1
    assert windows.maximum == pytest.approx(4 * quiet - 4, abs=4 * TOLERANCE)
    # 8 in log10 is 2 here; what lies above the clamp of the whole file is the same in both.
    assert found.min() == pytest.approx(quiet - 2, abs=TOLERANCE)
    heard = whole[:, :3000] > loud - 2 + TOLERANCE
    assert np.abs(found - whole[:, :3000])[heard].max() <= TOLERANCE
    windows.window(3000), windows.window(6000)
    assert windows.maximum == pytest.approx(4 * loud - 4, abs=4 * TOLERANCE)


@pytest.mark.parametrize("length", [0, 1, 159, 160, 161, 320])
def test_windows_of_almost_nothing(length):
    windows = LogMelWindows(in_blocks(noise(1)[:length]), INFO)
    found, count = windows.window(0)
    assert count == length // 160
    assert np.isfinite(found).all()
    assert log_mel_maximum(in_blocks(silence(1)[:length]), INFO) == -10


def test_windows_do_not_go_back(long_sound):
    windows = LogMelWindows(in_blocks(long_sound), INFO)
    windows.window(1000)
    with pytest.raises(ValueError, match="first to last"):
        windows.window(997)


@pytest.mark.parametrize(
    "options", [{}, {"normalize_vars": False}, {"do_ceptral_normalize": False}, {"num_mel_bins": 40}]
)
@pytest.mark.parametrize("name", ["noise", "voice"])
def test_fbank_is_transformers(name, options):
    extractor = Speech2TextFeatureExtractor(**options)
    (expected,) = extracted(extractor, SOUNDS[name])
    found = audio_features(SOUNDS[name], audio_info(extractor))
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE


def test_fbank_of_a_tone_is_transformers():
    """Not normalized: bands that all but stay the same would be divided by nothing but rounding."""
    extractor = Speech2TextFeatureExtractor(do_ceptral_normalize=False)
    (expected,) = extracted(extractor, SOUNDS["tone"])
    assert np.abs(audio_features(SOUNDS["tone"], audio_info(extractor)) - expected).max() <= TOLERANCE


@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered:RuntimeWarning")
def test_fbank_of_silence_is_zero_where_transformers_divides_by_zero():
    extractor = Speech2TextFeatureExtractor()
    (expected,) = extracted(extractor, silence(1))
    found = audio_features(silence(1), audio_info(extractor))
    assert found.shape == expected.shape
    assert not np.isfinite(expected).any()
    assert np.abs(found).max() <= TOLERANCE


@pytest.mark.parametrize(("length", "frames"), [(0, 1), (399, 1), (400, 1), (559, 1), (560, 2)])
def test_fbank_of_any_length(length, frames):
    found = audio_features(noise(1)[:length], audio_info(Speech2TextFeatureExtractor()))
    assert found.shape == (frames, 80)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", SOUNDS)
def test_waveform_is_transformers(name, normalize):
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalize)
    (expected,) = extracted(extractor, SOUNDS[name])
    found = audio_features(SOUNDS[name], audio_info(extractor))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= TOLERANCE


@pytest.mark.parametrize("floor", [1e-7, 0.25, 3.0])
def test_waveforms_have_the_models_own_floor_of_the_variance(floor):
    samples = np.array([1, 2, 3, 6], np.float32)
    # The mean is 3, and the variance (4 + 1 + 0 + 9) / 4.
    info = replace(audio_info(Wav2Vec2FeatureExtractor(do_normalize=True)), variance_floor=floor)
    expected = np.array([-2, -1, 0, 3]) / np.sqrt(3.5 + floor)
    np.testing.assert_allclose(audio_features(samples, info), expected, rtol=1e-6)


def test_waveform_of_nothing():
    assert audio_features(silence(0), audio_info(Wav2Vec2FeatureExtractor())).shape == (0,)


@pytest.mark.parametrize(
    "extractor",
    [
        Speech2TextFeatureExtractor,
        lambda: Wav2Vec2FeatureExtractor(padding_value=0.5, return_attention_mask=True),
    ],
)
def test_batches_are_transformers(extractor):
    extractor = extractor()
    info = audio_info(extractor)
    sounds = [SOUNDS["voice"], SOUNDS["noise"], SOUNDS["noise"][:5000]]
    given = extractor(sounds, sampling_rate=RATE, padding=True, return_tensors="np")
    batch, mask = pad_features([audio_features(sound, info) for sound in sounds], info.padding_value)
    assert mask.dtype == np.int64
    assert np.array_equal(mask, given["attention_mask"])
    assert np.abs(batch - given[extractor.model_input_names[0]]).max() <= TOLERANCE


@pytest.mark.parametrize(("multiple", "length"), [(1, 5), (2, 6), (4, 8), (5, 5), (7, 7)])
def test_the_length_of_a_batch(multiple, length):
    rows = [np.ones((3, 2), np.float32), np.ones((5, 2), np.float32)]
    batch, mask = pad_features(rows, -7.0, multiple)
    assert batch.shape == (2, length, 2) and mask.shape == (2, length)
    assert mask.sum(1).tolist() == [3, 5]
    assert (batch[0, :3] == 1).all() and (batch[0, 3:] == -7).all() and (batch[1, 5:] == -7).all()


def test_an_unknown_kind_is_one_line():
    with pytest.raises(UnsupportedError, match=r"'mfcc'.*upgrade"):
        audio_features(silence(1), AudioInfo("mfcc", RATE, 13, 0.0))


@pytest.mark.parametrize("length", [801, 16000, 16239, 40001])
@pytest.mark.parametrize(
    "extractor",
    [
        SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20),
        SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20, stride=3),
        ParakeetFeatureExtractor(feature_size=20),
        ParakeetFeatureExtractor(feature_size=40, hop_length=128, win_length=333, preemphasis=0.0),
        LasrFeatureExtractor(feature_size=20),
        LasrFeatureExtractor(feature_size=40, hop_length=128, win_length=333),
    ],
    ids=lambda extractor: type(extractor).__name__,
)
def test_features_of_models_for_ctc(extractor, length):
    samples = SOUNDS["voice"][:length]
    given = extractor(samples, sampling_rate=RATE, return_tensors="np", return_attention_mask=True)
    # The frames that the model sees: the last one of some extractors is padding.
    expected = given["input_features"][0][given["attention_mask"][0].astype(bool)]
    found = audio_features(samples, audio_info(extractor))
    assert found.shape == expected.shape
    # transformers' own transform is of float32 in Parakeet's.
    assert np.abs(found - expected).max() <= 1e-3


def test_only_a_model_of_any_length_is_found_to_read_less_than_usual():
    """30 s is what is usual; a model of one length has no pieces."""
    info = AudioInfo("waveform", 16000, 1, 0.0)
    assert [replace(info, longest=longest).reads_less for longest in (30.0, 29.9)] == [False, True]
    assert not replace(info, longest=29.9, chunk_length=10).reads_less
    assert not replace(info, longest=29.9, length=160).reads_less
