"""Spectrograms with their changes: transformers' extractor, lengths to the sample, slopes of straight lines."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.mel_stand_in import with_granite_speech
from tests.helpers.signals import RATE, SOUNDS, noise, silence, tone
from triform.runtime.bundle.media_info import AudioInfo, DeltasInfo
from triform.runtime.media import mel_deltas as module
from triform.runtime.media.mel_deltas import mel_deltas


def info(reach=2, limit=8.0, stacked=2, **changes):
    settings = {"win_length": 400, "n_fft": 512, "hop_length": 160, "feature_size": 20} | changes
    return AudioInfo(
        "mel_deltas", RATE, padding_value=0.0, stacked=stacked, deltas=DeltasInfo(reach, limit), **settings
    )


def by_definition(samples, about):
    """torch.stft's frames, reflected at both ends, one after another; bands in float64, and lines fitted by numpy."""
    count = len(samples) // about.hop_length
    count += -count % about.stacked
    samples = np.pad(samples.astype(np.float64), (0, max(0, (count - 1) * about.hop_length + 1 - len(samples))))
    window = np.zeros(about.n_fft)
    before = (about.n_fft - about.win_length) // 2
    window[before : before + about.win_length] = 0.5 - 0.5 * np.cos(
        2 * np.pi * np.arange(about.win_length) / about.win_length
    )
    padded = np.pad(samples, about.n_fft // 2, mode="reflect")
    frames = [padded[start : start + about.n_fft] * window for start in np.arange(count) * about.hop_length]
    power = np.abs(np.fft.rfft(frames)) ** 2
    highest = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, about.feature_size + 2) / 2595) - 1)
    bins = np.linspace(0, RATE / 2, about.n_fft // 2 + 1)
    bands = np.log10(
        np.maximum([np.interp(bins, corners[i : i + 3], [0, 1, 0]) @ power.T for i in range(about.feature_size)], 1e-10)
    ).T
    bands = np.maximum(bands, bands.max() - about.deltas.range) / 4 + 1
    reach = about.deltas.reach
    around = np.pad(bands, ((reach, reach), (0, 0)), mode="edge")
    slopes = [np.polyfit(np.arange(2 * reach + 1), around[i : i + 2 * reach + 1], 1)[0] for i in range(count)]
    return np.concatenate([bands, slopes], 1).reshape(count // about.stacked, -1)


@pytest.mark.parametrize("length", [600, 799, 800, 959, 960, 961, 8000])
@pytest.mark.parametrize(
    "about",
    [
        info(),
        info(stacked=1),
        info(stacked=3),
        info(reach=1),
        info(limit=2.0),
        info(n_fft=400),
        info(hop_length=100, win_length=333),
    ],
    ids=["usual", "one", "three", "near", "flat", "whole", "odd"],
)
def test_the_definition(about, length):
    samples = SOUNDS["voice"][:length] + noise(0.5)[:length] / 100
    found = mel_deltas(samples, about)
    expected = by_definition(samples, about)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4


@pytest.mark.parametrize(
    ("length", "rows"), [(0, 0), (159, 0), (160, 1), (320, 1), (479, 1), (480, 2), (640, 2), (799, 2)]
)
def test_lengths_to_the_sample(length, rows):
    """A frame for each 160 samples; silence completes the last row of two."""
    found = mel_deltas(noise(1)[:length], info())
    assert found.shape == (rows, 2 * 20 * 2) and np.isfinite(found).all()


def test_what_is_computed_in_parts_is_as_if_at_once(monkeypatch):
    whole = mel_deltas(noise(0.3), info())
    monkeypatch.setattr(module, "_FRAMES_AT_ONCE", 7)
    np.testing.assert_array_equal(mel_deltas(noise(0.3), info()), whole)


def test_silence_is_the_smallest_power():
    """log10 of 1e-10, divided by 4, and 1 more; it does not change."""
    found = mel_deltas(silence(0.1), info(stacked=1))
    assert found.shape == (10, 40)
    np.testing.assert_allclose(found[:, :20], 1 - 10 / 4, rtol=1e-6)
    assert not found[:, 20:].any()


def test_what_is_far_below_the_largest_is_raised():
    """By two of the four tens of decibels that a whole number is worth."""
    found = mel_deltas(tone(0.1), info(limit=2.0, stacked=1))[:, :20]
    assert found.max() - found.min() == pytest.approx(2 / 4, abs=1e-5)


def test_transformers_extractor(monkeypatch):
    extractor = with_granite_speech(monkeypatch)()
    from triform.export.describe.audio import audio_info

    about = audio_info(extractor)
    for length in (16000, 16100, 5001):
        samples = SOUNDS["voice"][:length]
        given = extractor(samples, sampling_rate=RATE, return_tensors="np")
        expected = np.asarray(given["input_features"])[0]
        assert np.abs(mel_deltas(samples, about) - expected[: len(expected)]).max() <= 1e-3


def test_settings_that_are_missing():
    with pytest.raises(ValueError, match="the settings of the changes are missing"):
        mel_deltas(noise(1), AudioInfo("mel_deltas", RATE, 20, 0.0, win_length=400, n_fft=512, hop_length=160))
