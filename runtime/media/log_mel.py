"""Whisper's log-mel spectrogram, of sound that fits in memory and of sound that does not.

Source: transformers' WhisperFeatureExtractor, after openai/whisper's ``log_mel_spectrogram``. Values below the loudest
one by more than 80 dB are raised to that, so that every value depends on which loudest one is meant. For sound longer
than the model reads at once both programs take the whole file's: they compute one spectrogram (transformers with
``truncation=False``) and cut windows from it. `LogMelWindows` gives the same windows without the whole file in memory,
if it is told the file's maximum, which `log_mel_maximum` finds in a pass of its own, about 1/2000 of the time the sound
takes to play. Without it the maximum so far is used, which is all that sound not yet heard allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.media.mel_filters import band_energies, slaney_filters
from triform.runtime.media.sound_files import Samples

Features = NDArray[np.float32]

# Where Whisper's filters end, whatever the sampling rate, in Hz.
_HIGHEST = 8000.0
_SMALLEST_POWER = np.float32(1e-10)
# log10 of it: silence.
_QUIETEST = -10.0
_RANGE = 8.0
# So many frames at once stay in the processor's cache.
_FRAMES_AT_ONCE = 250


def log_mel(samples: Samples, info: AudioInfo) -> Features:
    """The spectrogram of sound as a whole, what is shorter than the model reads at once being padded.

    Args:
        samples: float32 (samples); longer than ``info.chunk_length`` it is not cut.
        info: of the kind ``log_mel``.

    Returns:
        float32 (feature_size, frames), a frame for every ``hop_length`` samples.
    """
    wanted = max(_chunk_samples(info), len(samples))
    half = info.n_fft // 2
    # From here on frames see nothing but padding.
    heard = min(wanted, len(samples) + 2 * half)
    padded = np.pad(samples, (0, heard - len(samples)), constant_values=info.padding_value)
    energies = np.empty((info.feature_size, wanted // info.hop_length), np.float32)
    full = heard == wanted
    count = energies.shape[1] if full else -(-(len(samples) + half) // info.hop_length)
    energies[:, :count] = _log_energies(np.pad(padded, half, mode="reflect"), count, info)
    if not full:
        padding = np.full(info.n_fft, info.padding_value, np.float32)
        energies[:, count:] = _log_energies(padding, 1, info)
    return _compressed(energies, float(energies.max(initial=_QUIETEST)))


def log_mel_maximum(blocks: Iterable[Samples], info: AudioInfo) -> float:
    """The maximum of a whole file's spectrogram, for `LogMelWindows`, in constant memory.

    Args:
        blocks: float32 (samples) each.
        info: of the kind ``log_mel``.

    Returns:
        log10 of the largest energy; -10 of silence.
    """
    windows = LogMelWindows(blocks, info)
    first, found = 0, windows.length
    while found == windows.length:
        _, found = windows.window(first)
        first += found
    return windows.maximum


class LogMelWindows:
    """Windows of a file's spectrogram, from first to last, in constant memory.

    Attributes:
        length: frames of a window.
        maximum: log10 of the largest energy so far, or what was given if that is larger.
    """

    def __init__(self, blocks: Iterable[Samples], info: AudioInfo, maximum: float = _QUIETEST) -> None:
        """Start at the file's beginning.

        Args:
            blocks: float32 (samples) each, read as windows need them.
            info: of the kind ``log_mel``.
            maximum: see `log_mel_maximum`; what is heard raises it.
        """
        self.length = _chunk_samples(info) // info.hop_length
        self.maximum = maximum
        self._info = info
        self._blocks: Iterator[Samples] | None = iter(blocks)
        self._samples = np.zeros(0, np.float32)
        # Where in the file `_samples` begins.
        self._offset = 0

    def window(self, first: int) -> tuple[Features, int]:
        """The window that starts at a frame.

        Frames after the file's end are 0, as transformers and openai/whisper pad windows of long files; of a file that
        is shorter than a window they pad the sound instead, for which see `log_mel`.

        Args:
            first: not smaller than the last time.

        Returns:
            float32 (feature_size, length), and how many of its frames are the file's.

        Raises:
            ValueError: the window lies before the last one.
        """
        hop, half = self._info.hop_length, self._info.n_fft // 2
        begin, end = first * hop - half, (first + self.length - 1) * hop + half
        if max(0, begin) < self._offset:
            raise ValueError("windows must be asked for from first to last")
        self._hold(max(0, begin), end)
        known = self._offset + len(self._samples)
        count = self.length if end <= known else max(0, min(self.length, known // hop - first))
        features = np.zeros((self._info.feature_size, self.length), np.float32)
        if count:
            edges = (max(0, -begin), max(0, first * hop + (count - 1) * hop + half - known))
            energies = _log_energies(np.pad(self._samples, edges, mode="reflect"), count, self._info)
            self.maximum = max(self.maximum, float(energies.max()))
            features[:, :count] = _compressed(energies, self.maximum)
        return features, count

    def _hold(self, begin: int, end: int) -> None:
        """Forget samples before `begin`, and read on to `end` or the file's end."""
        parts = [self._samples]
        known = self._offset + len(self._samples)
        while self._blocks is not None and known < end:
            block = next(self._blocks, None)
            if block is None:
                self._blocks = None
                break
            parts.append(block)
            known += len(block)
            if known <= begin:
                parts, self._offset = [], known
        samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        drop = min(begin - self._offset, len(samples))
        # A copy, or what is forgotten would stay in memory.
        self._samples = samples[drop:].copy()
        self._offset += drop


def _log_energies(padded: Samples, count: int, info: AudioInfo) -> Features:
    """log10 of the energy in each band of the first `count` frames: float32 (feature_size, count)."""
    frames = sliding_window_view(padded, info.n_fft)[:: info.hop_length]
    window = _hann(info.n_fft)
    filters = slaney_filters(info.feature_size, info.n_fft, info.sampling_rate, _HIGHEST)
    energies = np.empty((info.feature_size, count), np.float32)
    for start in range(0, count, _FRAMES_AT_ONCE):
        stop = min(count, start + _FRAMES_AT_ONCE)
        # Of float64: float32's rounding of the loudest bin would cover bins that are 80 dB below it, and is no faster.
        spectrum = np.fft.rfft(frames[start:stop] * window)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        energies[:, start:stop] = band_energies(power.astype(np.float32), filters).T
    np.maximum(energies, _SMALLEST_POWER, out=energies)
    return np.log10(energies, out=energies)


def _compressed(energies: Features, maximum: float) -> Features:
    """Whisper's range, about -1 to 1.5. Changes `energies`."""
    np.maximum(energies, np.float32(maximum - _RANGE), out=energies)
    energies += np.float32(4)
    energies /= np.float32(4)
    return energies


@lru_cache
def _hann(length: int) -> NDArray[np.float64]:
    """Hann's window, periodic."""
    return np.hanning(length + 1)[:-1]


def _chunk_samples(info: AudioInfo) -> int:
    return (info.chunk_length or 0) * info.sampling_rate
