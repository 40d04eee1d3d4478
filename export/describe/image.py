"""Describes transformers' image processor of a checkpoint by the few steps that the runtime can do too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.export.checkpoint.processors import settings_named
from triform.models.errors import first_line
from triform.runtime.bundle.media_info import RESAMPLING, ImageInfo, PatchesInfo
from triform.runtime.errors import ExportError, UnsupportedError
from triform.runtime.media.image import inputs_of_rgb, read_image

if TYPE_CHECKING:
    from PIL import Image

# A model's inputs for one image, by name.
Inputs = dict[str, NDArray[Any]]

# Steps that ImageInfo has, and converting to RGB, which is always done.
_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_flip_channel_order"}
# What is done only to annotations.
_TO_ANNOTATIONS = {"do_convert_annotations"}
# What a processor gives a model. A mask hides the padding of batches of several images.
_GIVEN = ("pixel_values", "pixel_mask")
# What one gives besides that cuts images into patches: where they are, and how many rows and columns.
_WITH_PATCHES = ["pixel_attention_mask", "spatial_shapes"]
# (height, width): portrait, landscape, long, smaller than any model's input, and sizes whose halves are rounded.
_SIZES = ((97, 61), (48, 131), (301, 75), (13, 17), (66, 67), (240, 321))
# Rounding of float32; a pixel that is off by one of 255 levels differs a hundred times more.
_TOLERANCE = 1e-5
# Models are evaluated on the middle 224 of 256 pixels, and some processors resize so without a setting for it.
_BORDER = 256 / 224


@dataclass(frozen=True)
class _Geometry:
    """How an image is resized and cropped, as in `ImageInfo`."""

    resize: list[int]
    crop: list[int] | None = None


def image_info(processor: Any) -> ImageInfo:
    """Describe a processor: of what its settings may mean, what gives its pixels.

    Args:
        processor: an image processor of transformers.

    Raises:
        ExportError: no description gives its pixels, or a setting is none that an image can be resized with.
        UnsupportedError: it does something that cannot be described.
    """
    with settings_named(processor):
        return _described(processor)


def _described(processor: Any) -> ImageInfo:
    further = [name for name in processor.model_input_names if name not in _GIVEN]
    if further not in ([], _WITH_PATCHES):
        raise _unsupported(processor, f"gives a model {' and '.join(further)} besides pixels")
    # Without a size of its own, padding makes several images equally large, and a single one stays as it is.
    padding = {"do_pad"} if getattr(processor, "pad_size", None) is None else set()
    for name, value in sorted(vars(processor).items()):
        if name.startswith("do_") and value and name not in _STEPS | _TO_ANNOTATIONS | padding:
            raise _unsupported(processor, f"has {name}")
    if further:
        return _patches_info(processor)
    geometries = [geometry for geometry in _geometries(processor) if _is_possible(geometry)]
    if not geometries:
        raise _unsupported(processor, _impossible(processor))
    infos = [_info(processor, geometry, floats) for floats in (False, True) for geometry in geometries]
    for info in infos:
        try:
            check_pixel_values(processor, info)
        except ExportError:
            continue
        return info
    if infos[0].resize != next(_geometries(processor)).resize:
        raise _unsupported(processor, _impossible(processor))
    check_pixel_values(processor, infos[0])
    return infos[0]


def _patches_info(processor: Any) -> ImageInfo:
    if not processor.do_resize:
        raise _unsupported(processor, "does not resize")
    patches = PatchesInfo(int(processor.patch_size), int(processor.max_num_patches))
    info = dataclasses.replace(_info(processor, _Geometry([0, 0]), floats=False), resize=[], patches=patches)
    check_pixel_values(processor, info)
    return info


def _info(processor: Any, geometry: _Geometry, floats: bool) -> ImageInfo:
    height, width = geometry.crop or geometry.resize
    mean, std = _normalization(processor)
    return ImageInfo(
        channels=3,
        height=height,
        width=width,
        resize=geometry.resize,
        resample=RESAMPLING[int(processor.resample)],
        crop=geometry.crop,
        rescale=float(processor.rescale_factor) if processor.do_rescale else None,
        mean=mean,
        std=std,
        resize_after_rescale=floats and bool(processor.do_rescale),
        channel_order="bgr" if getattr(processor, "do_flip_channel_order", False) else "rgb",
    )


def _normalization(processor: Any) -> tuple[list[float] | None, list[float] | None]:
    """The mean and deviation of each channel; both are None where nothing is normalized."""
    mean, std = ([0.0] * 3, [1.0] * 3)
    shifted = processor.do_rescale and getattr(processor, "rescale_offset", False)
    again = getattr(processor, "include_top", False)
    if not (processor.do_normalize or shifted or again):
        return None, None
    if processor.do_normalize:
        mean, std = _per_channel(processor.image_mean), _per_channel(processor.image_std)
    if shifted:
        # 1 is subtracted after rescaling.
        mean = [value + 1 for value in mean]
    if again:
        # Divided by the deviation once more.
        std = [value * by for value, by in zip(std, _per_channel(processor.image_std), strict=True)]
    return mean, std


def check_pixel_values(processor: Any, info: ImageInfo) -> None:
    """Compare the runtime's pixels or patches with the processor's, for images of several shapes.

    Raises:
        ExportError: they differ.
    """
    for image in synthetic_images(len(_SIZES), seed=2):
        found = inputs_of_rgb(image, info)
        try:
            given = processor(images=image, return_tensors="np")
            expected = [np.asarray(given[name][0]) for name in found]
        except Exception as error:  # each processor raises its own
            name, reason = _name(processor), first_line(error)
            raise ExportError(f"the image processor {name} failed on an image: {reason}") from error
        for pair in zip(expected, found.values(), strict=True):
            _check_array(processor, *pair)


def _check_array(processor: Any, expected: NDArray[Any], found: NDArray[Any]) -> None:
    if expected.shape != found.shape:
        raise ExportError(
            f"the image processor {_name(processor)} gives pixels of shape {expected.shape}, not {found.shape}; "
            "what it does is not supported"
        )
    worst = float(np.abs(found - expected).max())
    # Written so that NaN fails.
    if not worst <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError(
            f"the image processor {_name(processor)} does more than its settings say: pixels differ by {worst:.1e}"
        )


def calibration_samples(info: ImageInfo, count: int) -> list[Inputs]:
    """Images to calibrate on, as a model's inputs."""
    return [inputs_of_rgb(image, info) for image in synthetic_images(count, seed=0)]


def evaluation_samples(info: ImageInfo, count: int) -> list[Inputs]:
    """Images to compare on, other than those of `calibration_samples`, in the same form."""
    return [inputs_of_rgb(image, info) for image in synthetic_images(count, seed=1)]


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


def _geometries(processor: Any) -> Iterator[_Geometry]:
    """What a processor's settings for sizes may mean, the plainest first."""
    if not processor.do_resize:
        raise _unsupported(processor, "does not resize")
    size = {name: int(edge) for name, edge in dict(processor.size).items() if edge is not None}
    crop = _edges(processor.crop_size, "height", "width") if getattr(processor, "do_center_crop", False) else None
    if set(size) not in ({"shortest_edge"}, {"height", "width"}):
        raise _unsupported(processor, f"resizes to {_size_in_words(processor.size)}")
    edges = list(size.values()) if len(size) == 1 else _edges(size, "height", "width")
    yield _Geometry(edges, crop)
    both = edges * 2 if len(edges) == 1 else edges
    share = getattr(processor, "crop_pct", None)
    for factor in ([1 / share] if share else []) + [_BORDER]:
        larger = [int(edge * factor) for edge in edges]
        yield _Geometry(larger, crop or both)
        if len(larger) == 2 and larger[0] == larger[1]:
            yield _Geometry(larger[:1], crop or both)
    if len(edges) == 1:
        yield _Geometry(both, crop)


def _is_possible(geometry: _Geometry) -> bool:
    """Whether every image gets the same shape, and whole images are cropped."""
    if geometry.crop is None:
        return len(geometry.resize) == 2
    return all(edge <= whole for edge, whole in zip(geometry.crop, geometry.resize * 2, strict=False))


def _impossible(processor: Any) -> str:
    size = _size_in_words(processor.size)
    if getattr(processor, "do_center_crop", False):
        return f"crops {_size_in_words(processor.crop_size)} from images of {size}"
    return f"resizes to {size} without cropping, to images of any shape"


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
