"""Compares an encoder's bundle with its source: an encoder of texts, images or audio, or a table of static vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig

from triform.export.checkpoint.source import Source
from triform.export.forms import audio, encoder, image, static
from triform.export.forms.encoders.audio_encoder import audio_batches, audio_encoder, audio_outputs, frame_counts
from triform.export.forms.encoders.gpu_graph import check_gpu_parity
from triform.export.forms.encoders.image_encoder import ImageEncoder, Tower, image_encoder, image_outputs
from triform.export.forms.encoders.text_encoder import (
    EVALUATION_ROWS,
    parity_batches,
    text_encoder,
    text_outputs,
    text_samples,
)
from triform.export.graph.tracing import quiet_torch
from triform.export.options import ExportOptions
from triform.export.recheck.agreement import check_as_recorded, check_float_bundle
from triform.export.runners import EncoderRunner, usable_cores
from triform.export.samples import texts
from triform.export.samples.batches import Array, Sample, padded
from triform.export.verify.encoder import (
    ReferenceBatch,
    encoder_parity,
    quantized_encoder_parity,
    task_output,
    worst_parity,
)
from triform.models.encoder.static import StaticConfig, StaticEncoder
from triform.runtime.bundle.export_record import EncoderParity
from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.targets import manifests, needs_gpu
from triform.runtime.errors import ExportError


@dataclass(frozen=True)
class _Original:
    """PyTorch's counterpart of one graph.

    Attributes:
        graph: the graph's name.
        outputs: PyTorch's outputs for the arrays of a batch, in the order of the graph's.
        parity: samples to compare the graph with PyTorch on.
        evaluation: samples to measure a quantized graph on.
        pad: token id that pads.
        problem_type: of a classification.
        blank: of a model for CTC, see `quantized_encoder_parity`.
        counts: see `ReferenceBatch`.
    """

    graph: str
    outputs: Callable[[Mapping[str, Array]], Sequence[torch.Tensor]]
    parity: Sequence[Sample]
    evaluation: Sequence[Sample]
    pad: int
    problem_type: str | None = None
    blank: int | None = None
    counts: Sequence[int] | None = None


def recheck_encoder(bundle: Bundle, origin: Source, config: PretrainedConfig) -> EncoderParity:
    """Compare an encoder's bundle with its source; see `verify_against`."""
    manifest, info = bundle.manifest, bundle.manifest.encoder
    keeps_states = info is not None and info.hidden_states > 0
    origin = dataclasses.replace(origin, task=manifest.task)
    options = ExportOptions(hidden_states=keeps_states)
    if isinstance(config, StaticConfig):
        originals = [_static_original(bundle, origin, config)]
    elif info is not None and info.image is not None:
        with quiet_torch():
            originals = _image_originals(bundle, origin, config, options)
    elif info is not None and info.audio is not None:
        with quiet_torch():
            originals = [_audio_original(bundle, origin, config)]
    else:
        options = dataclasses.replace(options, context_length=manifest.max_length)
        originals = [_text_original(origin, config, options)]
    parities = [
        worst_parity([_compare(of_target, original, origin.name) for original in originals])
        for of_target in _targets(bundle)
    ]
    first = parities[0]
    if first.quantized is not None:
        # The record is of all graphs together, as this is.
        check_as_recorded(first.quantized, bundle, origin.name)
    return first


def _targets(bundle: Bundle) -> list[Bundle]:
    """The bundle as if it had one target only, for each that a CPU can run.

    Raises:
        ExportError: there is none.
    """
    runnable = [one_target for one_target in manifests(bundle.manifest) if not needs_gpu(one_target)]
    if not runnable:
        raise ExportError(
            f"{bundle.folder} computes with bfloat16, which no CPU runs; it was compared with PyTorch when it was made"
        )
    return [dataclasses.replace(bundle, manifest=one_target) for one_target in runnable]


def _compare(bundle: Bundle, original: _Original, source: str) -> EncoderParity:
    path, info = bundle.graph(original.graph)
    runner, names = EncoderRunner(path, usable_cores()), [output.name for output in info.outputs]
    samples, pad = original.parity, original.pad
    batch = ReferenceBatch(samples, original.outputs(padded(samples, pad)), pad, original.counts)
    if bundle.manifest.target == "gpu":
        return check_gpu_parity(encoder_parity(runner, names, batch), info)
    parity = encoder_parity(runner, names, batch)
    if info.quantization.scheme == "none":
        check_float_bundle(parity, bundle, source)
        return parity
    name = task_output(names)
    place = names.index(name)
    quantized = quantized_encoder_parity(
        lambda arrays: original.outputs(arrays)[place].numpy(),
        runner,
        name,
        original.evaluation,
        pad,
        original.problem_type,
        original.blank,
    )
    return dataclasses.replace(parity, quantized=quantized)


def _text_original(origin: Source, config: PretrainedConfig, options: ExportOptions) -> _Original:
    model = text_encoder(encoder.load(origin, config, options), options)
    return _Original(
        "encoder",
        lambda arrays: text_outputs(model, arrays),
        parity_batches(model)[0],
        text_samples(model, texts.passages("evaluation", EVALUATION_ROWS)),
        model.pad,
        model.problem_type,
    )


def _audio_original(bundle: Bundle, origin: Source, config: PretrainedConfig) -> _Original:
    model = audio_encoder(audio.load(origin, config, ExportOptions()))
    info = bundle.manifest.encoder
    if info is None or model.audio != info.audio:
        raise ExportError(f"{origin.name} makes other features of audio than {bundle.folder} does")
    samples = audio_batches(model)[0]
    return _Original(
        "encoder",
        lambda arrays: audio_outputs(model, arrays),
        samples,
        model.samples.evaluation,
        0,
        model.problem_type,
        None if info.ctc is None else info.ctc.blank,
        frame_counts(model, samples),
    )


def _image_originals(
    bundle: Bundle, origin: Source, config: PretrainedConfig, options: ExportOptions
) -> list[_Original]:
    model = image_encoder(image.load(origin, config, options), options)
    info = bundle.manifest.encoder
    if info is None or model.image != info.image:
        raise ExportError(f"{origin.name} makes other pixels of an image than {bundle.folder} does")
    if model.contrast != info.contrast:
        raise ExportError(f"{origin.name} compares images with texts in another way than {bundle.folder} does")
    return [_tower_original(model, tower) for tower in model.towers]


def _tower_original(model: ImageEncoder, tower: Tower) -> _Original:
    return _Original(
        tower.name,
        lambda arrays: image_outputs(model, tower, arrays),
        tower.samples.parity,
        tower.samples.evaluation,
        model.pad,
        model.problem_type,
    )


def _static_original(bundle: Bundle, origin: Source, config: PretrainedConfig) -> _Original:
    table = static.load(origin, config, ExportOptions()).table
    info = bundle.manifest.encoder
    embedding = info.embedding if info is not None else None
    shape = (bundle.manifest.vocab_size, 0 if embedding is None else embedding.dimension)
    if tuple(table.vectors.shape) != shape:
        raise ExportError(
            f"{origin.name} is not what {bundle.folder} was exported from: it has {len(table.vectors)} vectors of "
            f"{table.vectors.shape[1]} numbers, not {shape[0]} of {shape[1]}"
        )
    model = StaticEncoder(table.vectors, shape[1], table.unknown, table.normalize)
    parity, evaluation = static.static_samples(table)
    return _Original("encoder", lambda arrays: [static.static_outputs(model, arrays)], parity, evaluation, table.pad)
