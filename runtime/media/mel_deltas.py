"""Computes log-mel spectrograms with their changes over time, as Granite Speech 5 reads them.

Sources: transformers' GraniteSpeech5FeatureExtractor, and torchaudio's ``MelSpectrogram`` and ``compute_deltas``.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array
from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.media.mel_filters import band_energies, hertz_filters, periodic_hann

_SMALLEST_POWER = 1e-10
_FRAMES_AT_ONCE = 500


def mel_deltas(samples: Array, info: AudioInfo) -> Array:
    """Compute the features of an utterance.

    Args:
        samples: float32 (samples).
        info: of the kind ``mel_deltas``; its `deltas` is not None.

    Returns:
        float32 (rows, 2 * feature_size * stacked): each row holds `stacked` frames, one for every ``hop_length``
        samples, and each frame its bands and then their changes. Audio shorter than ``hop_length`` has no rows.
    """
    if info.deltas is None:
        raise ValueError("the settings of the changes are missing")
    count = -(-(len(samples) // info.hop_length) // info.stacked) * info.stacked
    if not count:
        return np.zeros((0, info.width), np.float32)
    frames = _frames(samples, count, info)
    bands = np.empty((count, info.feature_size), np.float32)
    for start in range(0, count, _FRAMES_AT_ONCE):
        bands[start : start + _FRAMES_AT_ONCE] = _log_energies(frames[start : start + _FRAMES_AT_ONCE], info)
    np.maximum(bands, bands.max() - np.float32(info.deltas.range), out=bands)
    bands /= np.float32(4)
    bands += np.float32(1)
    return np.concatenate([bands, _changes(bands, info.deltas.reach)], axis=1).reshape(-1, info.width)


def _frames(samples: Array, count: int, info: AudioInfo) -> Array:
    """The samples under each window, with the audio reflected at both ends: float32 (count, win_length)."""
    silence = max(0, (count - 1) * info.hop_length + 1 - len(samples))
    samples = np.pad(samples, (0, silence))
    # As in torch.stft, which centers the window within the points of the transform.
    before = info.n_fft // 2 - (info.n_fft - info.win_length) // 2
    after = max(0, (count - 1) * info.hop_length + info.win_length - before - len(samples))
    reflected = np.pad(samples, (before, after), mode="reflect")
    return sliding_window_view(reflected, info.win_length)[:: info.hop_length][:count]


def _log_energies(frames: Array, info: AudioInfo) -> NDArray[np.float64]:
    """log10 of the energy in each band: (frames, feature_size)."""
    spectrum = np.fft.rfft(frames * periodic_hann(info.win_length), info.n_fft)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    energies = band_energies(power, hertz_filters(info.feature_size, info.n_fft, info.sampling_rate))
    return np.asarray(np.log10(np.maximum(energies, _SMALLEST_POWER)))


def _changes(bands: Array, reach: int) -> Array:
    """The slope of each band at each frame, by linear regression over the frames around it."""
    count = len(bands)
    repeated = np.pad(bands, ((reach, reach), (0, 0)), mode="edge")
    slopes = np.zeros_like(bands)
    for distance in range(1, reach + 1):
        later = repeated[reach + distance : reach + distance + count]
        slopes += np.float32(distance) * (later - repeated[reach - distance : reach - distance + count])
    return slopes / np.float32(2 * sum(distance**2 for distance in range(1, reach + 1)))
