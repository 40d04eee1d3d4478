"""A model that sees pictures becomes a bundle: trace, fuse, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
from transformers import PretrainedConfig

from triform.export import source, texts
from triform.export.cores import usable_cores
from triform.export.decoding import clean_up_decoding
from triform.export.encoder_quantize import quantize_encoder
from triform.export.fuse_biases import fuse_biases
from triform.export.fused_graph import encoder_notes, fused_graph
from triform.export.image_processor import calibration_samples, check_pixel_values, evaluation_samples, image_info
from triform.export.lower import lower_to_float
from triform.export.normal_config import normal_config
from triform.export.options import ExportOptions
from triform.export.report import Clock, Report, versions
from triform.export.source import Checkpoint, Source, save_tokenizer
from triform.export.trace import quiet
from triform.export.verify_encoder import EncoderRunner, Sample, compare_quantized, compare_with_reference, padded
from triform.export.write import describe_files, describe_graph, staged, write_graph
from triform.models.encoder import EncoderTask, encoder_spec, reference_outputs
from triform.models.errors import UnsupportedModelError
from triform.models.image_tasks import (
    CONTRAST,
    IMAGE_HEADS,
    LABELS,
    VECTORS,
    contrast_tasks,
    image_task_of,
    is_pooled,
    labels_task,
    see,
    vectors_task,
)
from triform.runtime import manifest as contract
from triform.runtime.errors import ExportError, InputError, UnsupportedError
from triform.runtime.image import require_pillow

# Pictures, or texts, compared with PyTorch, calibrated on, and compared with the quantized graph.
_PARITY_ROWS, _CALIBRATION_ROWS, _COMPARED_ROWS = 4, 24, 24
# Float32 rounding of the same sum of products; relative to the largest.
_CONTRAST_TOLERANCE = 1e-4


@dataclass(frozen=True)
class _Samples:
    """Inputs of a graph: to compare with PyTorch, to calibrate on, and to compare the quantized graph with."""

    parity: list[Sample]
    calibration: list[Sample]
    compared: list[Sample]


@dataclass(frozen=True)
class _Tower:
    """One graph of the bundle: its name, what it computes, and inputs to try it with."""

    name: str
    traced: EncoderTask
    samples: _Samples


@dataclass(frozen=True)
class _Subject:
    """A checkpoint and what it is to be exported for."""

    checkpoint: Checkpoint
    task: str
    image: contract.ImageInfo
    towers: list[_Tower]
    contrast: contract.ContrastInfo | None = None
    max_length: int = 0
    pooling: str = ""


def plan(found: Source, config: PretrainedConfig, options: ExportOptions) -> list[tuple[str, str]]:
    """What `export` would do, from the config alone: rows of (what, value)."""
    normal = normal_config(getattr(config, "vision_config", config))
    name = options.quantize or "int8"
    return [
        ("model", found.name),
        ("form", "encoder"),
        ("task", options.task or str(image_task_of(config))),
        ("model type", config.model_type),
        ("layers", str(normal.get("num_layers", "?"))),
        ("hidden size", str(normal.get("hidden_size", "?"))),
        ("weights", "float32" if name == "none" else name),
        ("steps", "load, trace, fuse, verify against PyTorch, quantize, compare, write"),
    ]


def load(found: Source, config: PretrainedConfig, options: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its task's head, its image processor, and the tokenizer of one that reads texts too.

    Raises:
        ExportError: see `source.load` and `source.load_image_processor`.
        UnsupportedError: Pillow is not installed.
    """
    require_pillow()
    task = options.task or image_task_of(config)
    if options.hidden_states and task == CONTRAST:
        raise InputError(f"--hidden-states is not for {CONTRAST}; export for {VECTORS} instead")
    processor = source.load_image_processor(found)
    unused = ("pooler",) if task == VECTORS else ()
    loader = source.load if task == CONTRAST else source.load_model
    checkpoint = loader(found, config, IMAGE_HEADS[str(task)], unused=unused)
    return dataclasses.replace(checkpoint, image_processor=processor)


def export(checkpoint: Checkpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn a loaded model into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph or the pixels do not match PyTorch's.
        UnsupportedError: the architecture cannot be traced, or the image processor cannot be described.
    """
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with clock.step("reference"), quiet():
            subject = _described(checkpoint, options)
            expected = [_reference(subject, tower) for tower in subject.towers]
            if subject.contrast is not None:
                _check_contrast(subject, [outputs[0] for outputs in expected], subject.contrast)
        graphs, parities = {}, []
        for tower, wanted in zip(subject.towers, expected, strict=True):
            info, parity = _export_tower(subject, tower, wanted, (folder, Path(scratch)), options, clock)
            graphs[tower.name] = info
            parities.append(parity)
        with clock.step("write"):
            if checkpoint.tokenizer is not None:
                save_tokenizer(checkpoint.tokenizer, folder)
                clean_up_decoding(checkpoint.tokenizer, folder)
            parity = _together(parities)
            times = contract.ExportInfo(versions(), dict(clock.seconds), encoder_parity=parity)
            record = dataclasses.replace(_manifest(subject, graphs, folder), export=times)
            (folder / contract.MANIFEST).write_text(record.to_json(), encoding="utf-8")
    size_after = sum(file.stat().st_size for file in bundle.iterdir())
    return Report(bundle, clock.seconds, checkpoint.weights_size, size_after, parity)


def _described(checkpoint: Checkpoint, options: ExportOptions) -> _Subject:
    try:
        return _subject(checkpoint, options)
    except UnsupportedModelError as error:
        raise _cannot(checkpoint, error) from error


def _subject(checkpoint: Checkpoint, options: ExportOptions) -> _Subject:
    model = checkpoint.model
    image = image_info(checkpoint.image_processor)
    check_pixel_values(checkpoint.image_processor, image)
    task = options.task or str(image_task_of(model.config))
    shape = (image.channels, image.height, image.width)
    seen = see(model, shape)
    if task == CONTRAST:
        return _contrast_subject(checkpoint, image)
    if task == LABELS:
        traced = labels_task(shape, options.hidden_states)
        return _Subject(checkpoint, task, image, [_Tower("encoder", traced, _pixel_samples(image))])
    pooled = is_pooled(seen, checkpoint.missing)
    traced = vectors_task(model, shape, options.hidden_states, pooled)
    pooling = "pooler" if pooled else "cls"
    return _Subject(checkpoint, task, image, [_Tower("encoder", traced, _pixel_samples(image))], pooling=pooling)


def _contrast_subject(checkpoint: Checkpoint, image: contract.ImageInfo) -> _Subject:
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
    towers = [_Tower("encoder", text, read), _Tower("image", pixels, _pixel_samples(image))]
    return _Subject(checkpoint, CONTRAST, image, towers, contrast, max_length, "projection")


def _check_contrast(subject: _Subject, vectors: list[torch.Tensor], contrast: contract.ContrastInfo) -> None:
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
        arguments |= dict(zip(tower.traced.inputs, _tensors(subject, tower), strict=True))
    with torch.no_grad():
        expected = subject.checkpoint.model(**arguments).logits_per_image
    found = contrast.scale * vectors[1] @ vectors[0].T + contrast.bias
    worst = float((found - expected).abs().max())
    if not worst <= _CONTRAST_TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UnsupportedError(
            f"{subject.checkpoint.source.name} cannot be exported: it compares pictures with texts in a way of its own"
        )


def _pixel_samples(image: contract.ImageInfo) -> _Samples:
    evaluation: list[Sample] = [{"pixel_values": pixels} for pixels in evaluation_samples(image, _COMPARED_ROWS)]
    calibration: list[Sample] = [{"pixel_values": pixels} for pixels in calibration_samples(image, _CALIBRATION_ROWS)]
    return _Samples(evaluation[:_PARITY_ROWS], calibration, evaluation)


def _text_samples(
    checkpoint: Checkpoint, inputs: tuple[str, ...], max_length: int, text_length: int | None
) -> _Samples:
    padding = "do_not_pad" if text_length is None else "max_length"

    def rows(name: Literal["calibration", "evaluation"], count: int) -> list[Sample]:
        found: list[Sample] = []
        for text in texts.passages(name, count):
            encoded = checkpoint.tokenizer(text, truncation=True, max_length=max_length, padding=padding)
            found.append({key: np.array(encoded[key], np.int64) for key in inputs})
        return found

    evaluation = rows("evaluation", _COMPARED_ROWS)
    return _Samples(evaluation[:_PARITY_ROWS], rows("calibration", _CALIBRATION_ROWS), evaluation)


def _tensors(subject: _Subject, tower: _Tower) -> tuple[torch.Tensor, ...]:
    batch = padded(tower.samples.parity, _pad(subject))
    return tuple(torch.from_numpy(batch[name]) for name in tower.traced.inputs)


def _reference(subject: _Subject, tower: _Tower) -> tuple[torch.Tensor, ...]:
    return reference_outputs(subject.checkpoint.model, tower.traced, _tensors(subject, tower))


def _pad(subject: _Subject) -> int:
    tokenizer = subject.checkpoint.tokenizer
    return 0 if tokenizer is None else tokenizer.pad_token_id or 0


def _export_tower(
    subject: _Subject,
    tower: _Tower,
    expected: tuple[torch.Tensor, ...],
    folders: tuple[Path, Path],
    options: ExportOptions,
    clock: Clock,
) -> tuple[contract.GraphInfo, contract.EncoderParity]:
    """Write one graph and compare it with PyTorch; `folders` are that of the bundle, and one for what is not kept."""
    graph, names = _graph(subject, tower, clock)
    quantized, pad = options.quantize != "none", _pad(subject)
    path = folders[0] / f"{tower.name}.onnx"
    with clock.step("verify"):
        original = folders[1] / path.name if quantized else path
        twin = graph.clone() if quantized else graph
        lower_to_float(twin)
        fuse_biases(twin)
        write_graph(twin, original)
        runner = EncoderRunner(original, usable_cores())
        parity = compare_with_reference(runner, names, expected, tower.samples.parity, pad)
    quantization = contract.Quantization("none")
    if quantized:
        with clock.step("quantize"):
            quantization = quantize_encoder(graph, options, tower.samples.calibration, folders[1], usable_cores())
            write_graph(graph, path)
        with clock.step("compare"):
            small = EncoderRunner(path, usable_cores())
            judged = names[-1]
            compared = tower.samples.compared
            measured = compare_quantized(lambda one: runner.run(one)[judged], small, judged, compared, pad)
            parity = dataclasses.replace(parity, quantized=measured)
    return describe_graph(graph, path, quantization, encoder_notes(graph)), parity


def _graph(subject: _Subject, tower: _Tower, clock: Clock) -> tuple[ir.Model, tuple[str, ...]]:
    model, max_length = subject.checkpoint.model, subject.max_length if "input_ids" in tower.traced.inputs else None
    graph, spec = fused_graph(
        subject.checkpoint.source.name, lambda: encoder_spec(model, tower.traced, tower.name, max_length), clock
    )
    return graph, spec.outputs


def _cannot(checkpoint: Checkpoint, error: UnsupportedModelError) -> UnsupportedError:
    return UnsupportedError(f"{checkpoint.source.name} cannot be exported: {error}")


def _together(parities: list[contract.EncoderParity]) -> contract.EncoderParity:
    """One record for all graphs: the worst of each number."""
    measured = [parity.quantized for parity in parities if parity.quantized is not None]
    quantized = None
    if measured:
        rows = sum(one.rows for one in measured)
        mean = sum(one.cosine_mean * one.rows for one in measured) / rows
        quantized = contract.QuantizedEncoderParity(mean, min(one.cosine_worst for one in measured), rows)
    return contract.EncoderParity(
        batch=max(parity.batch for parity in parities),
        single=max(parity.single for parity in parities),
        scale=max(parity.scale for parity in parities),
        tolerance=max(parity.tolerance for parity in parities),
        quantized=quantized,
    )


def _manifest(subject: _Subject, graphs: dict[str, contract.GraphInfo], folder: Path) -> contract.Manifest:
    model, tokenizer = subject.checkpoint.model, subject.checkpoint.tokenizer
    tokens, special = contract.Tokens(None, [], None), {}
    if tokenizer is not None:
        special = {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
        eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        tokens = contract.Tokens(tokenizer.bos_token_id, eos, tokenizer.pad_token_id, tokenizer.mask_token_id)
    return contract.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        triform_version=importlib.metadata.version("triform"),
        form="encoder",
        task=subject.task,
        model_type=model.config.model_type,
        model_name=subject.checkpoint.source.name,
        graphs=graphs,
        cache=None,
        max_length=subject.max_length,
        vocab_size=0 if tokenizer is None else int(model.config.get_text_config().vocab_size),
        parameters=model.num_parameters(),
        tokens=tokens,
        generation=contract.GenerationDefaults(),
        tokenizer=None if tokenizer is None else contract.TokenizerInfo("tokenizer.json", None, special),
        files=describe_files(folder),
        export=contract.ExportInfo({}, {}),
        encoder=_encoder_info(subject, graphs),
    )


def _encoder_info(subject: _Subject, graphs: dict[str, contract.GraphInfo]) -> contract.EncoderInfo:
    config = subject.checkpoint.model.config
    outputs = [output for graph in graphs.values() for output in graph.outputs]
    embedding = None
    for output in outputs:
        if output.name == "image_embedding":
            width = output.shape[-1]
            if not isinstance(width, int):
                raise ExportError("the vector of a picture has no fixed width; please report this model")
            embedding = contract.EmbeddingInfo(width, subject.pooling, subject.contrast is not None)
    labelled = subject.task == LABELS
    return contract.EncoderInfo(
        embedding=embedding,
        labels=[str(config.id2label[index]) for index in range(config.num_labels)] if labelled else [],
        problem_type=_problem_type(config) if labelled else None,
        hidden_states=sum(output.name.startswith("hidden_states.") for output in outputs),
        image=subject.image,
        contrast=subject.contrast,
    )


def _problem_type(config: PretrainedConfig) -> str:
    """Which scores transformers' image-classification pipeline makes of a model's numbers."""
    if config.problem_type == "regression":
        return "regression"
    several = config.problem_type == "multi_label_classification" or config.num_labels == 1
    return "multi_label_classification" if several else "single_label_classification"
