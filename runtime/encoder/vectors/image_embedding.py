"""Computes the vectors of pictures, and the pixels that a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triform.runtime.arithmetic import Array, check_numbers
from triform.runtime.bundle.manifest import EmbeddingInfo
from triform.runtime.encoder.vectors.embedding import shortened, width_of
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.media.image import as_rgb, pixel_values, read_image

if TYPE_CHECKING:
    from PIL import Image

    from triform.runtime.encoder.opened import OpenEncoder

    # The path of a file, its content, or an open Pillow image.
    Picture = str | Path | bytes | Image.Image

VECTORS, ANY_LABELS = "image-feature-extraction", "zero-shot-image-classification"
# Pictures in a batch: enough to keep every core busy, few because all activations are in memory at once.
_BATCH = 8


def embed_images(model: OpenEncoder, pictures: Iterable[Picture], *, dimensions: int | None = None) -> Iterator[Array]:
    """Compute one vector for each picture, lazily, in order, in bounded memory.

    Args:
        model: a bundle for image-feature-extraction or zero-shot-image-classification.
        pictures: any number of paths of files, contents of files, or Pillow images.
        dimensions: keep only the first numbers of each vector, see `embedding.embed`.

    Yields:
        float32 (dimensions,).

    Raises:
        UnsupportedError: the bundle is for another task, which the call itself raises; or Pillow is not installed.
        InputError: the vectors have fewer dimensions, which the call itself raises; or a picture cannot be read.
        BundleError: a vector holds NaN or an infinity.
        TriformError: onnxruntime failed.
    """
    return embed_pixels(model, (pixels_of(model, picture) for picture in pictures), dimensions=dimensions)


def embed_pixels(model: OpenEncoder, pixels: Iterable[Array], *, dimensions: int | None = None) -> Iterator[Array]:
    """Like `embed_images`, for pixels that `pixels_of` returned."""
    info = image_embedding_info(model)
    width_of(info, dimensions)
    return (shortened(vector, info, dimensions) for vector in run_pixels(model, pixels, "image_embedding"))


def image_embedding_matrix(model: OpenEncoder, pictures: Iterable[Picture], *, dimensions: int | None = None) -> Array:
    """Return all vectors at once, float32 (pictures, dimensions). Arguments and errors as in `embed_images`."""
    vectors = embed_images(model, pictures, dimensions=dimensions)
    return np.array(list(vectors), np.float32).reshape(-1, width_of(image_embedding_info(model), dimensions))


def image_embedding_info(model: OpenEncoder) -> EmbeddingInfo:
    """Return the description of the vectors of pictures.

    Raises:
        UnsupportedError: the model does not compute vectors of pictures.
    """
    model.require("embedding pictures", VECTORS, ANY_LABELS)
    if model.info.embedding is None or model.images is None or "image_embedding" not in model.images.outputs:
        raise UnsupportedError("the bundle has no output image_embedding; export the model again")
    return model.info.embedding


def pixels_of(model: OpenEncoder, picture: Picture) -> Array:
    """Return the pixels of a picture as the model reads them, float32 (channels, height, width).

    Raises:
        UnsupportedError: the model does not read pictures, or Pillow is not installed.
        InputError: the picture cannot be read.
    """
    if model.info.image is None:
        raise UnsupportedError("the bundle does not say how it sees pictures; export the model again")
    image: Any = read_image(picture) if isinstance(picture, str | Path | bytes) else as_rgb(picture)
    try:
        return pixel_values(image, model.info.image)
    except InputError as error:
        name = f"{picture}: " if isinstance(picture, str | Path) else ""
        raise InputError(f"{name}{error}") from None


def run_pixels(model: OpenEncoder, pixels: Iterable[Array], name: str) -> Iterator[Array]:
    """Yield the graph's output `name` for each picture's pixels, in order and in bounded memory.

    Raises:
        UnsupportedError: the model does not read pictures.
        BundleError: an output holds NaN or an infinity.
        TriformError: onnxruntime failed.
    """
    if model.images is None:
        raise UnsupportedError("the bundle does not say how it sees pictures; export the model again")
    source = iter(pixels)
    while batch := list(islice(source, _BATCH)):
        results = model.images.feed({"pixel_values": np.stack(batch)}, (name,))[0]
        check_numbers([results])
        yield from results
