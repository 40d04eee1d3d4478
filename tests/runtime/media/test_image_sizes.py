"""Sizes of images and of what is cut from them, against transformers' functions and by arithmetic."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from transformers.image_transforms import get_resize_output_image_size
from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

from triform.runtime.bundle.media_info import ImageInfo, PatchesInfo
from triform.runtime.errors import InputError
from triform.runtime.media.image import image_inputs, inputs_of_rgb

SIZES = [(20, 20), (20, 33), (33, 20), (7, 90), (90, 7), (1, 1), (640, 480), (481, 641)]


def ramp(height, width):
    """An image whose pixels differ from their neighbors."""
    pixels = np.arange(height * width * 3, dtype=np.int64).reshape(height, width, 3)
    return Image.fromarray((pixels * 7 % 251).astype(np.uint8))


def patched(size, count):
    return ImageInfo(3, 0, 0, [], "bilinear", None, 1 / 255, None, None, patches=PatchesInfo(size, count))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("patch", "count"), [(4, 12), (3, 77), (16, 256), (5, 1), (2, 100)])
def test_patches_of_the_largest_scale_at_which_there_are_not_too_many(size, patch, count):
    height, width = get_image_size_for_max_num_patches(*size, patch, count)
    inputs = inputs_of_rgb(ramp(*size), patched(patch, count))
    rows, columns = inputs["spatial_shapes"].tolist()
    assert (rows * patch, columns * patch) == (height, width)
    assert rows * columns <= count
    assert inputs["pixel_attention_mask"].tolist() == [1] * (rows * columns) + [0] * (count - rows * columns)
    assert inputs["pixel_values"].shape == (count, patch * patch * 3)
    assert not inputs["pixel_values"][rows * columns :].any()


def test_patches_are_cut_row_by_row():
    # 2 by 3 patches of 2 by 2 pixels, which fill the image as it is: of six patches none is left over.
    image = ramp(4, 6)
    found = inputs_of_rgb(image, patched(2, 6))["pixel_values"]
    pixels = np.asarray(image) / 255
    expected = [
        pixels[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(-1) for row in (0, 1) for column in (0, 1, 2)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES[:-2])
@pytest.mark.parametrize("shortest", [1, 8, 15])
def test_the_shortest_edge_decides_the_other(size, shortest):
    height, width = get_resize_output_image_size(
        np.zeros((*size, 3)), shortest, default_to_square=False, input_data_format="channels_last"
    )
    info = ImageInfo(3, height, width, [shortest], "nearest", None, None, None, None)
    assert inputs_of_rgb(ramp(*size), info)["pixel_values"].shape == (3, height, width)


def test_an_image_from_a_file_from_its_content_and_open(tmp_path):
    info = ImageInfo(3, 5, 5, [5, 5], "nearest", None, None, None, None)
    image = ramp(5, 5)
    image.save(tmp_path / "image.png")
    expected = np.asarray(image).transpose(2, 0, 1)
    path = tmp_path / "image.png"
    for source in (path, str(path), path.read_bytes(), image):
        assert image_inputs(source, info)["pixel_values"].tolist() == expected.tolist()


def test_an_image_that_would_become_enormous_is_named_by_its_file(tmp_path):
    # Its shortest edge of one pixel becomes 10,000, and the other 100,000,000.
    image, info = (
        Image.new("RGB", (1, 10_000)),
        ImageInfo(3, 10_000, 10_000, [10_000], "nearest", None, None, None, None),
    )
    image.save(tmp_path / "narrow.png")
    message = "an image of 1x10000 pixels is too narrow to resize to 10000"
    with pytest.raises(InputError, match=f"^{message}$"):
        image_inputs(image, info)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / 'narrow.png'))}: {message}$"):
        image_inputs(tmp_path / "narrow.png", info)
    content = io.BytesIO()
    image.save(content, "PNG")
    with pytest.raises(InputError, match=f"^{message}$"):
        image_inputs(content.getvalue(), info)
