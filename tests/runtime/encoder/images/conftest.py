"""Images to show to models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> list[Path]:
    """More files than fit into a batch: upright, lying, small, large, gray, with colors from a palette, turned."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(3)
    found = []
    for index, (height, width) in enumerate([(61, 47), (33, 90), (9, 12), (200, 301), (64, 64), (50, 51)] * 2):
        pixels = generator.integers(0, 256, (height // 3 + 1, width // 3 + 1, 3), np.uint8)
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        path = folder / f"{index}.{'png' if index % 2 else 'jpg'}"
        if index == 5:
            image = image.convert("L")
        if index == 7:
            image = image.convert("P")
        exif = Image.Exif()
        if index == 8:
            exif[0x0112] = 6
        image.save(path, exif=exif)
        found.append(path)
    return found
