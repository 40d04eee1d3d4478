"""Reads the text in pictures, or describes pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import ImageInfo
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.generation.answers import Completion
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.checks import at_least_one
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.media.image import pixel_values, read_image

Pixels = NDArray[np.float32]


def image_info_of(model: SourceWriter) -> ImageInfo:
    """Return the image settings of a model that reads pictures.

    Raises:
        UnsupportedError: the model reads something else.
    """
    if model.info.image is None:
        raise UnsupportedError(f"this model reads {model.info.source}, not pictures")
    return model.info.image


def pixels_of(model: SourceWriter, picture: str | Path | bytes) -> Pixels:
    """Return the pixels of a picture as the model reads them, float32 (channels, height, width).

    Args:
        model: a model that reads pictures.
        picture: the path of a file, or its content.

    Raises:
        InputError: the picture cannot be read.
        UnsupportedError: the model does not read pictures, or Pillow is not installed.
    """
    info = image_info_of(model)
    try:
        return pixel_values(read_image(picture), info)
    except InputError as error:
        name = "" if isinstance(picture, bytes) or str(picture) in str(error) else f"{picture}: "
        raise InputError(f"{name}{error}") from None


def read_pixels(
    model: SourceWriter,
    pixels: Iterable[Pixels],
    options: GenerationOptions | None = None,
    *,
    beams: Beams | None = None,
    batch: int = 8,
) -> Iterator[Completion]:
    """Generate the best text for each picture, in bounded memory.

    Args:
        model: a model that reads pictures.
        pixels: of each picture, from `pixels_of`.
        options: see `EncoderDecoder.generate`.
        beams: see `EncoderDecoder.generate`.
        batch: pictures to run at once.

    Yields:
        the text of each picture, in order.

    Raises:
        InputError: the model does not support an option.
        TriformError: onnxruntime failed.
    """
    at_least_one().judge("batch", batch)
    source, first = iter(pixels), 0
    while chosen := list(islice(source, batch)):
        answers = model.write({"pixel_values": np.stack(chosen)}, options, beams=beams, first=first)
        yield from (best for best, *_ in answers)
        first += len(chosen)
