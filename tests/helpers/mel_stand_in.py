"""Lets transformers' GraniteSpeech5FeatureExtractor run without torchaudio, whose functions are computed in other ways.

The filters are transformers' own, the spectrum is PyTorch's, and slopes come from numpy's fit of a line.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from numpy.lib.stride_tricks import sliding_window_view
from transformers.audio_utils import mel_filter_bank

_FOLDER = "transformers.models.granite_speech5"


class _MelSpectrogram:
    def __init__(self, sample_rate: int, n_fft: int, win_length: int, hop_length: int, n_mels: int) -> None:
        self._settings = {"n_fft": n_fft, "win_length": win_length, "hop_length": hop_length}
        highest = sample_rate / 2
        filters = mel_filter_bank(n_fft // 2 + 1, n_mels, 0.0, highest, sample_rate, norm=None, mel_scale="htk")
        self._filters = torch.from_numpy(filters)

    def __call__(self, audio: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(self._settings["win_length"], dtype=torch.float64)
        spectrum = torch.stft(audio.double(), **self._settings, window=window, return_complex=True)
        return (spectrum.abs() ** 2).transpose(-1, -2).matmul(self._filters).transpose(-1, -2).float()

    def to(self, device: str) -> _MelSpectrogram:
        return self


def _slopes(spectrogram: torch.Tensor, win_length: int) -> torch.Tensor:
    around = win_length // 2
    values = np.pad(spectrogram.numpy(), [(0, 0)] * (spectrogram.dim() - 1) + [(around, around)], mode="edge")
    windows = sliding_window_view(values, win_length, axis=-1)
    slopes = np.polyfit(np.arange(win_length), windows.reshape(-1, win_length).T, 1)[0]
    return torch.from_numpy(slopes.reshape(spectrogram.shape).astype(np.float32))


def with_granite_speech(monkeypatch: pytest.MonkeyPatch) -> type:
    """Make transformers find the extractor; returns its class."""
    module = importlib.import_module(f"{_FOLDER}.feature_extraction_granite_speech5")
    stand_in = SimpleNamespace(
        transforms=SimpleNamespace(MelSpectrogram=_MelSpectrogram), functional=SimpleNamespace(compute_deltas=_slopes)
    )
    monkeypatch.setattr(module, "torchaudio", stand_in, raising=False)
    extractor: type = module.GraniteSpeech5FeatureExtractor
    for place in (transformers, importlib.import_module(_FOLDER)):
        monkeypatch.setattr(place, extractor.__name__, extractor, raising=False)
    return extractor
