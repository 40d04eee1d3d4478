"""What the records of images and audio say of a model's input, and what older manifests that lack a key mean."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from triform.runtime.bundle.media_info import RESAMPLING, AudioInfo, DeltasInfo, ImageInfo

WAVE = AudioInfo("waveform", 16000, 1, 0.0)


@pytest.mark.parametrize(
    ("changes", "width", "step"),
    [
        ({}, 80, 160), ({"stacked": 2}, 160, 320), ({"deltas": DeltasInfo(2, 8.0)}, 160, 160),
        ({"deltas": DeltasInfo(2, 8.0), "stacked": 2}, 320, 320),
    ],
)  # fmt: skip
def test_rows_of_features(changes, width, step):
    info = AudioInfo("fbank", 16000, 80, 0.0, win_length=400, n_fft=512, hop_length=160, **changes)
    assert (info.width, info.step) == (width, step)


def test_a_waveform_has_a_number_for_each_sample():
    assert (WAVE.width, WAVE.step) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "fixed", "less"),
    [
        ({}, False, False), ({"longest": 30.0}, False, False), ({"longest": 29.9}, False, True),
        ({"chunk_length": 30}, True, False), ({"length": 1024}, True, False),
        ({"length": 1024, "longest": 10.0}, True, False),
        ({"chunk_length": 30, "longest": 10.0}, True, False),
    ],
)  # fmt: skip
def test_how_much_is_read_at_once(changes, fixed, less):
    info = AudioInfo("log_mel", 16000, 80, 0.0, **changes)
    assert (info.fixed, info.reads_less) == (fixed, less)


def test_manifests_without_the_newer_keys():
    """They are of models for which none of it is done."""
    assert asdict(WAVE) == {
        "kind": "waveform", "sampling_rate": 16000, "feature_size": 1, "padding_value": 0.0, "chunk_length": None,
        "win_length": 0, "n_fft": 0, "hop_length": 0, "normalize_means": False, "normalize_vars": False,
        "sample_variance": False, "variance_floor": 0.0, "deviation_floor": 0.0, "stacked": 1, "window": "povey",
        "scale": 32768.0, "length": None, "mean": 0.0, "deviation": 1.0, "mel": None, "deltas": None, "multiple": 1,
        "longest": 30.0,
    }  # fmt: skip
    image = ImageInfo(3, 2, 2, [2, 2], "box", None, None, None, None)
    assert (image.resize_after_rescale, image.channel_order, image.patches) == (False, "rgb", None)


def test_filters_have_pillows_numbers():
    from PIL import Image

    assert [getattr(Image.Resampling, name.upper()).value for name in RESAMPLING] == list(range(6))
