"""Labels and vectors for pictures: labels a model was trained to give, or any that are put into words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.classification import sigmoid, softmax
from triform.runtime.encoder import Encoder
from triform.runtime.encoder_step import EncoderStep
from triform.runtime.errors import BundleError, InputError, UnsupportedError
from triform.runtime.image import as_rgb, pixel_values, read_image
from triform.runtime.manifest import ContrastInfo, EmbeddingInfo, ImageInfo

if TYPE_CHECKING:
    from PIL import Image

    # A file, a file's content, or a picture that is open already.
    Picture = str | Path | bytes | Image.Image

OWN_LABELS, ANY_LABELS, VECTORS = "image-classification", "zero-shot-image-classification", "image-feature-extraction"
# What OpenAI's CLIP was measured with first of all.
TEMPLATE = "a photo of {}."
# Enough to keep every core busy; all activations of a batch are in memory at once.
_BATCH = 8
_SCORES: dict[str, Callable[[NDArray[np.float32]], NDArray[Any]]] = {
    "single_label_classification": softmax,
    "multi_label_classification": sigmoid,
    "regression": np.asarray,
}


def classify_images(model: Encoder, pictures: Iterable[Picture]) -> Iterator[list[tuple[str, float]]]:
    """Every label's score for each picture, as transformers' image-classification pipeline computes it.

    Args:
        model: an image-classification bundle.
        pictures: any number of files, contents of files, or Pillow pictures.

    Yields:
        for each picture, (label, score) of every label, the highest score first: probabilities that sum to 1 when one
        label applies; each label's own probability when several may, or there is only one; the model's number as it
        is for a regression.

    Raises:
        UnsupportedError: the bundle is for another task, or Pillow is not installed.
        BundleError: the bundle does not say what its outputs mean.
        InputError: a picture cannot be read.
        TriformError: onnxruntime failed.
    """
    model.require("classify-image", OWN_LABELS)
    labels, score = model.info.labels, _SCORES.get(model.info.problem_type or "")
    if score is None:
        raise BundleError("the bundle does not say what its labels' scores are; export the model again")
    for logits in _outputs(model, pictures, "logits"):
        if len(logits) != len(labels):
            raise BundleError(
                f"the bundle names {len(labels)} labels for a graph that gives {len(logits)}; export the model again"
            )
        yield _ranked(labels, score(logits))


def match_labels(
    model: Encoder, pictures: Iterable[Picture], labels: Sequence[str], *, template: str = TEMPLATE
) -> Iterator[list[tuple[str, float]]]:
    """How well each of some labels describes each picture, as transformers' zero-shot-image-classification pipeline.

    Args:
        model: a zero-shot-image-classification bundle.
        pictures: any number of files, contents of files, or Pillow pictures.
        labels: at least one, in any words.
        template: a sentence with {} where the label belongs.

    Yields:
        for each picture, (label, score), the highest score first: probabilities that sum to 1, or each label's own,
        as the model was trained.

    Raises:
        UnsupportedError: the bundle is for another task, or Pillow is not installed.
        InputError: a picture cannot be read, there are no labels, one is empty, or the template has no place for it.
        TriformError: onnxruntime failed.
    """
    model.require("classify-image", ANY_LABELS)
    contrast = model.info.contrast
    if contrast is None:
        raise BundleError("the bundle does not say how pictures and texts are compared; export the model again")
    texts = text_embeddings(model, _in_words(labels, template))
    function = softmax if contrast.scores == "softmax" else sigmoid
    for vector in _outputs(model, pictures, "image_embedding"):
        yield _ranked(labels, function(contrast.scale * (texts @ vector) + contrast.bias))


def image_embeddings(model: Encoder, pictures: Iterable[Picture]) -> NDArray[np.float32]:
    """One vector a picture; what it is, `model.info.embedding` says.

    Args:
        model: a bundle for image-feature-extraction or zero-shot-image-classification.
        pictures: any number of files, contents of files, or Pillow pictures.

    Returns:
        float32 (pictures, dimension).

    Raises:
        UnsupportedError: the bundle is for another task, or Pillow is not installed.
        InputError: a picture cannot be read.
        TriformError: onnxruntime failed.
    """
    model.require("image_embeddings", VECTORS, ANY_LABELS)
    found = list(_outputs(model, pictures, "image_embedding"))
    return np.stack(found) if found else np.zeros((0, _dimension(model.info.embedding)), np.float32)


def text_embeddings(model: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors of texts, of length 1, to compare with those of pictures.

    Args:
        model: a zero-shot-image-classification bundle.
        texts: at least one.

    Returns:
        float32 (texts, dimension).

    Raises:
        UnsupportedError: the bundle is for another task.
        InputError: a text is not valid Unicode.
        TriformError: onnxruntime failed.
    """
    model.require("text_embeddings", ANY_LABELS)
    rows = model.reader().read(texts)
    length = _padded_length(model.info.contrast)
    if length is not None:
        pad = model.manifest.tokens.pad or 0
        rows = [replace(row, ids=[*row.ids, *[pad] * (length - len(row.ids))], type_ids=[0] * length) for row in rows]
    return np.stack([vector for (vector,) in model.step.in_batches(rows, ("sentence_embedding",))])


def _outputs(model: Encoder, pictures: Iterable[Picture], name: str) -> Iterator[NDArray[np.float32]]:
    """The output `name` of each picture, in order and in bounded memory."""
    step, info = _eyes(model)
    source = iter(pictures)
    while batch := [_pixels(picture, info) for picture in islice(source, _BATCH)]:
        yield from step.feed({"pixel_values": np.stack(batch)}, (name,))[0]


def _eyes(model: Encoder) -> tuple[EncoderStep, ImageInfo]:
    if model.images is None or model.info.image is None:
        raise UnsupportedError("the bundle does not say how it sees pictures; export the model again")
    return model.images, model.info.image


def _pixels(picture: Picture, info: ImageInfo) -> NDArray[np.float32]:
    image: Any = read_image(picture) if isinstance(picture, str | Path | bytes) else as_rgb(picture)
    try:
        return pixel_values(image, info)
    except InputError as error:
        name = f"{picture}: " if isinstance(picture, str | Path) else ""
        raise InputError(f"{name}{error}") from None


def _in_words(labels: Sequence[str], template: str) -> list[str]:
    if not labels or not all(label.strip() for label in labels):
        raise InputError("give at least one label, and none that is empty")
    if template.count("{}") != 1:
        raise InputError(f"a template has {{}} once, where the label belongs: {template!r}")
    return [template.replace("{}", label) for label in labels]


def _ranked(labels: Sequence[str], scores: NDArray[Any]) -> list[tuple[str, float]]:
    return sorted(zip(labels, scores.tolist(), strict=True), key=lambda pair: pair[1], reverse=True)


def _padded_length(contrast: ContrastInfo | None) -> int | None:
    return None if contrast is None else contrast.text_length


def _dimension(embedding: EmbeddingInfo | None) -> int:
    return 0 if embedding is None else embedding.dimension
