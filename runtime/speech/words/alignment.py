"""Aligns tokens with frames of the audio: dynamic time warping over the decoder's cross-attention.

Source of the method and its constants: openai/whisper's ``timing.py`` and transformers' ``generation_whisper.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Weights = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]

# Width of the median filter over the frames.
FILTER_WIDTH = 7
# The step by which a path reaches a point: in both directions, in tokens, or in time.
_BOTH, _TOKEN, _TIME = 0, 1, 2


def alignment_matrix(weights: Weights, width: int = FILTER_WIDTH) -> Weights:
    """Compute how strongly each token belongs to each frame.

    Args:
        weights: attention of some heads, float (heads, tokens, frames).
        width: of the median filter along the frames, odd.

    Returns:
        float (tokens, frames): each frame's weights shifted and scaled to mean 0 and variance 1 over the tokens,
        smoothed, and averaged over the heads.
    """
    deviation = weights.std(axis=-2, keepdims=True)
    # A frame that all tokens attend to equally gives no information.
    deviation[deviation == 0] = 1
    result: Weights = median_filter((weights - weights.mean(axis=-2, keepdims=True)) / deviation, width).mean(axis=0)
    return result


def median_filter(values: Weights, width: int) -> Weights:
    """Apply a median filter along the last axis, which is mirrored at its ends.

    Args:
        values: float (…, frames).
        width: number of neighbors, odd.

    Returns:
        float (…, frames); `values` unchanged if there are no more than half a width of frames.
    """
    half = width // 2
    if values.shape[-1] <= half:
        return values
    edges = [(0, 0)] * (values.ndim - 1) + [(half, half)]
    neighbors = sliding_window_view(np.pad(values, edges, mode="reflect"), width, axis=-1)
    result: Weights = np.partition(neighbors, half, axis=-1)[..., half]
    return result


def dynamic_time_warping(costs: Weights) -> tuple[Indices, Indices]:
    """Find the cheapest monotonic path from the first token and frame to the last ones.

    Points on a diagonal from (tokens, 0) to (0, frames) do not depend on each other, so each diagonal is one operation.

    Args:
        costs: float (tokens, frames), both at least 1.

    Returns:
        the tokens and the frames along the path, int64 (steps,) each.
    """
    tokens, frames = costs.shape
    trace = np.full((tokens + 1, frames + 1), _TIME, np.int8)
    trace[1:, 0] = _TOKEN
    # Costs of the last diagonal but one, and of the last, by token.
    before = np.full(tokens + 1, np.inf, np.float32)
    before[0] = 0
    last = np.full(tokens + 1, np.inf, np.float32)
    for diagonal in range(2, tokens + frames + 1):
        rows = np.arange(max(1, diagonal - frames), min(tokens, diagonal - 1) + 1)
        both, token, time = before[rows - 1], last[rows - 1], last[rows]
        by_both, by_token = (both < token) & (both < time), (token < both) & (token < time)
        step = np.where(by_both, _BOTH, np.where(by_token, _TOKEN, _TIME))
        least = np.where(by_both, both, np.where(by_token, token, time))
        trace[rows, diagonal - rows] = step
        before, last = last, np.full(tokens + 1, np.inf, np.float32)
        last[rows] = costs[rows - 1, diagonal - rows - 1] + least
    return _way_back(trace)


def _way_back(trace: NDArray[np.int8]) -> tuple[Indices, Indices]:
    token, frame = trace.shape[0] - 1, trace.shape[1] - 1
    points = []
    while token > 0 or frame > 0:
        points.append((token - 1, frame - 1))
        step = trace[token, frame]
        token -= step != _TIME
        frame -= step != _TOKEN
    path = np.array(points[::-1], np.int64)
    return path[:, 0], path[:, 1]


def token_frames(matrix: Weights) -> Indices:
    """Find the frame at which each token begins.

    Args:
        matrix: from `alignment_matrix`, float (tokens, frames), both at least 1.

    Returns:
        int64 (tokens,), never decreasing.
    """
    tokens, frames = dynamic_time_warping(-matrix.astype(np.float64))
    begins = np.diff(tokens, prepend=-1) > 0
    return frames[begins]
