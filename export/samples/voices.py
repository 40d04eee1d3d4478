"""Speech to check and calibrate speech models with: the clips in `data/speech` and in `data/english`.

The first are sentences in twenty-two languages and several voices, spoken by espeak-ng. Noise, silence and loudness are
added here. The others are English, spoken by Flite, and easier to understand; nothing is calibrated on them.
`benchmarks/calibration_speech.py` makes both. What is calibrated on is never compared on: the two have different clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import ExportError
from triform.runtime.media.audio import open_audio, require_audio

Samples = NDArray[np.float32]
# Of the clips in the order of their names, every fourth is for comparing.
_EVERY = 4
# Between two sentences, in seconds.
_PAUSES = (0.1, 1.5)
# The strongest sample of a sentence, and how far below it the noise of a recording is, in decibels.
_PEAKS, _NOISE_BELOW = (0.05, 0.9), (5.0, 60.0)
# Between two sentences whose words are counted, in seconds; and how far below them the noise is, in decibels.
_PAUSE, _SOFT_NOISE_BELOW = 0.6, 20.0


def speech(
    purpose: Literal["calibration", "evaluation"], seconds: float, sampling_rate: int, seed: int
) -> NDArray[np.float32]:
    """Sentences of several voices and languages with pauses between them, and noise over all.

    Args:
        purpose: chooses the clips.
        seconds: how long.
        sampling_rate: in Hz.
        seed: chooses the order of the sentences, their loudness, and the noise.

    Returns:
        float32 (samples,) in [-1, 1].

    Raises:
        UnsupportedError: the packages that read audio are not installed.
    """
    require_audio()
    generator = np.random.default_rng(seed)
    result = np.zeros(round(seconds * sampling_rate))
    clips, start = _clips(purpose, sampling_rate), 0
    # Every sentence comes once before any comes again; none is shorter than a second.
    rounds = [generator.permutation(len(clips)) for _ in range(0, round(seconds) + 1, len(clips))]
    for index in np.concatenate(rounds):
        start += round(generator.uniform(*_PAUSES) * sampling_rate)
        if start >= len(result):
            break
        part = clips[index][: len(result) - start]
        result[start : start + len(part)] = generator.uniform(*_PEAKS) / np.abs(clips[index]).max() * part
        start += len(part)
    loudest = max(float(np.abs(result).max()), _PEAKS[0])
    result += loudest * 10 ** (-generator.uniform(*_NOISE_BELOW) / 20) * _noise(len(result), generator)
    return result.clip(-1, 1).astype(np.float32)


def sentences(sampling_rate: int, window: float, *, english: bool) -> list[Samples]:
    """Sentences to count the words of, with a little noise: English ones, and those in other languages to compare on.

    Args:
        sampling_rate: in Hz.
        window: as many seconds are heard at once as it takes for less: English sentences are joined up to that.
        english: leave out other languages.

    Returns:
        float32 (samples,) each, in [-1, 1].

    Raises:
        UnsupportedError: the packages that read audio are not installed.
    """
    require_audio()
    spoken = list(_joined(_clips_in("english", sampling_rate), round(window * sampling_rate), sampling_rate))
    heard = spoken if english else [*spoken, *_clips("evaluation", sampling_rate)]
    return [_with_noise(row, np.random.default_rng(seed)) for seed, row in enumerate(heard)]


def _with_noise(samples: Samples, generator: np.random.Generator) -> Samples:
    loudness = float(np.abs(samples).max()) * 10 ** (-_SOFT_NOISE_BELOW / 20)
    return (samples + loudness * _noise(len(samples), generator)).clip(-1, 1).astype(np.float32)


def _joined(clips: Iterable[Samples], longest: int, sampling_rate: int) -> Iterator[Samples]:
    """Clips one after another, as long as they fit; each at least by itself."""
    pause = np.zeros(round(_PAUSE * sampling_rate), np.float32)
    row = np.zeros(0, np.float32)
    for clip in clips:
        if len(row) and len(row) + len(pause) + len(clip) > longest:
            yield row
            row = np.zeros(0, np.float32)
        row = np.concatenate([row, pause, clip]) if len(row) else clip
    yield row


def noise(seconds: float, sampling_rate: int, seed: int) -> NDArray[np.float32]:
    """Soft noise in which nobody speaks: float32 (samples,)."""
    generator = np.random.default_rng(seed)
    return (0.01 * _noise(round(seconds * sampling_rate), generator)).astype(np.float32)


def _noise(length: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Noise with the same energy in every octave, at most 1."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), length)
    return pink / max(float(np.abs(pink).max()), 1e-12)


def _clips(purpose: Literal["calibration", "evaluation"], sampling_rate: int) -> list[Samples]:
    clips = _clips_in("speech", sampling_rate)
    return [clip for index, clip in enumerate(clips) if (index % _EVERY == 0) == (purpose == "evaluation")]


@cache
def _clips_in(folder: str, sampling_rate: int) -> list[Samples]:
    """The clips in a folder, in the order of their names."""
    files = resources.files("triform.export.samples").joinpath("data", folder).iterdir()
    return [_read(file, sampling_rate) for file in sorted(files, key=lambda file: file.name)]


def _read(file: Traversable, sampling_rate: int) -> Samples:
    with open_audio(file.read_bytes(), _refuse) as audio:
        return np.concatenate(list(audio.blocks(sampling_rate)))


def _refuse(warning: str) -> None:
    raise ExportError(f"a recording that comes with triform is damaged ({warning}); install triform again")
