"""Stands in for the image processors that transformers has for torchvision alone, with PyTorch's own resizing.

Import it only where there is an image processor: transformers has what it needs only where Pillow is installed.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling

from triform.runtime.errors import UnsupportedError

_MODES = {PILImageResampling.BILINEAR: "bilinear", PILImageResampling.BICUBIC: "bicubic"}


class FloatResizingProcessor(PilBackend):
    """Rescales, resizes and normalizes, in this order, so that resized pixels are not rounded to 256 levels."""

    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size: ClassVar = {"height": 224, "width": 224}
    do_resize = True
    do_rescale = True
    do_normalize = True

    def _preprocess(self, images: list[NDArray[Any]], **settings: Any) -> BatchFeature:
        return BatchFeature(data={"pixel_values": [self._pixels(image, **settings) for image in images]})

    def _pixels(self, image: NDArray[Any], **settings: Any) -> NDArray[np.float32]:
        # PyTorch computes an image's coordinates in the type of its pixels, and in float32 they are off by up to 1e-4.
        pixels = torch.from_numpy(image.astype(np.float64))
        if settings["do_rescale"]:
            pixels = pixels * settings["rescale_factor"]
        if settings["do_resize"]:
            pixels = _resized(pixels, settings["size"], settings["resample"])
        if settings["do_center_crop"]:
            pixels = torch.from_numpy(self.center_crop(pixels.numpy(), settings["crop_size"]))
        if settings["do_normalize"]:
            return self.normalize(pixels.numpy(), settings["image_mean"], settings["image_std"]).astype(np.float32)
        return pixels.numpy().astype(np.float32)


def _resized(pixels: torch.Tensor, size: Any, resample: Any) -> torch.Tensor:
    mode = _MODES.get(PILImageResampling(resample))
    if mode is None or not size.height or not size.width:
        raise UnsupportedError("images are resized as floats to a height and a width, by bilinear or bicubic filters")
    resized: torch.Tensor = torch.nn.functional.interpolate(
        pixels[None], (size.height, size.width), mode=mode, align_corners=False, antialias=True
    )[0]
    return resized
