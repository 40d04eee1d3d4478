"""Reads images safely, and resizes, crops, normalizes and cuts them for a model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import ImageInfo, PatchesInfo
from triform.runtime.errors import InputError, pass_on
from triform.runtime.extras import missing_extra

if TYPE_CHECKING:
    from PIL import Image

    # The path of a file, its content, or an open Pillow image.
    ImageInput = str | Path | bytes | Image.Image

# Formats that Pillow reads itself. Some of its other readers start programs, and many are rarely used.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF")
# Between which transformers looks for the scale of an image that is cut into patches, and how exactly.
_SMALLEST_SCALE, _LARGEST_SCALE, _SCALE_STEP = 1e-6, 100.0, 1e-5


def require_pillow() -> None:
    """Check that images can be read.

    Raises:
        UnsupportedError: Pillow is not installed.
    """
    if find_spec("PIL") is None:
        raise missing_extra("images need Pillow", "image")


def read_image(source: str | Path | bytes) -> Image.Image:
    """Read an image, rotated by its EXIF orientation; of an animation, the first frame.

    Transparency is dropped and not blended with a background, as in transformers' pipelines. Pixels of 16 bits keep
    their upper 8 bits, in gray as in color; transformers turns almost all such gray pixels white.

    Args:
        source: the path of a file, or its content.

    Returns:
        an RGB image.

    Raises:
        InputError: the file cannot be read, is not an image, is damaged, or is so large that it may be an attack.
        UnsupportedError: Pillow is not installed.
    """
    require_pillow()
    from PIL import Image

    name = "the image" if isinstance(source, bytes) else str(source)
    with _one_line(name):
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS) as opened:
            opened.load()
            return as_rgb(opened)


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert a Pillow image to RGB, rotated by its EXIF orientation; see `read_image`.

    Raises:
        InputError: its pixels have no known range.
    """
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.mode in ("I", "F"):
        raise InputError("its pixels have 32 bits, of no known range; save it with 8 or 16 bits")
    return upright.convert("RGB")


def image_inputs(image: ImageInput, info: ImageInfo) -> dict[str, NDArray[Any]]:
    """Read an image and compute a model's inputs from it; see `read_image` and `inputs_of_rgb`.

    Args:
        image: the path of a file, its content, or an open Pillow image.
        info: what the model reads.

    Raises:
        InputError: the image cannot be read or used; the message names its file.
        UnsupportedError: Pillow is not installed.
    """
    if not isinstance(image, str | Path | bytes):
        return inputs_of_rgb(as_rgb(image), info)
    opened = read_image(image)
    try:
        return inputs_of_rgb(opened, info)
    except InputError as error:
        raise InputError(str(error) if isinstance(image, bytes) else f"{image}: {error}") from None


def inputs_of_rgb(image: Image.Image, info: ImageInfo) -> dict[str, NDArray[Any]]:
    """Compute a model's inputs from an image in RGB, by their names and without the axis of the batch.

    Args:
        image: in RGB.
        info: what the model reads.

    Returns:
        what `pixel_values` or `patch_inputs` returns.

    Raises:
        InputError: see `pixel_values`.
    """
    if info.patches is not None:
        return patch_inputs(image, info, info.patches)
    return {"pixel_values": pixel_values(image, info)}


def patch_inputs(image: Image.Image, info: ImageInfo, patches: PatchesInfo) -> dict[str, NDArray[Any]]:
    """Resize an image to whole patches and cut it into them, row by row.

    Source: transformers' Siglip2ImageProcessor.

    Args:
        image: in RGB.
        info: what the model reads.
        patches: of `info`.

    Returns:
        ``pixel_values``, float32 (count, size * size * channels), with zeros after the last patch;
        ``pixel_attention_mask``, int64 (count), 1 at patches; ``spatial_shapes``, int64 (2), rows and columns of
        patches.
    """
    from PIL import Image

    size = patches.size
    rows, columns = _grid(image.height, image.width, patches)
    resized = image.resize((columns * size, rows * size), Image.Resampling[info.resample.upper()])
    values = _normalized(_rescaled(np.asarray(resized), info.rescale), info)
    cut = values.reshape(rows, size, columns, size, info.channels).swapaxes(1, 2).reshape(rows * columns, -1)
    filled = np.zeros((patches.count, cut.shape[1]), np.float32)
    filled[: len(cut)] = cut
    mask = (np.arange(patches.count) < len(cut)).astype(np.int64)
    return {"pixel_values": filled, "pixel_attention_mask": mask, "spatial_shapes": np.array([rows, columns], np.int64)}


def _grid(height: int, width: int, patches: PatchesInfo) -> tuple[int, int]:
    """The rows and columns of an image's patches, at the largest scale at which there are not too many.

    The scale is found by halving an interval, as in transformers: where it stops decides how some edges are rounded.
    """

    def at(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(edge * scale / patches.size)) for edge in (height, width))
        return rows, columns

    low, high = _SMALLEST_SCALE, _LARGEST_SCALE
    while high - low >= _SCALE_STEP:
        middle = (low + high) / 2
        fits = math.prod(at(middle)) <= patches.count
        low, high = (middle, high) if fits else (low, middle)
    return at(low)


def pixel_values(image: Image.Image, info: ImageInfo) -> NDArray[np.float32]:
    """Compute a model's input from an image, as transformers' image processors do with Pillow and numpy.

    Args:
        image: in RGB.
        info: what the model reads.

    Returns:
        float32 (channels, height, width).

    Raises:
        InputError: the image is so narrow that resizing its shortest edge would make it enormous.
    """
    values: NDArray[Any]
    if info.resize_after_rescale:
        values = _resized_channels(_rescaled(np.asarray(image), info.rescale), info)
    else:
        values = _rescaled(np.asarray(_resized(image, info)), info.rescale)
    if info.crop is not None:
        # A border of an odd number of pixels is rounded as in transformers.
        top, left = ((have - want) // 2 for have, want in zip(values.shape, info.crop, strict=False))
        values = values[top : top + info.crop[0], left : left + info.crop[1]]
    return np.ascontiguousarray(_normalized(values, info).transpose(2, 0, 1))


def _normalized(values: NDArray[Any], info: ImageInfo) -> NDArray[Any]:
    """Pixels (height, width, channels), shifted and scaled, in the order of channels that the model reads."""
    if info.mean is not None and info.std is not None:
        values = (values - np.array(info.mean, np.float32)) / np.array(info.std, np.float32)
    return values[..., ::-1] if info.channel_order == "bgr" else values


def _rescaled(pixels: NDArray[np.uint8], rescale: float | None) -> NDArray[np.float32]:
    return (pixels if rescale is None else pixels.astype(np.float64) * rescale).astype(np.float32)


def _resized_channels(values: NDArray[np.float32], info: ImageInfo) -> NDArray[np.float32]:
    """Resize each channel of floats (height, width, channels) by itself, as Pillow has no image of several."""
    from PIL import Image

    return np.stack(
        [np.asarray(_resized(Image.fromarray(channel), info)) for channel in np.moveaxis(values, -1, 0)], -1
    )


def _resized(image: Image.Image, info: ImageInfo) -> Image.Image:
    from PIL import Image

    height, width = _resized_size(image, info.resize)
    if height * width > (Image.MAX_IMAGE_PIXELS or float("inf")):
        edges = "x".join(map(str, info.resize))
        raise InputError(f"an image of {image.width}x{image.height} pixels is too narrow to resize to {edges}")
    return image.resize((width, height), Image.Resampling[info.resample.upper()])


def _resized_size(image: Image.Image, resize: list[int]) -> tuple[int, int]:
    """The height and width to resize to. The longer edge is truncated to whole pixels, as in transformers."""
    if len(resize) == 2:
        return resize[0], resize[1]
    short = resize[0]
    long = int(short * max(image.size) / min(image.size))
    return (long, short) if image.width <= image.height else (short, long)


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn every exception of reading an image into an error of one line."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow only warns of an image that may exhaust the memory.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except InputError as error:
            raise InputError(f"{name} cannot be used: {error}") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise InputError(f"{name} is larger than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller first") from None
        except UnidentifiedImageError:
            known = ", ".join(_FORMATS)
            raise InputError(f"{name} is not an image of a kind that can be read: {known}") from None
        except Exception as error:  # Pillow's readers raise anything from SyntaxError to struct.error
            pass_on(error)
            reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"{name} cannot be read: {reason}") from None
