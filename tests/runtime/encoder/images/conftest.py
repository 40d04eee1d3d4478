"""Bundles of models that see pictures, one export each a run, and pictures to show them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from tests.checkpoints.images import clip_folder, siglip_folder, vision_folder
from triform.export.options import ExportOptions
from triform.export.pipeline import export

MODELS = {
    "vit": lambda folder: vision_folder(folder, "vit", "ViTForImageClassification"),
    "deit": lambda folder: vision_folder(folder, "deit", "DeiTForImageClassification", num_labels=1),
    "dinov2": lambda folder: vision_folder(folder, "dinov2", "Dinov2Model"),
    "beit": lambda folder: vision_folder(folder, "beit", "BeitForImageClassification", problem_type="regression"),
    "clip": clip_folder,
    "siglip": siglip_folder,
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """From a model's name to the folders of its checkpoint and its bundle."""

    # It would be on the standard error that tests look at.
    transformers.utils.logging.disable_progress_bar()

    @cache
    def find(name: str) -> tuple[Path, Path]:
        root = tmp_path_factory.mktemp(name)
        folder = MODELS[name](root / "checkpoint")
        export(str(folder), root / "bundle", ExportOptions(quantize="none"))
        return folder, root / "bundle"

    return find


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> list[Path]:
    """More files than fit into a batch: upright, lying, small, large, gray, with colors from a palette, turned."""
    folder = tmp_path_factory.mktemp("pictures")
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
