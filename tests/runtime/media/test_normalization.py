"""Features shifted, scaled and stacked, against numpy's means and deviations."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.media.normalization import normalized

FEATURES = np.random.default_rng(0).normal(3, 2, (7, 4)).astype(np.float32)


def info(**settings):
    return AudioInfo("fbank", 16000, 4, 0.0, **settings)


def test_nothing_to_do():
    assert np.array_equal(normalized(FEATURES.copy(), info()), FEATURES)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize(("variance_floor", "deviation_floor"), [(0, 0), (0.5, 0), (0, 0.5), (0.25, 2)])
def test_means_and_deviations(sample, means, variance_floor, deviation_floor):
    exact = FEATURES.astype(np.float64)
    deviation = np.sqrt(exact.var(axis=0, ddof=int(sample)) + variance_floor) + deviation_floor
    expected = (exact - exact.mean(axis=0) * means) / deviation
    settings = info(
        normalize_means=means,
        normalize_vars=True,
        sample_variance=sample,
        variance_floor=variance_floor,
        deviation_floor=deviation_floor,
    )
    np.testing.assert_allclose(normalized(FEATURES.copy(), settings), expected, rtol=1e-5, atol=1e-6)


def test_a_band_that_never_changes_is_zero():
    features = np.array([[5, 1], [5, 3]], np.float32)
    found = normalized(features, info(normalize_means=True, normalize_vars=True))
    assert found.tolist() == [[0, -1], [0, 1]]


@pytest.mark.parametrize("frames", [2, 3])
def test_few_frames_have_the_deviation_of_a_sample(frames):
    found = normalized(FEATURES[:frames].copy(), info(normalize_vars=True, sample_variance=True))
    exact = FEATURES[:frames].astype(np.float64)
    np.testing.assert_allclose(found, exact / exact.std(axis=0, ddof=1), rtol=1e-5)


def test_a_single_frame_has_no_deviation():
    found = normalized(np.full((1, 3), 4, np.float32), info(normalize_vars=True, sample_variance=True))
    assert found.tolist() == [[4, 4, 4]]


@pytest.mark.parametrize(("stacked", "frames"), [(1, 7), (2, 3), (3, 2), (7, 1)])
def test_frames_left_over_are_dropped(stacked, frames):
    found = normalized(FEATURES.copy(), info(stacked=stacked))
    assert np.array_equal(found, FEATURES[: frames * stacked].reshape(frames, 4 * stacked))
