"""Computes Whisper's log-mel spectrogram, also of audio that does not fit into memory.

Source: transformers' WhisperFeatureExtractor, which follows openai/whisper's ``log_mel_spectrogram``. Values more than
80 dB below the maximum are raised to that level, so that every value depends on the maximum. For audio longer than the
model reads at once, both programs use the maximum of the whole file: they compute one spectrogram (transformers with
``truncation=False``) and cut windows from it. `LogMelWindows` computes the same windows without the whole file in
memory, from a maximum that `log_mel_maximum` finds in a separate pass, in about 1/2000 of the time that the audio takes
to play. Without it, as for audio that is still being recorded, the maximum so far is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.media.mel_filters import band_energies, periodic_hann, slaney_filters
from triform.runtime.media.sound_files import Samples

Features = NDArray[np.float32]

# The upper end of Whisper's filters in Hz, whatever the sampling rate.
_HIGHEST = 8000.0
_SMALLEST_POWER = np.float32(1e-10)
# Its log10: silence.
_QUIETEST = -10.0
_RANGE = 8.0
# Frames computed at a time: they stay in the processor's cache.
_FRAMES_AT_ONCE = 250


def log_mel(samples: Samples, info: AudioInfo) -> Features:
    """Compute the spectrogram of a whole recording, padded to the length that the model reads at once.

    Args:
        samples: float32 (samples); audio longer than ``info.chunk_length`` is not truncated.
        info: of the kind ``log_mel``.

    Returns:
        float32 (feature_size, frames), with a frame for every ``hop_length`` samples.
    """
    length = max(_chunk_samples(info), len(samples))
    half = info.n_fft // 2
    # Frames after this sample contain only padding.
    used = min(length, len(samples) + 2 * half)
    padded = np.pad(samples, (0, used - len(samples)), constant_values=info.padding_value)
    energies = np.empty((info.feature_size, length // info.hop_length), np.float32)
    full = used == length
    count = energies.shape[1] if full else -(-(len(samples) + half) // info.hop_length)
    energies[:, :count] = _log_energies(np.pad(padded, half, mode="reflect"), count, info)
    if not full:
        padding = np.full(info.n_fft, info.padding_value, np.float32)
        energies[:, count:] = _log_energies(padding, 1, info)
    return _compressed(energies, float(energies.max(initial=_QUIETEST)))


def log_mel_maximum(blocks: Iterable[Samples], info: AudioInfo) -> float:
    """Compute the maximum of a whole file's spectrogram for `LogMelWindows`, in constant memory.

    Args:
        blocks: float32 (samples) each.
        info: of the kind ``log_mel``.

    Returns:
        log10 of the largest energy; -10 for silence.
    """
    windows = LogMelWindows(blocks, info)
    first, count = 0, windows.length
    while count == windows.length:
        _, count = windows.window(first)
        first += count
    return windows.maximum


class LogMelWindows:
    """Windows of a file's spectrogram, from first to last, in constant memory.

    Attributes:
        length: frames of a window.
        maximum: log10 of the largest energy so far, or the maximum that was given if that is larger.
    """

    def __init__(self, blocks: Iterable[Samples], info: AudioInfo, maximum: float = _QUIETEST) -> None:
        """Start at the file's beginning.

        Args:
            blocks: float32 (samples) each, read as windows need them.
            info: of the kind ``log_mel``.
            maximum: see `log_mel_maximum`; louder audio raises it.
        """
        self.length = _chunk_samples(info) // info.hop_length
        self.maximum = maximum
        self._info = info
        self._blocks: Iterator[Samples] | None = iter(blocks)
        self._samples = np.zeros(0, np.float32)
        # The position of `_samples` in the file.
        self._offset = 0

    def window(self, first: int) -> tuple[Features, int]:
        """Compute the window that starts at a frame.

        Frames after the end of the file are 0, as in transformers and openai/whisper for long files. For a file shorter
        than a window both pad the audio instead; see `log_mel`.

        Args:
            first: the first frame, not before that of the last call.

        Returns:
            float32 (feature_size, length), and how many of its frames are audio.

        Raises:
            ValueError: the window starts before the last one.
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
        """Drop samples before `begin`, and read on to `end` or to the end of the file."""
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
        # A view would keep the dropped samples in memory.
        self._samples = samples[drop:].copy()
        self._offset += drop


def _log_energies(padded: Samples, count: int, info: AudioInfo) -> Features:
    """log10 of the energy in each band of the first `count` frames: float32 (feature_size, count)."""
    frames = sliding_window_view(padded, info.n_fft)[:: info.hop_length]
    window = periodic_hann(info.n_fft)
    filters = slaney_filters(info.feature_size, info.n_fft, info.sampling_rate, _HIGHEST)
    energies = np.empty((info.feature_size, count), np.float32)
    for start in range(0, count, _FRAMES_AT_ONCE):
        stop = min(count, start + _FRAMES_AT_ONCE)
        # In float64: in float32 the rounding of the loudest bin hides bins 80 dB below it, and it is not faster.
        spectrum = np.fft.rfft(frames[start:stop] * window)
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        energies[:, start:stop] = band_energies(power.astype(np.float32), filters).T
    np.maximum(energies, _SMALLEST_POWER, out=energies)
    return np.log10(energies, out=energies)


def _compressed(energies: Features, maximum: float) -> Features:
    """Scale to Whisper's range, about -1 to 1.5. Changes `energies`."""
    np.maximum(energies, np.float32(maximum - _RANGE), out=energies)
    energies += np.float32(4)
    energies /= np.float32(4)
    return energies


def _chunk_samples(info: AudioInfo) -> int:
    return (info.chunk_length or 0) * info.sampling_rate
