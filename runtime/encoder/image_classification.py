"""Scores labels for images: those that a model was trained on, or any labels in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import sigmoid, softmax
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.encoder.vectors.embedding import embed
from triform.runtime.encoder.vectors.image_embedding import ANY_LABELS, encoder_pixels, run_pixels
from triform.runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from triform.runtime.media.image import ImageInput

OWN_LABELS = "image-classification"
# The first of the templates that OpenAI's CLIP was evaluated with.
LABEL_TEMPLATE = "a photo of {}."
_SCORES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "single_label_classification": softmax,
    "multi_label_classification": sigmoid,
    "regression": np.asarray,
}


def classify_images(model: OpenEncoder, images: Iterable[ImageInput]) -> Iterator[list[tuple[str, float]]]:
    """Score every label for each image, as transformers' image-classification pipeline does.

    Args:
        model: an image-classification bundle.
        images: any number of paths of files, contents of files, or Pillow images.

    Yields:
        for each image, (label, score) of every label, the highest score first: probabilities that sum to 1 if one
        label applies; each label's own probability if several may apply; the model's output itself for a regression.

    Raises:
        UnsupportedError: the bundle is for another task, or Pillow is not installed.
        BundleError: the manifest does not describe the labels' scores.
        InputError: an image cannot be read.
        TriformError: onnxruntime failed.
    """
    model.require("classify-image", OWN_LABELS)
    for logits in _outputs(model, images, "logits"):
        yield label_scores(model, logits)


def label_scores(model: OpenEncoder, logits: NDArray[np.float32]) -> list[tuple[str, float]]:
    """Score the labels that a model was trained on, the highest score first.

    Args:
        model: with labels.
        logits: of one input, float32 (labels,).

    Raises:
        BundleError: the manifest does not describe the labels' scores.
    """
    labels, score = model.info.labels, _SCORES.get(model.info.problem_type or "")
    if score is None:
        raise BundleError("the bundle does not say what its labels' scores are; export the model again")
    if len(logits) != len(labels):
        raise BundleError(
            f"the bundle names {len(labels)} labels for a graph that gives {len(logits)}; export the model again"
        )
    return _ranked(labels, score(logits.astype(np.float64)))


def match_labels(
    model: OpenEncoder, images: Iterable[ImageInput], labels: Sequence[str], *, template: str = LABEL_TEMPLATE
) -> Iterator[list[tuple[str, float]]]:
    """Score how well each label describes each image, as transformers' zero-shot-image-classification pipeline does.

    Args:
        model: a zero-shot-image-classification bundle.
        images: any number of paths of files, contents of files, or Pillow images.
        labels: at least one, in any words.
        template: a sentence with {} for the label.

    Yields:
        for each image, (label, score), the highest score first: probabilities that sum to 1 or each label's own,
        depending on how the model was trained.

    Raises:
        UnsupportedError: the bundle is for another task, or Pillow is not installed.
        InputError: an image cannot be read, there are no labels, a label is empty, or the template has no {}.
        TriformError: onnxruntime failed.
    """
    model.require("classify-image", ANY_LABELS)
    contrast = model.info.contrast
    if contrast is None:
        raise BundleError("the bundle does not say how images and texts are compared; export the model again")
    texts = np.stack(list(embed(model, _sentences(labels, template))))
    function = softmax if contrast.scores == "softmax" else sigmoid
    for vector in _outputs(model, images, "image_embedding"):
        logits = contrast.scale * (texts @ vector) + contrast.bias
        yield _ranked(labels, function(logits.astype(np.float64)))


def _outputs(model: OpenEncoder, images: Iterable[ImageInput], name: str) -> Iterator[NDArray[np.float32]]:
    return run_pixels(model, (encoder_pixels(model, image) for image in images), name)


def _sentences(labels: Sequence[str], template: str) -> list[str]:
    if not labels or not all(label.strip() for label in labels):
        raise InputError("give at least one label, and none that is empty")
    if template.count("{}") != 1:
        raise InputError(f"a template has {{}} once, where the label belongs: {template!r}")
    return [template.replace("{}", label) for label in labels]


def _ranked(labels: Sequence[str], scores: NDArray[np.float64]) -> list[tuple[str, float]]:
    return sorted(zip(labels, scores.tolist(), strict=True), key=lambda pair: pair[1], reverse=True)
