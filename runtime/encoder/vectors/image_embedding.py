"""Computes the vectors of images, and the inputs that a model reads them as."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import Array, check_numbers
from triform.runtime.bundle.manifest import EmbeddingInfo
from triform.runtime.encoder.vectors.embedding import truncated, width_of
from triform.runtime.errors import UnsupportedError
from triform.runtime.media.image import image_inputs

if TYPE_CHECKING:
    from triform.runtime.encoder.opened import OpenEncoder
    from triform.runtime.media.image import ImageInput

# One image's inputs by name, without the axis of the batch.
ImageArrays = Mapping[str, NDArray[Any]]

VECTORS, ANY_LABELS = "image-feature-extraction", "zero-shot-image-classification"


def embed_images(model: OpenEncoder, images: Iterable[ImageInput], *, dimensions: int | None = None) -> Iterator[Array]:
    """Compute one vector for each image, lazily, in order, in bounded memory.

    Args:
        model: a bundle for image-feature-extraction or zero-shot-image-classification.
        images: any number of paths of files, contents of files, or Pillow images.
        dimensions: keep only the first numbers of each vector, see `embedding.embed`.

    Yields:
        float32 (dimensions,).

    Raises:
        UnsupportedError: the bundle is for another task, which the call itself raises; or Pillow is not installed.
        InputError: the vectors have fewer dimensions, which the call itself raises; or an image cannot be read.
        BundleError: a vector holds NaN or an infinity.
        TriformError: onnxruntime failed.
    """
    return embed_pixels(model, (encoder_pixels(model, image) for image in images), dimensions=dimensions)


def embed_pixels(
    model: OpenEncoder, pixels: Iterable[ImageArrays], *, dimensions: int | None = None
) -> Iterator[Array]:
    """Like `embed_images`, for pixels that `encoder_pixels` returned."""
    info = image_embedding_info(model)
    width_of(info, dimensions)
    return (truncated(vector, info, dimensions) for vector in run_pixels(model, pixels, "image_embedding"))


def image_embedding_matrix(model: OpenEncoder, images: Iterable[ImageInput], *, dimensions: int | None = None) -> Array:
    """Return all vectors at once, float32 (images, dimensions). Arguments and errors as in `embed_images`."""
    vectors = embed_images(model, images, dimensions=dimensions)
    return np.array(list(vectors), np.float32).reshape(-1, width_of(image_embedding_info(model), dimensions))


def image_embedding_info(model: OpenEncoder) -> EmbeddingInfo:
    """Return the description of the vectors of images.

    Raises:
        UnsupportedError: the model does not compute vectors of images.
    """
    model.require("embedding images", VECTORS, ANY_LABELS)
    if model.info.embedding is None or model.images is None or "image_embedding" not in model.images.outputs:
        raise UnsupportedError("the bundle has no output image_embedding; export the model again")
    return model.info.embedding


def encoder_pixels(model: OpenEncoder, image: ImageInput) -> ImageArrays:
    """Return the pixels or patches of an image as the model reads them, by the names of its inputs.

    Raises:
        UnsupportedError: the model does not read images, or Pillow is not installed.
        InputError: the image cannot be read.
    """
    if model.info.image is None:
        raise UnsupportedError("the bundle does not say how it reads images; export the model again")
    return image_inputs(image, model.info.image)


def run_pixels(model: OpenEncoder, pixels: Iterable[ImageArrays], name: str) -> Iterator[Array]:
    """Yield the graph's output `name` for each image's inputs, in order and in bounded memory.

    Raises:
        UnsupportedError: the model does not read images.
        BundleError: an output holds NaN or an infinity.
        TriformError: onnxruntime failed.
    """
    if model.images is None:
        raise UnsupportedError("the bundle does not say how it reads images; export the model again")
    source = iter(pixels)
    while batch := list(islice(source, model.images.size.images)):
        arrays = {key: np.stack([row[key] for row in batch]) for key in batch[0]}
        results = model.images.feed(arrays, (name,))[0]
        check_numbers([results])
        yield from results
