"""Sound as a model hears it, whichever of the three kinds of features it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array
from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.errors import UnsupportedError
from triform.runtime.media.fbank import fbank
from triform.runtime.media.log_mel import log_mel

# Added to a variance, so that silence is not divided by 0.
_VARIANCE_FLOOR = 1e-7


def audio_features(samples: Array, info: AudioInfo) -> Array:
    """What a model is given for one utterance, computed as transformers' feature extractors compute it.

    Args:
        samples: float32 (samples), at ``info.sampling_rate``.
        info: what to do.

    Returns:
        float32: (feature_size, frames) of ``log_mel``, (frames, feature_size) of ``fbank``, (samples) of ``waveform``.

    Raises:
        UnsupportedError: a kind that this version does not know.
    """
    if info.kind not in _KINDS:
        raise UnsupportedError(f"the model takes sound of the kind {info.kind!r}, which this version lacks: upgrade")
    return _KINDS[info.kind](samples, info)


def waveform(samples: Array, info: AudioInfo) -> Array:
    """The samples themselves, shifted and scaled to mean 0 and variance 1 if the model wants that.

    Source: transformers' Wav2Vec2FeatureExtractor, whose kind Moonshine takes.

    Args:
        samples: float32 (samples).
        info: of the kind ``waveform``.

    Returns:
        float32 (samples).
    """
    if not info.normalize_means or not len(samples):
        return samples
    return np.asarray((samples - samples.mean()) / np.sqrt(samples.var() + _VARIANCE_FLOOR), np.float32)


def pad_features(rows: Sequence[Array], info: AudioInfo) -> tuple[Array, NDArray[np.int64]]:
    """Utterances of different lengths in one batch.

    Args:
        rows: what `audio_features` gave, of a kind whose first axis is time.
        info: has the value to pad with.

    Returns:
        float32 (batch, longest, …), and the attention mask, int64 (batch, longest): 1 where there is sound.
    """
    longest = max(map(len, rows))
    batch = np.full((len(rows), longest, *rows[0].shape[1:]), info.padding_value, np.float32)
    mask = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        batch[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return batch, mask


_KINDS: dict[str, Callable[[Array, AudioInfo], Array]] = {"log_mel": log_mel, "fbank": fbank, "waveform": waveform}
