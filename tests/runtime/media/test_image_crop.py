"""The middle of an image, in the shape that is asked for, by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from triform.runtime.bundle.media_info import ImageInfo
from triform.runtime.media.image import pixel_values

# (6, 9): row r has the levels 10 * r to 10 * r + 8.
LEVELS = (10 * np.arange(6)[:, None] + np.arange(9)).astype(np.uint8)


@pytest.mark.parametrize(
    ("crop", "top", "left"),
    [([2, 4], 2, 2), ([4, 2], 1, 3), ([6, 9], 0, 0), ([5, 9], 0, 0), ([3, 8], 1, 0), ([1, 1], 2, 4)],
)
def test_rows_and_columns_around_the_middle(crop, top, left):
    image = Image.fromarray(np.stack([LEVELS, LEVELS + 60, LEVELS + 120], -1))
    info = ImageInfo(3, *crop, [6, 9], "bicubic", crop, 1 / 255, None, None)
    found = pixel_values(image, info)
    height, width = crop
    expected = LEVELS[top : top + height, left : left + width] / 255
    assert found.shape == (3, height, width)
    for channel, more in enumerate((0, 60, 120)):
        np.testing.assert_allclose(found[channel], expected + more / 255, atol=1e-6)
