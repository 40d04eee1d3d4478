"""Kaldi's log-mel filter bank features, normalized over an utterance.

Source: transformers' Speech2TextFeatureExtractor without torchaudio, which follows Kaldi's ``compute-fbank-feats``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.media.mel_filters import band_energies, kaldi_filters
from triform.runtime.media.normalization import normalized

_PREEMPHASIS = 0.97
# float32's machine epsilon.
_SMALLEST_ENERGY = 2.0**-23
_FRAMES_AT_ONCE = 500


def fbank(samples: NDArray[np.float32], info: AudioInfo) -> NDArray[np.float32]:
    """Compute the features of an utterance.

    Args:
        samples: float32 (samples). Samples after the last whole frame are not used; an utterance shorter than a frame
            is padded with silence.
        info: of the kind ``fbank``.

    Returns:
        float32 (frames, feature_size), or less frames of more numbers where frames are stacked.
    """
    missing = max(0, info.win_length - len(samples))
    scaled = np.pad(samples, (0, missing)) * np.float32(info.scale)
    frames = sliding_window_view(scaled, info.win_length)[:: info.hop_length]
    features = np.empty((len(frames), info.feature_size), np.float32)
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        features[start : start + _FRAMES_AT_ONCE] = _log_energies(frames[start : start + _FRAMES_AT_ONCE], info)
    return _fitted(normalized(features, info), info)


def _fitted(features: NDArray[np.float32], info: AudioInfo) -> NDArray[np.float32]:
    """Features of the length that the model reads, shifted and scaled by fixed numbers."""
    if info.length is not None:
        missing = max(0, info.length - len(features))
        padding = np.full((missing, features.shape[1]), info.padding_value, np.float32)
        features = np.concatenate([features[: info.length], padding])
    return np.asarray((features - np.float32(info.mean)) / np.float32(info.deviation), np.float32)


def _log_energies(frames: NDArray[Any], info: AudioInfo) -> NDArray[np.float64]:
    """The natural logarithm of the energy in each band: (frames, feature_size)."""
    centered = frames.astype(np.float64)
    centered -= centered.mean(axis=1, keepdims=True)
    # The first sample of a frame does not matter: the windows begin with 0.
    emphasized = centered.copy()
    emphasized[:, 1:] -= _PREEMPHASIS * centered[:, :-1]
    window = np.hanning(info.win_length) if info.window == "hann" else _povey(info.win_length)
    spectrum = np.fft.rfft(emphasized * window, info.n_fft)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    energies = band_energies(power, kaldi_filters(info.feature_size, info.n_fft, info.sampling_rate))
    return np.asarray(np.log(np.maximum(energies, _SMALLEST_ENERGY)))


@lru_cache
def _povey(length: int) -> NDArray[np.float64]:
    """The window function that Daniel Povey designed for Kaldi."""
    return np.asarray(np.hanning(length) ** 0.85)
