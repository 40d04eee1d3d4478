"""Reads images safely, and resizes, crops and normalizes them for a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import ImageInfo
from triform.runtime.errors import InputError, pass_on
from triform.runtime.extras import missing_extra

if TYPE_CHECKING:
    from PIL import Image

    # The path of a file, its content, or an open Pillow image.
    ImageInput = str | Path | bytes | Image.Image

# Formats that Pillow reads itself. Some of its other readers start programs, and many are rarely used.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF")


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


def pixels_of(image: ImageInput, info: ImageInfo) -> NDArray[np.float32]:
    """Read an image and compute a model's input from it; see `read_image` and `pixel_values`.

    Args:
        image: the path of a file, its content, or an open Pillow image.
        info: what the model reads.

    Returns:
        float32 (channels, height, width).

    Raises:
        InputError: the image cannot be read or used; the message names its file.
        UnsupportedError: Pillow is not installed.
    """
    if not isinstance(image, str | Path | bytes):
        return pixel_values(as_rgb(image), info)
    opened = read_image(image)
    try:
        return pixel_values(opened, info)
    except InputError as error:
        raise InputError(str(error) if isinstance(image, bytes) else f"{image}: {error}") from None


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
    if info.mean is not None and info.std is not None:
        values = (values - np.array(info.mean, np.float32)) / np.array(info.std, np.float32)
    if info.channel_order == "bgr":
        values = values[..., ::-1]
    return np.ascontiguousarray(values.transpose(2, 0, 1))


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
