"""Computes a model's features from audio: a log-mel spectrogram, filter bank features, or the waveform itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array
from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.errors import UnsupportedError
from triform.runtime.media.fbank import fbank
from triform.runtime.media.log_mel import log_mel
from triform.runtime.media.mel_deltas import mel_deltas
from triform.runtime.media.mel_spectrogram import mel_spectrogram

# Added to the variance, so that silence is not divided by 0, unless the model has a floor of its own.
_VARIANCE_FLOOR = 1e-7


def audio_features(samples: Array, info: AudioInfo) -> Array:
    """Compute the features of one utterance as transformers' feature extractors do.

    Args:
        samples: float32 (samples), at ``info.sampling_rate``.
        info: the features that the model reads.

    Returns:
        float32: (feature_size, frames) for ``log_mel``, (samples) for ``waveform``, (frames, width) for all others.

    Raises:
        UnsupportedError: this version does not support the kind of features.
    """
    if info.kind not in _KINDS:
        raise UnsupportedError(f"the model takes audio of the kind {info.kind!r}, which this version lacks: upgrade")
    return _KINDS[info.kind](samples, info)


def waveform(samples: Array, info: AudioInfo) -> Array:
    """Return the samples themselves, normalized to mean 0 and variance 1 if the model needs that.

    Source: transformers' Wav2Vec2FeatureExtractor, which Moonshine uses.

    Args:
        samples: float32 (samples).
        info: of the kind ``waveform``.

    Returns:
        float32 (samples).
    """
    if not info.normalize_means or not len(samples):
        return samples
    return np.asarray(
        (samples - samples.mean()) / np.sqrt(samples.var() + (info.variance_floor or _VARIANCE_FLOOR)), np.float32
    )


def pad_features(rows: Sequence[Array], padding_value: float, multiple: int = 1) -> tuple[Array, NDArray[np.int64]]:
    """Pad utterances of different lengths to one batch.

    Args:
        rows: from `audio_features`, of a kind whose first axis is time.
        padding_value: fills shorter rows.
        multiple: of which the batch's length becomes one.

    Returns:
        float32 (batch, longest, …), and the attention mask, int64 (batch, longest): 1 where there is audio.
    """
    longest = -(-max(map(len, rows)) // multiple) * multiple
    batch = np.full((len(rows), longest, *rows[0].shape[1:]), padding_value, np.float32)
    mask = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        batch[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return batch, mask


_KINDS: dict[str, Callable[[Array, AudioInfo], Array]] = {
    "log_mel": log_mel,
    "fbank": fbank,
    "mel": mel_spectrogram,
    "mel_deltas": mel_deltas,
    "waveform": waveform,
}
