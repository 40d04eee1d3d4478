"""Computes log-mel spectrograms by the settings of a manifest, as NeMo's models and those of JAX use them.

Sources: transformers' ParakeetFeatureExtractor and LasrFeatureExtractor.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import AudioInfo, MelInfo
from triform.runtime.media.mel_filters import band_energies, htk_filters, slaney_filters
from triform.runtime.media.normalization import normalized

_FRAMES_AT_ONCE = 500


def mel_spectrogram(samples: NDArray[np.float32], info: AudioInfo) -> NDArray[np.float32]:
    """Compute the features of an utterance.

    Args:
        samples: float32 (samples).
        info: of the kind ``mel``; its `mel` is not None.

    Returns:
        float32 (frames, feature_size): a frame for every ``hop_length`` samples, or fewer where frames are not
        centered, because only whole ones count. Of audio shorter than that there are none, if they are centered.
    """
    mel = info.mel
    if mel is None:
        raise ValueError("the settings of the spectrogram are missing")
    if mel.centered and len(samples) < info.hop_length:
        return np.zeros((0, info.width), np.float32)
    frames = _frames(_emphasized(samples, mel.preemphasis), info, mel)
    features = np.empty((len(frames), info.feature_size), np.float32)
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        part = frames[start : start + _FRAMES_AT_ONCE]
        features[start : start + _FRAMES_AT_ONCE] = _log_energies(part, info, mel)
    return normalized(features, info)


def _emphasized(samples: NDArray[np.float32], preemphasis: float) -> NDArray[np.float32]:
    if not preemphasis:
        return samples
    return np.concatenate([samples[:1], samples[1:] - np.float32(preemphasis) * samples[:-1]])


def _frames(samples: NDArray[np.float32], info: AudioInfo, mel: MelInfo) -> NDArray[np.float32]:
    """The samples under each window: float32 (frames, win_length)."""
    count = len(samples) // info.hop_length
    if mel.centered:
        # As in torch.stft, which centers the window within the points of the transform.
        before = info.n_fft // 2 - (info.n_fft - info.win_length) // 2
        after = max(0, (count - 1) * info.hop_length + info.win_length - before - len(samples))
        samples = np.pad(samples, (before, after))
    else:
        samples = np.pad(samples, (0, max(0, info.win_length - len(samples))))
    frames = sliding_window_view(samples, info.win_length)[:: info.hop_length]
    return frames[:count] if mel.centered else frames


def _log_energies(frames: NDArray[np.float32], info: AudioInfo, mel: MelInfo) -> NDArray[np.float64]:
    """The natural logarithm of the energy in each band: (frames, feature_size)."""
    spectrum = np.fft.rfft(frames * _hann(info.win_length), info.n_fft)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    if mel.filters == "slaney":
        filters = slaney_filters(info.feature_size, info.n_fft, info.sampling_rate, mel.highest).astype(np.float64)
    else:
        filters = htk_filters(info.feature_size, info.n_fft, info.sampling_rate, (mel.lowest, mel.highest))
    energies = band_energies(power, filters)
    return np.log(energies + mel.floor) if mel.floor_added else np.log(np.maximum(energies, mel.floor))


@lru_cache
def _hann(length: int) -> NDArray[np.float64]:
    """The symmetric Hann window."""
    return np.hanning(length)
