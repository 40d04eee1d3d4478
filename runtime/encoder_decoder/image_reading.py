"""Texts about pictures: what is written in them, or what they show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import ImageInfo
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.generation.answers import Written
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.checks import at_least_one
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.media.image import pixel_values, read_image

Pixels = NDArray[np.float32]


def image_info_of(model: SourceWriter) -> ImageInfo:
    """How the model sees pictures.

    Raises:
        UnsupportedError: it reads something else.
    """
    if model.info.image is None:
        raise UnsupportedError(f"this model reads {model.info.source}, not pictures")
    return model.info.image


def pixels_of(model: SourceWriter, picture: str | Path | bytes) -> Pixels:
    """A picture as the model sees it, float32 (channels, height, width).

    Args:
        model: that sees pictures.
        picture: a file, or its content.

    Raises:
        InputError: the picture cannot be read.
        UnsupportedError: the model sees no pictures, or Pillow is not installed.
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
) -> Iterator[Written]:
    """The best text about each picture, in order and in bounded memory.

    Args:
        model: that sees pictures.
        pixels: of each picture, from `pixels_of`.
        options: see `EncoderDecoder.generate`.
        beams: see there.
        batch: pictures to run at once.

    Raises:
        InputError: an option that does not fit.
        TriformError: onnxruntime failed.
    """
    at_least_one().judge("batch", batch)
    source, first = iter(pixels), 0
    while chosen := list(islice(source, batch)):
        answers = model.write({"pixel_values": np.stack(chosen)}, options, beams=beams, first=first)
        yield from (best for best, *_ in answers)
        first += len(chosen)
