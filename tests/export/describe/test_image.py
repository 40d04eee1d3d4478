"""Image processors as the manifest tells them: the runtime's pixels against transformers' own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from transformers import (
    BeitImageProcessorPil,
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    ConvNextImageProcessorPil,
    DeiTImageProcessorPil,
    EfficientNetImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

from triform.export.describe.image import (
    calibration_samples,
    check_pixel_values,
    evaluation_samples,
    image_info,
    synthetic_images,
)
from triform.runtime.errors import ExportError, UnsupportedError
from triform.runtime.media.image import pixel_values

SQUARE = {"height": 21, "width": 21}


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessorPil(),
        ViTImageProcessorPil(size={"height": 19, "width": 26}, resample=0),
        ViTImageProcessorPil(size=SQUARE, resample=1, do_normalize=False),
        ViTImageProcessorPil(size=SQUARE, do_rescale=False),
        ViTImageProcessorPil(size=SQUARE, do_rescale=False, do_normalize=False),
        ViTImageProcessorPil(size=SQUARE, rescale_factor=1 / 127.5, image_mean=[1, 1.1, 0.9], image_std=[1, 2, 3]),
        DeiTImageProcessorPil(size={"height": 25, "width": 29}, crop_size={"height": 22, "width": 21}, resample=4),
        CLIPImageProcessorPil(),
        CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 21, "width": 28}, resample=5),
        CLIPImageProcessorPil(size={"shortest_edge": 23}, crop_size={"height": 22, "width": 23}),
        SiglipImageProcessorPil(),
        BitImageProcessorPil(size={"shortest_edge": 40}, crop_size=SQUARE),
        BeitImageProcessorPil(),
        BeitImageProcessorPil(size={"height": 30, "width": 33}, do_center_crop=True, crop_size=SQUARE),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_pixels_are_those_of_the_processor(processor):
    info = image_info(processor)
    check_pixel_values(processor, info)
    for image in synthetic_images(9, seed=11):
        expected = processor(images=image, return_tensors="np")["pixel_values"][0]
        found = pixel_values(image, info)
        assert found.dtype == np.float32
        assert found.shape == (3, info.height, info.width)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        (ViTImageProcessorPil(do_pad=True, pad_size=SQUARE), "ViTImageProcessor has do_pad"),
        (BeitImageProcessorPil(do_reduce_labels=True), "has do_reduce_labels"),
        (ViTImageProcessorPil(do_resize=False), "does not resize"),
        (
            ViTImageProcessorPil(size={"shortest_edge": 30, "longest_edge": 40}),
            "resizes to longest_edge 40, shortest_edge 30",
        ),
        (CLIPImageProcessorPil(do_center_crop=False), "resizes to shortest_edge 224 without cropping"),
        (CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size=SQUARE), "crops height 21, width 21 from"),
    ],
)
def test_what_the_manifest_cannot_tell_is_refused(processor, reason):
    with pytest.raises(UnsupportedError, match=reason) as caught:
        image_info(processor)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "processor",
    [
        # Cut differently, and shifted before they are normalized, by settings of their own.
        ConvNextImageProcessorPil(size={"shortest_edge": 30}, crop_size=SQUARE, do_center_crop=True),
        EfficientNetImageProcessorPil(size=SQUARE, rescale_offset=True),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_what_the_settings_do_not_tell_is_found_by_comparing(processor):
    with pytest.raises(ExportError, match="the image processor"):
        check_pixel_values(processor, image_info(processor))


@pytest.mark.parametrize("change", [{"resample": "bilinear"}, {"crop": [224, 223], "width": 223}, {"mean": [0.5] * 3}])
def test_a_wrong_description_does_not_pass(change):
    processor = CLIPImageProcessorPil()
    with pytest.raises(ExportError, match="pixels"):
        check_pixel_values(processor, dataclasses.replace(image_info(processor), **change))


def test_calibration_and_evaluation_see_different_images():
    info = image_info(ViTImageProcessorPil(size=SQUARE))
    first, second = calibration_samples(info, 7), evaluation_samples(info, 7)
    assert [sample.shape for sample in first] == [(3, 21, 21)] * 7
    assert min(float(np.abs(a - b).max()) for a in first for b in second) > 0.1
    np.testing.assert_array_equal(first, calibration_samples(info, 7))
