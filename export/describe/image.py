"""Describes transformers' image processor of a checkpoint by the few steps that the runtime can do too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.models.errors import first_line
from triform.runtime.bundle.media_info import RESAMPLING, ImageInfo
from triform.runtime.errors import ExportError, UnsupportedError
from triform.runtime.media.image import pixel_values, read_image

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.float32]

# Steps that ImageInfo has, and converting to RGB, which is always done.
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
# (height, width): portrait, landscape, long, smaller than any model's input, and sizes whose halves are rounded.
_SIZES = ((97, 61), (48, 131), (301, 75), (13, 17), (66, 67), (240, 321))
# Rounding of float32; a pixel that is off by one of 255 levels differs a hundred times more.
_TOLERANCE = 1e-5


def image_info(processor: Any) -> ImageInfo:
    """Describe a processor.

    Args:
        processor: an image processor of transformers.

    Raises:
        UnsupportedError: it does something that cannot be described.
    """
    settings = {**vars(processor)}
    for name, value in sorted(settings.items()):
        if name.startswith("do_") and value and name not in _STEPS:
            raise _unsupported(processor, f"has {name}")
    resize = _resize(processor)
    crop = _edges(processor.crop_size, "height", "width") if settings.get("do_center_crop") else None
    if crop is None and len(resize) == 1:
        raise _unsupported(
            processor, f"resizes to {_size_in_words(processor.size)} without cropping, to images of any shape"
        )
    if crop is not None and any(edge > resized for edge, resized in zip(crop, resize * 2, strict=False)):
        raise _unsupported(
            processor, f"crops {_size_in_words(processor.crop_size)} from images of {_size_in_words(processor.size)}"
        )
    height, width = crop or resize
    return ImageInfo(
        channels=3,
        height=height,
        width=width,
        resize=resize,
        resample=RESAMPLING[int(processor.resample)],
        crop=crop,
        rescale=float(processor.rescale_factor) if settings.get("do_rescale") else None,
        mean=_per_channel(processor.image_mean) if settings.get("do_normalize") else None,
        std=_per_channel(processor.image_std) if settings.get("do_normalize") else None,
    )


def check_pixel_values(processor: Any, info: ImageInfo) -> None:
    """Compare the runtime's pixels with the processor's, for images of several shapes.

    Raises:
        ExportError: they differ.
    """
    for image in synthetic_images(len(_SIZES), seed=2):
        try:
            expected = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0])
        except Exception as error:  # each processor raises its own
            name, reason = _name(processor), first_line(error)
            raise ExportError(f"the image processor {name} failed on an image: {reason}") from error
        pixels = pixel_values(image, info)
        if expected.shape != pixels.shape:
            raise ExportError(
                f"the image processor {_name(processor)} gives pixels of shape {expected.shape}, not {pixels.shape}; "
                "what it does is not supported"
            )
        worst = float(np.abs(pixels - expected).max())
        # Written so that NaN fails.
        if not worst <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ExportError(
                f"the image processor {_name(processor)} does more than its settings say: pixels differ by {worst:.1e}"
            )


def calibration_samples(info: ImageInfo, count: int) -> list[Pixels]:
    """Images to calibrate on, as a model's input: float32 (channels, height, width) each."""
    return [pixel_values(image, info) for image in synthetic_images(count, seed=0)]


def evaluation_samples(info: ImageInfo, count: int) -> list[Pixels]:
    """Images to compare on, other than those of `calibration_samples`, in the same form."""
    return [pixel_values(image, info) for image in synthetic_images(count, seed=1)]


def synthetic_images(count: int, seed: int) -> Iterator[Image.Image]:
    """Images made from a seed: smooth colors, edges, and noise over them."""
    generator = np.random.default_rng(seed)
    for index in range(count):
        height, width = _SIZES[index % len(_SIZES)]
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        layers = []
        for _ in range(3):
            turns, phase, base = generator.uniform(-9, 9, 2), generator.uniform(0, 6.3), generator.uniform(30, 225)
            layers.append(base + generator.uniform(10, 110) * np.sin(turns[0] * x + turns[1] * y + phase))
        canvas = np.stack(layers, axis=-1)
        for _ in range(4):
            top, left = generator.integers(0, height), generator.integers(0, width)
            canvas[top : top + height // 3 + 1, left : left + width // 3 + 1] = generator.uniform(0, 255, 3)
        canvas += generator.normal(0, generator.uniform(0, 60), canvas.shape)
        yield read_image(f"P6 {width} {height} 255 ".encode() + canvas.clip(0, 255).astype(np.uint8).tobytes())


def _resize(processor: Any) -> list[int]:
    if not getattr(processor, "do_resize", False):
        raise _unsupported(processor, "does not resize")
    size = {name: edge for name, edge in dict(processor.size).items() if edge is not None}
    if set(size) == {"shortest_edge"}:
        return [int(size["shortest_edge"])]
    if set(size) != {"height", "width"}:
        raise _unsupported(processor, f"resizes to {_size_in_words(processor.size)}")
    return _edges(size, "height", "width")


def _edges(size: Any, *names: str) -> list[int]:
    return [int(dict(size)[name]) for name in names]


def _per_channel(values: Any) -> list[float]:
    return [float(value) for value in (values if isinstance(values, list | tuple) else [values] * 3)]


def _size_in_words(size: Any) -> str:
    return ", ".join(f"{name} {edge}" for name, edge in dict(size).items() if edge is not None)


def _name(processor: Any) -> str:
    return type(processor).__name__.removesuffix("Pil")


def _unsupported(processor: Any, what: str) -> UnsupportedError:
    return UnsupportedError(f"the image processor {_name(processor)} {what}, which is not supported")
