"""Reads the text in images, or describes images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.media_info import ImageInfo
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.errors import UnsupportedError
from triform.runtime.generation.answers import Completion
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.checks import at_least_one
from triform.runtime.generation.options.generation import GenerationOptions

Pixels = NDArray[np.float32]


def image_info_of(model: SourceWriter) -> ImageInfo:
    """Return the image settings of a model that reads images.

    Raises:
        UnsupportedError: the model reads something else.
    """
    if model.info.image is None:
        raise UnsupportedError(f"this model reads {model.info.source}, not images")
    return model.info.image


def read_pixels(
    model: SourceWriter,
    pixels: Iterable[Pixels],
    options: GenerationOptions | None = None,
    *,
    beams: Beams | None = None,
    batch: int = 8,
) -> Iterator[Completion]:
    """Generate the best text for each image, in bounded memory.

    Args:
        model: a model that reads images.
        pixels: of each image, from `image_inputs` in `media/image.py`.
        options: see `EncoderDecoder.generate`.
        beams: see `EncoderDecoder.generate`.
        batch: images to run at once.

    Yields:
        the text of each image, in order.

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
