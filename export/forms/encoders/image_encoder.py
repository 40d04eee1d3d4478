"""Determines how to export an encoder of images: its graphs, their inputs, its limits, and sample inputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from triform.export.checkpoint.source import Checkpoint
from triform.export.describe.image import calibration_samples, evaluation_samples, image_info
from triform.export.forms.encoders.checks import EncoderChecks
from triform.export.options import ExportOptions
from triform.export.samples.batches import Array, Sample, SampleSets, padded
from triform.export.samples.texts import passages
from triform.export.verify.encoder import ReferenceBatch
from triform.models.encoder.graph import reference_outputs
from triform.models.encoder.image_tasks import (
    CONTRAST,
    LABELS,
    contrast_tasks,
    is_pooled,
    labels_task,
    outputs_for_image,
    vectors_task,
)
from triform.models.errors import UnsupportedModelError
from triform.models.spec import EncoderTask
from triform.runtime.bundle.manifest import ContrastInfo, ProblemType
from triform.runtime.bundle.media_info import ImageInfo
from triform.runtime.errors import UnsupportedError

# Number of images or texts for parity, for calibration and for evaluation.
_PARITY_ROWS, _CALIBRATION_ROWS, _EVALUATION_ROWS = 4, 24, 24
# Relative to the largest score: the rounding of float32.
_CONTRAST_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Tower:
    """One graph of the bundle: its name, the computation to trace, and samples of its inputs."""

    name: str
    traced: EncoderTask
    samples: SampleSets


@dataclass(frozen=True)
class ImageEncoder:
    """A checkpoint and how to export it.

    Attributes:
        checkpoint: the model and its image processor; also the tokenizer if it reads texts too.
        task: transformers' name of it.
        image: how an image becomes the model's input.
        towers: one graph each.
        contrast: how images and texts are compared; None for a model without texts.
        max_length: most tokens of a text; 0 for a model without texts.
        pooling: how patches become one vector; empty for a model without one.
    """

    checkpoint: Checkpoint
    task: str
    image: ImageInfo
    towers: list[Tower]
    contrast: ContrastInfo | None = None
    max_length: int = 0
    pooling: str = ""

    @property
    def pad(self) -> int:
        """Token id that pads."""
        tokenizer = self.checkpoint.tokenizer
        return 0 if tokenizer is None else tokenizer.pad_token_id or 0

    @property
    def problem_type(self) -> ProblemType | None:
        """The kind of classification, as transformers' pipeline decides it; None for other tasks."""
        config = self.checkpoint.model.config
        if self.task != LABELS:
            return None
        if config.problem_type == "regression":
            return "regression"
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        return "multi_label_classification" if several else "single_label_classification"


def image_encoder(checkpoint: Checkpoint, options: ExportOptions) -> ImageEncoder:
    """Determine how to export a checkpoint.

    Raises:
        ExportError: the pixels do not match the image processor's.
        UnsupportedError: the image processor cannot be described, or the model does not accept such pixels.
    """
    try:
        return _image_encoder(checkpoint, options)
    except UnsupportedModelError as error:
        raise UnsupportedError(f"{checkpoint.source.name} cannot be exported: {error}") from error


def image_checks(encoder: ImageEncoder) -> list[EncoderChecks]:
    """Inputs to check each graph with.

    Raises:
        UnsupportedError: the model compares images with texts in a way that the manifest cannot describe.
    """
    references = []
    for tower in encoder.towers:
        samples = tower.samples.parity
        outputs = image_outputs(encoder, tower, padded(samples, encoder.pad))
        references.append(ReferenceBatch(samples, outputs, encoder.pad))
    if encoder.contrast is not None:
        texts, images = (reference.outputs[0] for reference in references)
        _check_contrast(encoder, encoder.contrast, texts, images)
    return [
        EncoderChecks([reference], tower.samples.calibration, tower.samples.evaluation, encoder.problem_type)
        for tower, reference in zip(encoder.towers, references, strict=True)
    ]


def image_outputs(encoder: ImageEncoder, tower: Tower, arrays: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
    """PyTorch's outputs of one tower for the arrays of a batch."""
    inputs = tuple(torch.from_numpy(arrays[name]) for name in tower.traced.inputs)
    return reference_outputs(encoder.checkpoint.model, tower.traced, inputs)


def _image_encoder(checkpoint: Checkpoint, options: ExportOptions) -> ImageEncoder:
    model = checkpoint.model
    image = image_info(checkpoint.image_processor)
    task = checkpoint.source.task
    samples = _pixel_samples(image)
    examples = {name: torch.from_numpy(array) for name, array in padded(samples.parity[:2], 0).items()}
    outputs = outputs_for_image(model, {name: rows[:1] for name, rows in examples.items()})
    if task == CONTRAST:
        return _contrast_encoder(checkpoint, image, samples, examples)
    if task == LABELS:
        traced = labels_task(examples, options.hidden_states)
        return ImageEncoder(checkpoint, task, image, [Tower("encoder", traced, samples)])
    pooled = is_pooled(outputs, checkpoint.missing)
    traced = vectors_task(model, examples, options.hidden_states, pooled)
    pooling = "pooler" if pooled else "cls"
    return ImageEncoder(checkpoint, task, image, [Tower("encoder", traced, samples)], pooling=pooling)


def _contrast_encoder(
    checkpoint: Checkpoint, image: ImageInfo, samples: SampleSets, examples: Mapping[str, torch.Tensor]
) -> ImageEncoder:
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    accepted = inspect.signature(model.get_text_features).parameters
    inputs = tuple(
        name
        for name in ("input_ids", "attention_mask", "token_type_ids")
        if name in accepted and name in tokenizer.model_input_names
    )
    text, pixels = contrast_tasks(inputs, examples)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    max_length = int(min(limit for limit in (tokenizer.model_max_length, positions) if limit))
    # A model without a mask reads padding as text, so every text is padded to the length of its training.
    text_length = None if "attention_mask" in inputs else max_length
    if text_length is not None and tokenizer.padding_side != "right":
        raise UnsupportedModelError(
            f"it reads the padding of texts, which its tokenizer puts on the {tokenizer.padding_side}; that is "
            'supported on the right only, "padding_side" in tokenizer_config.json'
        )
    text_samples = _text_samples(checkpoint, inputs, max_length, text_length)
    sigmoid = hasattr(model, "logit_bias")
    contrast = ContrastInfo(
        scale=float(model.logit_scale.detach().exp()),
        bias=float(model.logit_bias.detach()) if sigmoid else 0.0,
        scores="sigmoid" if sigmoid else "softmax",
        text_length=text_length,
    )
    towers = [Tower("encoder", text, text_samples), Tower("image", pixels, samples)]
    return ImageEncoder(checkpoint, CONTRAST, image, towers, contrast, max_length, "projection")


def _check_contrast(
    encoder: ImageEncoder, contrast: ContrastInfo, text_vectors: torch.Tensor, image_vectors: torch.Tensor
) -> None:
    """Compare the scores that the manifest describes with the model's own.

    Args:
        encoder: its sample texts and images are scored.
        contrast: for the manifest.
        text_vectors: of the sample texts, float (texts, dimension).
        image_vectors: of the sample images, float (images, dimension).

    Raises:
        UnsupportedError: they differ.
    """
    arguments: dict[str, torch.Tensor] = {}
    for tower in encoder.towers:
        arrays = padded(tower.samples.parity, encoder.pad)
        arguments |= {name: torch.from_numpy(arrays[name]) for name in tower.traced.inputs}
    with torch.no_grad():
        expected = encoder.checkpoint.model(**arguments).logits_per_image
    scores = contrast.scale * image_vectors @ text_vectors.T + contrast.bias
    worst = float((scores - expected).abs().max())
    # Written so that NaN fails.
    if not worst <= _CONTRAST_TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UnsupportedError(
            f"{encoder.checkpoint.source.name} cannot be exported: it compares images with texts in its own way"
        )


def _pixel_samples(image: ImageInfo) -> SampleSets:
    evaluation = evaluation_samples(image, _EVALUATION_ROWS)
    return SampleSets(evaluation[:_PARITY_ROWS], calibration_samples(image, _CALIBRATION_ROWS), evaluation)


def _text_samples(
    checkpoint: Checkpoint, inputs: tuple[str, ...], max_length: int, text_length: int | None
) -> SampleSets:
    padding = "do_not_pad" if text_length is None else "max_length"

    def rows(name: Literal["calibration", "evaluation"], count: int) -> list[Sample]:
        samples: list[Sample] = []
        for text in passages(name, count):
            encoded = checkpoint.tokenizer(text, truncation=True, max_length=max_length, padding=padding)
            samples.append({key: np.array(encoded[key], np.int64) for key in inputs})
        return samples

    evaluation = rows("evaluation", _EVALUATION_ROWS)
    return SampleSets(evaluation[:_PARITY_ROWS], rows("calibration", _CALIBRATION_ROWS), evaluation)
