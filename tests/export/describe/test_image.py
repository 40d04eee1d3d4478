"""Image processors as the manifest tells them: the runtime's pixels against transformers' own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image
from transformers import (
    BeitImageProcessorPil,
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    ConvNextImageProcessorPil,
    DeiTImageProcessorPil,
    EfficientNetImageProcessorPil,
    LevitImageProcessorPil,
    MobileViTImageProcessorPil,
    PoolFormerImageProcessorPil,
    PvtImageProcessorPil,
    RTDetrImageProcessorPil,
    Siglip2ImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

from triform.export.checkpoint.files.float_resizing import FloatResizingProcessor
from triform.export.describe.image import (
    calibration_samples,
    check_pixel_values,
    evaluation_samples,
    image_info,
    synthetic_images,
)
from triform.runtime.errors import ExportError, UnsupportedError
from triform.runtime.media.image import patch_inputs, pixel_values

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
        # Crops a share of a larger image, but not at 384 pixels and more.
        ConvNextImageProcessorPil(size={"shortest_edge": 30}),
        ConvNextImageProcessorPil(size={"shortest_edge": 35}, crop_pct=0.95, resample=2),
        ConvNextImageProcessorPil(),
        PoolFormerImageProcessorPil(size={"shortest_edge": 23}, crop_size=SQUARE),
        PoolFormerImageProcessorPil(size={"height": 25, "width": 25}, crop_size=SQUARE, crop_pct=0.8),
        PoolFormerImageProcessorPil(size={"height": 25, "width": 29}, crop_size=SQUARE, crop_pct=0.8),
        # Resizes by 256/224.
        LevitImageProcessorPil(size={"shortest_edge": 27}, crop_size=SQUARE),
        PvtImageProcessorPil(size={"height": 25, "width": 29}),
        # Blue comes first.
        MobileViTImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 33, "width": 29}),
        # Shifts pixels by 1, and divides by the deviation twice.
        EfficientNetImageProcessorPil(size=SQUARE, image_std=[0.5, 0.6, 0.7]),
        EfficientNetImageProcessorPil(size=SQUARE, rescale_factor=1 / 127.5, rescale_offset=True, include_top=False),
        EfficientNetImageProcessorPil(size=SQUARE, rescale_offset=True, do_normalize=False),
        EfficientNetImageProcessorPil(size=SQUARE, rescale_offset=True, do_normalize=False, include_top=False),
        RTDetrImageProcessorPil(size={"height": 25, "width": 29}),
        FloatResizingProcessor(size={"height": 25, "width": 29}),
        FloatResizingProcessor(size=SQUARE, resample=3, image_mean=[0.1, 0.2, 0.3]),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_pixels_are_those_of_the_processor(processor):
    info = image_info(processor)
    for image in synthetic_images(9, seed=11):
        expected = processor(images=image, return_tensors="np")["pixel_values"][0]
        found = pixel_values(image, info)
        assert found.dtype == np.float32
        assert found.shape == (3, info.height, info.width)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "processor",
    [
        Siglip2ImageProcessorPil(),
        Siglip2ImageProcessorPil(patch_size=3, max_num_patches=77, resample=3, image_mean=[0.1, 0.2, 0.3]),
        Siglip2ImageProcessorPil(patch_size=5, max_num_patches=1, do_normalize=False),
    ],
    ids=["as published", "other settings", "a single patch"],
)
def test_patches_are_those_of_the_processor(processor):
    info = image_info(processor)
    # See `ImageInfo`: patches have sizes of their own.
    assert (info.height, info.width, info.resize) == (0, 0, [])
    # Also as narrow, and as small, as images get.
    extremes = [Image.new("RGB", size, (9, 80, 200)) for size in ((1, 700), (900, 1), (1, 1), (64, 64))]
    for image in (*synthetic_images(9, seed=11), *extremes):
        expected = processor(images=image, return_tensors="np")
        found = patch_inputs(image, info, info.patches)
        assert list(found) == ["pixel_values", "pixel_attention_mask", "spatial_shapes"]
        for name, array in found.items():
            np.testing.assert_allclose(array, expected[name][0], atol=1e-5)
        assert 0 < np.prod(found["spatial_shapes"]) == found["pixel_attention_mask"].sum()


def test_an_image_that_is_resized_as_floats_is_not_rounded():
    """An edge between 0 and 1 of a ramp of four pixels, redone by hand for eight: bilinear at quarters of pixels."""
    processor = FloatResizingProcessor(size={"height": 1, "width": 8}, do_normalize=False)
    image = Image.fromarray(np.repeat(np.array([[0, 1, 2, 3]], np.uint8)[..., None], 3, axis=2))
    expected = np.array([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]) / 255
    info = image_info(processor)
    np.testing.assert_allclose(pixel_values(image, info)[0, 0], expected, atol=1e-7)
    np.testing.assert_allclose(processor(images=image)["pixel_values"][0][2, 0], expected, atol=1e-7)


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
        (MobileViTImageProcessorPil(), "crops height 256, width 256 from images of shortest_edge 224"),
        (Siglip2ImageProcessorPil(do_resize=False), "does not resize"),
    ],
)
def test_what_the_manifest_cannot_tell_is_refused(processor, reason):
    with pytest.raises(UnsupportedError, match=reason) as caught:
        image_info(processor)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"resample": 6}, {"resample": None}, {"resample": "bicubic"}, {"rescale_factor": None},
        {"size": {"height": 0, "width": 21}}, {"image_mean": [0.5, "0.5", None]},
    ],
)  # fmt: skip
def test_settings_that_are_none_are_named(settings):
    """transformers takes whatever a file says."""
    processor = ViTImageProcessorPil(size=SQUARE)
    for name, value in settings.items():
        setattr(processor, name, value)
    with pytest.raises(ExportError, match="the settings of the ViTImageProcessor cannot be used") as e:
        image_info(processor)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "processor",
    [
        # Cropped twice, and never normalized.
        ConvNextImageProcessorPil(size={"shortest_edge": 30}, crop_size=SQUARE, do_center_crop=True),
        MobileViTImageProcessorPil(
            size={"shortest_edge": 30}, crop_size=SQUARE, do_normalize=True, image_mean=[0.3] * 3, image_std=[0.3] * 3
        ),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_what_the_settings_do_not_tell_is_found_by_comparing(processor):
    with pytest.raises(ExportError, match="the image processor"):
        image_info(processor)


@pytest.mark.parametrize("change", [{"resample": "bilinear"}, {"crop": [224, 223], "width": 223}, {"mean": [0.5] * 3}])
def test_a_wrong_description_does_not_pass(change):
    processor = CLIPImageProcessorPil()
    with pytest.raises(ExportError, match="pixels"):
        check_pixel_values(processor, dataclasses.replace(image_info(processor), **change))


def test_calibration_and_evaluation_see_different_images():
    info = image_info(ViTImageProcessorPil(size=SQUARE))
    first, second = calibration_samples(info, 7), evaluation_samples(info, 7)
    first, second, again = (
        [sample["pixel_values"] for sample in samples] for samples in (first, second, calibration_samples(info, 7))
    )
    assert [sample.shape for sample in first] == [(3, 21, 21)] * 7
    assert min(float(np.abs(a - b).max()) for a in first for b in second) > 0.1
    np.testing.assert_array_equal(first, again)
