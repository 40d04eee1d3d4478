"""Mel filters against transformers' and their definitions, and sums of bins against a plain product."""

from __future__ import annotations

import numpy as np
import pytest
from transformers.audio_utils import mel_filter_bank

from triform.runtime.media.mel_filters import (
    band_energies,
    hertz_filters,
    htk_filters,
    kaldi_filters,
    periodic_hann,
    slaney_filters,
)

SIZES = [(80, 400, 16000), (128, 400, 16000), (40, 512, 8000), (64, 1024, 48000)]


def reference(bands, n_fft, rate, low, high, **settings):
    return mel_filter_bank(n_fft // 2 + 1, bands, low, high, rate, **settings).T


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("highest", [4000.0, 900.0])
def test_slaneys(size, highest):
    expected = reference(*size, 0.0, highest, norm="slaney", mel_scale="slaney")
    found = slaney_filters(*size, highest)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("size", SIZES)
def test_the_scale_of_kaldi_and_htk(size):
    half = size[2] // 2
    settings = {"mel_scale": "kaldi", "triangularize_in_mel_space": True}
    np.testing.assert_allclose(kaldi_filters(*size), reference(*size, 20.0, half, **settings), rtol=1e-7, atol=1e-9)
    expected = reference(*size, 125.0, half - 500.0, **settings)
    # Neither has anything at 0 Hz, where this triangle does not reach.
    np.testing.assert_allclose(htk_filters(*size, (125.0, half - 500.0)), expected, rtol=1e-7, atol=1e-9)
    assert (htk_filters(*size, (0.0, float(half)))[:, 0] == 0).all()


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("size", SIZES)
def test_triangles_in_hertz(size):
    # transformers rounds the scale's factor otherwise.
    expected = reference(*size, 0.0, size[2] // 2, mel_scale="kaldi")
    np.testing.assert_allclose(hertz_filters(*size), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 7, 400])
def test_the_periodic_window(length):
    """Half of 1 - cos(2 pi n / length): all of it in one period, without the last zero."""
    expected = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    np.testing.assert_allclose(periodic_hann(length), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("frames", [0, 1, 15, 16, 17, 50])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(80, 201), (3, 5), (2, 2**17 + 1)])
def test_sums_of_bins(frames, dtype, shape):
    """Pieces of 16 frames of 80 bands, all at once, and one by one."""
    generator = np.random.default_rng(frames)
    power, filters = generator.random((frames, shape[1])).astype(dtype), generator.random(shape).astype(dtype)
    found = band_energies(power, filters)
    assert (found.dtype, found.shape) == (dtype, (frames, shape[0]))
    expected = power.astype(np.float64) @ filters.astype(np.float64).T
    np.testing.assert_allclose(found, expected, rtol=2e-4 if dtype == np.float32 else 1e-10)
