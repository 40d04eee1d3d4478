"""Cuts a recording into the windows that a speech model reads, and finds silence and speech in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.media.log_mel import Features, LogMelWindows, log_mel, log_mel_maximum
from triform.runtime.media.sound_files import Samples
from triform.runtime.media.voice_activity import (
    SAMPLING_RATE,
    SpeechSpan,
    VoiceActivityOptions,
    group_spans,
    require_voice_activity,
    speech_spans,
)

# The log-mel features of silent 16-bit samples are below this; those of speech at -60 dB are above.
_SILENCE = -1.0
# The length of a pause between words, in frames.
_MOMENT = 20


class Recording(Protocol):
    """A source of audio, such as `Audio`."""

    def blocks(self, sampling_rate: int) -> Iterator[Samples]:
        """Yield the audio from its beginning, float32 (samples) each. Repeatable, but one reader at a time."""


@dataclass(frozen=True)
class SamplesRecording:
    """Samples in memory as a recording.

    Attributes:
        samples: float32 (samples), at the model's sampling rate.
    """

    samples: Samples

    def blocks(self, sampling_rate: int) -> Iterator[Samples]:
        """Yield all samples at once; they must have that rate."""
        if len(self.samples):
            yield self.samples


class Windows(Protocol):
    """Windows of a recording's features, from first to last.

    Attributes:
        length: frames of a window.
    """

    length: int

    def window(self, first: int) -> tuple[Features, int]:
        """The window that starts at a frame, float32 (feature_size, length), and how many of its frames are audio."""


class ShortWindows:
    """Windows of a recording that fits into one: the audio is padded, as transformers does, not the features.

    Attributes:
        length: frames of a window.
    """

    def __init__(self, samples: Samples, info: AudioInfo) -> None:
        self._features = log_mel(samples, info)
        self._count = len(samples) // info.hop_length
        self.length = self._features.shape[1]

    def window(self, first: int) -> tuple[Features, int]:
        """See `Windows`."""
        rest = self._features[:, first:]
        return np.pad(rest, ((0, 0), (0, self.length - rest.shape[1]))), max(0, self._count - first)


def open_windows(recording: Recording, info: AudioInfo) -> Windows:
    """Open the windows of a recording, in constant memory.

    Args:
        recording: read once if it is short, else twice: first to find its maximum.
        info: of the kind ``log_mel``.
    """
    samples = no_longer_than((info.chunk_length or 0) * info.sampling_rate, recording.blocks(info.sampling_rate))
    if samples is not None:
        return ShortWindows(samples, info)
    maximum = log_mel_maximum(recording.blocks(info.sampling_rate), info)
    return LogMelWindows(recording.blocks(info.sampling_rate), info, maximum)


def reopened(recording: Recording, info: AudioInfo, windows: Windows) -> Windows:
    """Open the same windows again from the first one on. The previous ones must not be used any more.

    Args:
        recording: see `open_windows`.
        info: see `open_windows`.
        windows: of that recording.
    """
    if isinstance(windows, LogMelWindows):
        return LogMelWindows(recording.blocks(info.sampling_rate), info, windows.maximum)
    return windows


def leading_silence(features: Features) -> int:
    """Count the silent frames at the beginning: digital silence, or 80 dB below the loudest place in the recording.

    Models hallucinate words there.

    Args:
        features: log-mel, float32 (feature_size, frames), of the audio alone.
    """
    if not features.size:
        return 0
    audible = features.max(axis=0) > max(_SILENCE, float(features.min()))
    return int(audible.argmax()) if audible.any() else len(audible)


def quietest(features: Features, frames: int) -> int:
    """Find the frame at which a window is best cut: the middle of the quietest moment among its last frames.

    Args:
        features: log-mel, float32 (feature_size, length).
        frames: how many frames at the window's end to search.
    """
    loudness = np.convolve(features.mean(axis=0)[-frames:], np.ones(_MOMENT), mode="valid")
    return int(features.shape[1] - frames + loudness.argmin() + _MOMENT // 2)


def speech_of(recording: Recording, options: VoiceActivityOptions | None, longest: float) -> Iterator[SpeechSpan]:
    """Find the speech in a recording, in spans of at most `longest` seconds.

    Args:
        recording: read to its end before this returns, because it cannot be read twice at once.
        options: of the voice activity detection; the defaults when None.
        longest: in seconds.

    Returns:
        an iterator of spans, from first to last.

    Raises:
        UnsupportedError: see `require_voice_activity`.
    """
    require_voice_activity()
    spans = list(speech_spans(recording.blocks(SAMPLING_RATE), options))
    return group_spans(spans, longest)


def no_longer_than(limit: int, blocks: Iterable[Samples]) -> Samples | None:
    """Join blocks of samples; None if there are more than `limit` samples."""
    parts: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
    total = 0
    for block in blocks:
        total += len(block)
        if total > limit:
            return None
        parts.append(block)
    return np.concatenate(parts)
