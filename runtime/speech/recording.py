"""A recording as the windows a speech model reads, and the parts of it that are worth reading."""

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

# Of log-mel features: what 16-bit samples make of nothing. Speech that is 60 dB quieter than it could be is above.
_SILENCE = -1.0
# Frames of a pause between words.
_MOMENT = 20


class Recording(Protocol):
    """What is transcribed, such as `Audio`."""

    def blocks(self, sampling_rate: int) -> Iterator[Samples]:
        """The sound from its beginning, float32 (samples) each; more than once, but not twice at a time."""


@dataclass(frozen=True)
class SamplesRecording:
    """Samples as a recording.

    Attributes:
        samples: float32 (samples), at the model's sampling rate.
    """

    samples: Samples

    def blocks(self, sampling_rate: int) -> Iterator[Samples]:
        """All of them at once; the rate is taken to be theirs."""
        if len(self.samples):
            yield self.samples


class Windows(Protocol):
    """Windows of a recording's features, from first to last.

    Attributes:
        length: frames of a window.
    """

    length: int

    def window(self, first: int) -> tuple[Features, int]:
        """The window that starts at a frame, float32 (feature_size, length), and how many frames are the sound's."""


class ShortWindows:
    """Windows of sound that the model reads at once: the sound is padded, as transformers does, not the features.

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
    """A recording's windows, in constant memory.

    Args:
        recording: read once if it is short, else twice: first for the loudest place in it.
        info: of the kind ``log_mel``.
    """
    samples = no_longer_than((info.chunk_length or 0) * info.sampling_rate, recording.blocks(info.sampling_rate))
    if samples is not None:
        return ShortWindows(samples, info)
    maximum = log_mel_maximum(recording.blocks(info.sampling_rate), info)
    return LogMelWindows(recording.blocks(info.sampling_rate), info, maximum)


def reopened(recording: Recording, info: AudioInfo, windows: Windows) -> Windows:
    """The same windows from the first one on. Those that were open must not be used any more.

    Args:
        recording: see `open_windows`.
        info: see `open_windows`.
        windows: of that recording.
    """
    if isinstance(windows, LogMelWindows):
        return LogMelWindows(recording.blocks(info.sampling_rate), info, windows.maximum)
    return windows


def leading_silence(features: Features) -> int:
    """How many frames there are before anything is to be heard: nothing, or 80 dB less than elsewhere in the recording.

    Models make up words there.

    Args:
        features: log-mel, float32 (feature_size, frames), of the sound alone.
    """
    if not features.size:
        return 0
    heard = features.max(axis=0) > max(_SILENCE, float(features.min()))
    return int(heard.argmax()) if heard.any() else len(heard)


def quietest(features: Features, frames: int) -> int:
    """Where a window is best cut: the middle of the quietest moment among its last frames.

    Args:
        features: log-mel, float32 (feature_size, length).
        frames: how many to look at, from the window's end.
    """
    loudness = np.convolve(features.mean(axis=0)[-frames:], np.ones(_MOMENT), mode="valid")
    return int(features.shape[1] - frames + loudness.argmin() + _MOMENT // 2)


def speech_of(recording: Recording, options: VoiceActivityOptions | None, longest: float) -> Iterator[SpeechSpan]:
    """Where in a recording someone speaks, in pieces of at most `longest` seconds.

    Args:
        recording: read to its end before the first piece is given, for it cannot be read twice at a time.
        options: what is taken for speech; the defaults when None.
        longest: see above.

    Raises:
        UnsupportedError: see `require_voice_activity`.
    """
    require_voice_activity()
    found = list(speech_spans(recording.blocks(SAMPLING_RATE), options))
    return group_spans(found, longest)


def no_longer_than(limit: int, blocks: Iterable[Samples]) -> Samples | None:
    """Samples in one piece, unless there are more than `limit`."""
    parts: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
    total = 0
    for block in blocks:
        total += len(block)
        if total > limit:
            return None
        parts.append(block)
    return np.concatenate(parts)
