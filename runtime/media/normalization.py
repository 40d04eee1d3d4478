"""Normalizes the features of an utterance over time, and stacks frames."""

from __future__ import annotations

import numpy as np

from triform.runtime.arithmetic import Array
from triform.runtime.bundle.media_info import AudioInfo


def normalized(features: Array, info: AudioInfo) -> Array:
    """Shift and scale each band, then stack frames, as the model needs it.

    A constant band, as in silence, becomes 0 except for rounding; transformers divides by its deviation of 0 unless the
    model has a floor.

    Args:
        features: float32 (frames, feature_size); may be changed.
        info: says what to do.

    Returns:
        float32 (frames // stacked, feature_size * stacked).
    """
    if info.normalize_means:
        features -= features.mean(axis=0)
    if info.normalize_vars:
        degrees = len(features) - int(info.sample_variance)
        variance = np.square(features - features.mean(axis=0)).sum(axis=0) / max(1, degrees)
        deviation = np.sqrt(variance + np.float32(info.variance_floor)) + np.float32(info.deviation_floor)
        features /= np.where(deviation > 0, deviation, np.float32(1))
    count = len(features) // info.stacked
    return features[: count * info.stacked].reshape(count, -1)
