"""Spectrograms as NeMo's and JAX's models read them, by PyTorch's transform and transformers' filters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from tests.helpers.signals import RATE, SOUNDS, noise, silence
from triform.runtime.bundle.media_info import AudioInfo, MelInfo
from triform.runtime.media import mel_spectrogram as module
from triform.runtime.media.mel_spectrogram import mel_spectrogram

CENTERED = MelInfo("slaney", 0.0, 8000.0, 0.97, True, 2.0**-24, True)
WHOLE = MelInfo("htk", 125.0, 7500.0, 0.0, False, 1e-5, False)


def info(mel, **changes):
    settings = {"win_length": 400, "n_fft": 512, "hop_length": 160, "feature_size": 20} | changes
    return AudioInfo("mel", RATE, padding_value=0.0, mel=mel, **settings)


def by_pytorch(samples, about):
    """The magnitude of each frame's spectrum, in bands, as a logarithm; in float64."""
    mel = about.mel
    sound = torch.from_numpy(samples).double()
    if mel.preemphasis:
        sound = torch.cat([sound[:1], sound[1:] - mel.preemphasis * sound[:-1]])
    window = torch.hann_window(about.win_length, periodic=False, dtype=torch.float64)
    if mel.centered:
        power = torch.stft(
            sound, about.n_fft, about.hop_length, about.win_length, window, center=True, pad_mode="constant",
            return_complex=True,
        ).abs()[:, : len(sound) // about.hop_length].T ** 2  # fmt: skip
    else:
        sound = torch.nn.functional.pad(sound, (0, max(0, about.win_length - len(sound))))
        power = torch.fft.rfft(sound.unfold(0, about.win_length, about.hop_length) * window, about.n_fft).abs() ** 2
    filters = mel_filter_bank(
        about.n_fft // 2 + 1, about.feature_size, mel.lowest, mel.highest, RATE,
        norm="slaney" if mel.filters == "slaney" else None, mel_scale="slaney" if mel.filters == "slaney" else "kaldi",
        triangularize_in_mel_space=mel.filters != "slaney",
    )  # fmt: skip
    energies = power.numpy() @ filters
    return np.log(energies + mel.floor) if mel.floor_added else np.log(np.maximum(energies, mel.floor))


@pytest.mark.parametrize("length", [160, 161, 319, 320, 399, 400, 401, 560, 8000])
@pytest.mark.parametrize(
    "about",
    [
        info(CENTERED),
        info(replace(CENTERED, preemphasis=0.0, floor_added=False)),
        info(CENTERED, n_fft=400),
        info(CENTERED, win_length=333, hop_length=100),
        info(WHOLE),
        info(replace(WHOLE, preemphasis=0.5, floor_added=True)),
        info(WHOLE, n_fft=400, hop_length=399),
    ],
    ids=["usual", "plain", "as many points", "odd", "whole frames", "emphasized", "far apart"],
)
def test_the_definition(about, length):
    samples = (SOUNDS["voice"][:length] + noise(0.5)[:length] / 100).astype(np.float32)
    found, expected = mel_spectrogram(samples, about), by_pytorch(samples, about)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2e-3


@pytest.mark.parametrize(
    ("length", "centered", "whole"),
    [(0, 0, 1), (159, 0, 1), (160, 1, 1), (399, 2, 1), (400, 2, 1), (559, 3, 1), (560, 3, 2), (640, 4, 2), (720, 4, 3)],
)
def test_frames_to_the_sample(length, centered, whole):
    """One for each hop, or as many as fit whole, at least one."""
    samples = noise(1)[:length].astype(np.float32)
    assert mel_spectrogram(samples, info(CENTERED)).shape == (centered, 20)
    assert mel_spectrogram(samples, info(WHOLE)).shape == (whole, 20)


def test_what_is_computed_in_parts_is_as_if_at_once(monkeypatch):
    samples = noise(0.3).astype(np.float32)
    whole = mel_spectrogram(samples, info(CENTERED))
    for size in (1, 7, 29, 30, 31):
        monkeypatch.setattr(module, "_FRAMES_AT_ONCE", size)
        np.testing.assert_array_equal(mel_spectrogram(samples, info(CENTERED)), whole)


def test_silence_is_the_floor():
    for mel in (CENTERED, WHOLE):
        found = mel_spectrogram(silence(0.1), info(mel))
        np.testing.assert_allclose(found, np.log(mel.floor), rtol=1e-6)
    with pytest.raises(ValueError, match="the settings of the spectrogram are missing"):
        mel_spectrogram(silence(0.1), info(None))
