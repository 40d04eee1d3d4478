"""What a model that sees pictures is exported for: its graphs, what they compute, and inputs to try them with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from triform.export.checkpoint.source import Checkpoint
from triform.export.describe.image import calibration_samples, check_pixel_values, evaluation_samples, image_info
from triform.export.forms.encoder_graph import Trial
from triform.export.options import ExportOptions
from triform.export.samples import texts
from triform.export.samples.batches import Array, Sample, padded
from triform.models.encoder.graph import reference_outputs
from triform.models.encoder.image_tasks import (
    CONTRAST,
    LABELS,
    contrast_tasks,
    is_pooled,
    labels_task,
    see,
    vectors_task,
)
from triform.models.errors import UnsupportedModelError
from triform.models.spec import EncoderTask
from triform.runtime.bundle import manifest as contract
from triform.runtime.bundle.media_info import ImageInfo
from triform.runtime.errors import UnsupportedError

# Pictures, or texts, compared with PyTorch, calibrated on, and compared with the quantized graph.
_PARITY_ROWS, _CALIBRATION_ROWS, _COMPARED_ROWS = 4, 24, 24
# Float32 rounding of the same sum of products; relative to the largest.
_CONTRAST_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Samples:
    """Inputs of a graph: to compare with PyTorch, to calibrate on, and to compare the quantized graph with."""

    parity: list[Sample]
    calibration: list[Sample]
    compared: list[Sample]


@dataclass(frozen=True)
class Tower:
    """One graph of the bundle: its name, what it computes, and inputs to try it with."""

    name: str
    traced: EncoderTask
    samples: Samples


@dataclass(frozen=True)
class Subject:
    """A checkpoint and what it is to be exported for.

    Attributes:
        checkpoint: with its image processor, and the tokenizer of one that reads texts too.
        task: its name.
        image: how a picture becomes pixels.
        towers: one graph each.
        contrast: how pictures and texts are compared; None where there are no texts.
        max_length: tokens of a text; 0 where there are none.
        pooling: how tokens became one vector; empty where there is none.
    """

    checkpoint: Checkpoint
    task: str
    image: ImageInfo
    towers: list[Tower]
    contrast: contract.ContrastInfo | None = None
    max_length: int = 0
    pooling: str = ""

    @property
    def pad(self) -> int:
        """Token id that pads."""
        tokenizer = self.checkpoint.tokenizer
        return 0 if tokenizer is None else tokenizer.pad_token_id or 0

    @property
    def problem_type(self) -> str | None:
        """Which scores transformers' image-classification pipeline makes of a model's numbers; None if it has none."""
        config = self.checkpoint.model.config
        if self.task != LABELS:
            return None
        if config.problem_type == "regression":
            return "regression"
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        return "multi_label_classification" if several else "single_label_classification"


def subject_of(checkpoint: Checkpoint, options: ExportOptions) -> Subject:
    """What a checkpoint is to be exported for, and how.

    Raises:
        ExportError: the pixels do not match the image processor's.
        UnsupportedError: the image processor cannot be described, or the model takes no such pixels.
    """
    try:
        return _subject(checkpoint, options)
    except UnsupportedModelError as error:
        raise UnsupportedError(f"{checkpoint.source.name} cannot be exported: {error}") from error


def trials_of(subject: Subject) -> list[Trial]:
    """What to try each graph with.

    Raises:
        UnsupportedError: the model compares pictures with texts in a way that the manifest cannot say.
    """
    expected = [reference(subject, tower, padded(tower.samples.parity, subject.pad)) for tower in subject.towers]
    if subject.contrast is not None:
        _check_contrast(subject, [outputs[0] for outputs in expected], subject.contrast)
    return [
        Trial(
            tower.samples.parity, outputs, tower.samples.calibration, tower.samples.compared, subject.pad,
            subject.problem_type,
        )
        for tower, outputs in zip(subject.towers, expected, strict=True)
    ]  # fmt: skip


def reference(subject: Subject, tower: Tower, arrays: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
    """PyTorch's outputs for a batch."""
    return reference_outputs(subject.checkpoint.model, tower.traced, _tensors(tower, arrays))


def _subject(checkpoint: Checkpoint, options: ExportOptions) -> Subject:
    model = checkpoint.model
    image = image_info(checkpoint.image_processor)
    check_pixel_values(checkpoint.image_processor, image)
    task = checkpoint.source.task
    shape = (image.channels, image.height, image.width)
    seen = see(model, shape)
    if task == CONTRAST:
        return _contrast_subject(checkpoint, image)
    if task == LABELS:
        traced = labels_task(shape, options.hidden_states)
        return Subject(checkpoint, task, image, [Tower("encoder", traced, _pixel_samples(image))])
    pooled = is_pooled(seen, checkpoint.missing)
    traced = vectors_task(model, shape, options.hidden_states, pooled)
    pooling = "pooler" if pooled else "cls"
    return Subject(checkpoint, task, image, [Tower("encoder", traced, _pixel_samples(image))], pooling=pooling)


def _contrast_subject(checkpoint: Checkpoint, image: ImageInfo) -> Subject:
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    accepted = inspect.signature(model.get_text_features).parameters
    inputs = tuple(
        name
        for name in ("input_ids", "attention_mask", "token_type_ids")
        if name in accepted and name in tokenizer.model_input_names
    )
    text, pixels = contrast_tasks(inputs, (image.channels, image.height, image.width))
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    max_length = int(min(limit for limit in (tokenizer.model_max_length, positions) if limit))
    # Padding that is not hidden is part of the text; a text always has as much of it as in training.
    text_length = None if "attention_mask" in inputs else max_length
    read = _text_samples(checkpoint, inputs, max_length, text_length)
    sigmoid = hasattr(model, "logit_bias")
    contrast = contract.ContrastInfo(
        scale=float(model.logit_scale.detach().exp()),
        bias=float(model.logit_bias.detach()) if sigmoid else 0.0,
        scores="sigmoid" if sigmoid else "softmax",
        text_length=text_length,
    )
    towers = [Tower("encoder", text, read), Tower("image", pixels, _pixel_samples(image))]
    return Subject(checkpoint, CONTRAST, image, towers, contrast, max_length, "projection")


def _check_contrast(subject: Subject, vectors: list[torch.Tensor], contrast: contract.ContrastInfo) -> None:
    """Compare what the manifest says of comparing pictures and texts with what the model does.

    Args:
        subject: what is exported.
        vectors: of its texts and of its pictures.
        contrast: for the manifest.

    Raises:
        UnsupportedError: the model does it in another way.
    """
    arguments: dict[str, Any] = {}
    for tower in subject.towers:
        arguments |= dict(
            zip(tower.traced.inputs, _tensors(tower, padded(tower.samples.parity, subject.pad)), strict=True)
        )
    with torch.no_grad():
        expected = subject.checkpoint.model(**arguments).logits_per_image
    found = contrast.scale * vectors[1] @ vectors[0].T + contrast.bias
    worst = float((found - expected).abs().max())
    if not worst <= _CONTRAST_TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UnsupportedError(
            f"{subject.checkpoint.source.name} cannot be exported: it compares pictures with texts in a way of its own"
        )


def _pixel_samples(image: ImageInfo) -> Samples:
    evaluation: list[Sample] = [{"pixel_values": pixels} for pixels in evaluation_samples(image, _COMPARED_ROWS)]
    calibration: list[Sample] = [{"pixel_values": pixels} for pixels in calibration_samples(image, _CALIBRATION_ROWS)]
    return Samples(evaluation[:_PARITY_ROWS], calibration, evaluation)


def _text_samples(checkpoint: Checkpoint, inputs: tuple[str, ...], max_length: int, text_length: int | None) -> Samples:
    padding = "do_not_pad" if text_length is None else "max_length"

    def rows(name: Literal["calibration", "evaluation"], count: int) -> list[Sample]:
        found: list[Sample] = []
        for text in texts.passages(name, count):
            encoded = checkpoint.tokenizer(text, truncation=True, max_length=max_length, padding=padding)
            found.append({key: np.array(encoded[key], np.int64) for key in inputs})
        return found

    evaluation = rows("evaluation", _COMPARED_ROWS)
    return Samples(evaluation[:_PARITY_ROWS], rows("calibration", _CALIBRATION_ROWS), evaluation)


def _tensors(tower: Tower, arrays: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(arrays[name]) for name in tower.traced.inputs)
