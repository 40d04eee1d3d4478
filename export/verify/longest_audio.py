"""Finds how long a recording may be that an encoder reads at once, by running its graph."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from triform.export.runners import EncoderRunner
from triform.export.samples.batches import Sample
from triform.export.samples.sources import Sources
from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.errors import ExportError

# Steps of the search, in seconds.
_STEP = 0.1


def no_longer_than_read(sources: Sources, encoder: EncoderRunner) -> Sources:
    """Sources of audio with the most seconds that an encoder reads at once, and calibration samples cut to that.

    Args:
        sources: of audio of any length; others are returned as they are.
        encoder: see `with_longest`.
    """
    if sources.audio is None or sources.audio.fixed:
        return sources
    info = with_longest(sources.audio, encoder, sources.samples.parity[0])
    calibration = cut_to_longest(info, sources.samples.calibration)
    return dataclasses.replace(
        sources, audio=info, samples=dataclasses.replace(sources.samples, calibration=calibration)
    )


def cut_to_longest(info: AudioInfo, samples: Iterable[Sample]) -> list[Sample]:
    """Samples of an encoder's inputs, cut to the most seconds that it reads at once."""
    rows = _rows(info, info.longest)
    return [{name: array[:rows] for name, array in sample.items()} for sample in samples]


def with_longest(info: AudioInfo, encoder: EncoderRunner, sample: Sample) -> AudioInfo:
    """How audio becomes an encoder's input, with the most seconds that its graph reads at once.

    Encoders with a table of positions read no more frames than it has; others read as much as pieces are long.

    Args:
        info: with the most seconds of a piece.
        encoder: the graph, of an encoder that reads any length.
        sample: inputs by name, without a batch axis, that it reads; their first axis is time.

    Raises:
        ExportError: it does not read the sample.
    """
    longest = _rows(info, info.longest)
    if _reads(encoder, sample, longest):
        return info
    read = min(len(array) for array in sample.values())
    encoder.run({name: array[None] for name, array in sample.items()})
    step = max(1, _rows(info, _STEP))
    while longest - read > step:
        middle = (read + longest) // 2 // info.multiple * info.multiple
        if _reads(encoder, sample, middle):
            read = middle
        else:
            longest = middle
    # Rounded down, and a frame's width less, which the framing of another recording may need.
    seconds = (read * info.step - info.win_length) / info.sampling_rate
    return dataclasses.replace(info, longest=math.floor(10 * seconds) / 10)


def _rows(info: AudioInfo, seconds: float) -> int:
    """Rows of the encoder's input for so many seconds: samples of a waveform, else frames of features."""
    return round(seconds * info.sampling_rate / info.step) // info.multiple * info.multiple


def _reads(encoder: EncoderRunner, sample: Sample, length: int) -> bool:
    longer = {name: np.resize(array, (1, length, *array.shape[1:])) for name, array in sample.items()}
    try:
        encoder.run(longer)
    except ExportError:
        return False
    return True
