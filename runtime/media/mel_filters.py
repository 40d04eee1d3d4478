"""Computes filters that sum the bins of a Fourier transform into mel bands, in the common definitions, and a window."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

# Slaney's scale is linear up to 1000 Hz, 15 mel, and from there grows by a factor of 6.4 every 27 mel.
_LINEAR_HZ, _LINEAR_MEL = 1000.0, 15.0
_LOG_STEP = np.log(6.4) / 27.0
_KALDI_LOWEST = 20.0
# OpenBLAS computes a product with at most this many multiplications on one thread.
_SINGLE_THREADED = 1 << 18

Real = TypeVar("Real", np.float32, np.float64)


@lru_cache
def slaney_filters(bands: int, n_fft: int, sampling_rate: int, highest: float) -> NDArray[np.float32]:
    """Triangles of equal area, spaced on the mel scale of Slaney's Auditory Toolbox, as Whisper uses.

    Computing them takes a quarter of a millisecond, less than reading them from a bundle would.

    Args:
        bands: number of filters.
        n_fft: points of the Fourier transform.
        sampling_rate: in Hz.
        highest: the upper end of the last triangle in Hz; the first begins at 0.

    Returns:
        float32 (bands, n_fft // 2 + 1).
    """
    mels = np.linspace(0.0, float(_hertz_to_slaney(highest)), bands + 2)
    linear = mels * _LINEAR_HZ / _LINEAR_MEL
    corners = np.where(mels < _LINEAR_MEL, linear, _LINEAR_HZ * np.exp(_LOG_STEP * (mels - _LINEAR_MEL)))
    bins = np.linspace(0, sampling_rate // 2, n_fft // 2 + 1)
    area = 2.0 / (corners[2:] - corners[:-2])
    return (_triangles(bins, corners) * area[:, None]).astype(np.float32)


@lru_cache
def kaldi_filters(bands: int, n_fft: int, sampling_rate: int) -> NDArray[np.float64]:
    """Triangles of height 1 on Kaldi's mel scale, from 20 Hz to half the sampling rate.

    Args:
        bands: number of filters.
        n_fft: points of the Fourier transform.
        sampling_rate: in Hz.

    Returns:
        float64 (bands, n_fft // 2 + 1).
    """
    ends = _hertz_to_kaldi(np.array([_KALDI_LOWEST, sampling_rate // 2]))
    bins = _hertz_to_kaldi(np.arange(n_fft // 2 + 1) * (sampling_rate / n_fft))
    return _triangles(bins, np.linspace(ends[0], ends[1], bands + 2))


@lru_cache
def htk_filters(bands: int, n_fft: int, sampling_rate: int, edges: tuple[float, float]) -> NDArray[np.float64]:
    """Triangles of height 1 on HTK's mel scale, which is Kaldi's, without the bin of 0 Hz.

    Args:
        bands: number of filters.
        n_fft: points of the Fourier transform.
        sampling_rate: in Hz.
        edges: the lower end of the first triangle and the upper end of the last, in Hz.

    Returns:
        float64 (bands, n_fft // 2 + 1).
    """
    low, high = _hertz_to_kaldi(np.array(edges))
    bins = _hertz_to_kaldi(np.arange(n_fft // 2 + 1) * (sampling_rate / n_fft))
    filters = _triangles(bins, np.linspace(low, high, bands + 2))
    filters[:, 0] = 0
    return filters


@lru_cache
def hertz_filters(bands: int, n_fft: int, sampling_rate: int) -> NDArray[np.float64]:
    """Triangles of height 1 in hertz, spaced on HTK's mel scale from 0 to half the sampling rate, as torchaudio's.

    Args:
        bands: number of filters.
        n_fft: points of the Fourier transform.
        sampling_rate: in Hz.

    Returns:
        float64 (bands, n_fft // 2 + 1).
    """
    highest = sampling_rate // 2
    mels = np.linspace(0.0, float(_hertz_to_kaldi(np.array(highest))), bands + 2)
    return _triangles(np.linspace(0, highest, n_fft // 2 + 1), _kaldi_to_hertz(mels))


@lru_cache
def periodic_hann(length: int) -> NDArray[np.float64]:
    """The periodic Hann window, as torch's: float64 (length,)."""
    return np.hanning(length + 1)[:-1]


def band_energies(power: NDArray[Real], filters: NDArray[Real]) -> NDArray[Real]:
    """Sum bins into bands.

    The pieces are so small that BLAS computes each on one thread. The threads of BLAS and of onnxruntime both wait by
    spinning; on a busy machine they slow each other down many times, and there is little to gain here.

    Args:
        power: (frames, bins).
        filters: (bands, bins).

    Returns:
        (frames, bands).
    """
    size = max(1, _SINGLE_THREADED // filters.size)
    whole = len(power) // size * size
    energies = np.empty((len(power), len(filters)), power.dtype)
    pieces = power[:whole].reshape(-1, size, power.shape[1])
    np.matmul(pieces, filters.T, out=energies[:whole].reshape(-1, size, len(filters)))
    np.matmul(power[whole:], filters.T, out=energies[whole:])
    return energies


def _triangles(bins: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The height of each triangle at each bin: (triangles, bins). Neighbors share corners."""
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - left) / (middle - left), (right - bins) / (right - middle)
    return np.maximum(0.0, np.minimum(rising, falling))


def _hertz_to_slaney(hertz: float) -> float:
    if hertz < _LINEAR_HZ:
        return hertz * _LINEAR_MEL / _LINEAR_HZ
    return float(_LINEAR_MEL + np.log(hertz / _LINEAR_HZ) / _LOG_STEP)


def _hertz_to_kaldi(hertz: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log(1.0 + hertz / 700.0))


def _kaldi_to_hertz(mels: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(700.0 * (np.exp(mels / 1127.0) - 1.0))
