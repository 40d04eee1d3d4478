"""Parity of a finished encoder with its source, again: of texts, of pictures, or a table of static vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig

from triform.export.checkpoint.source import Source
from triform.export.forms import encoder as encoder_export
from triform.export.forms import encoder_subject, image_subject
from triform.export.forms import image as image_export
from triform.export.forms import static as static_export
from triform.export.graph.tracing import quiet
from triform.export.options import ExportOptions
from triform.export.runners import EncoderRunner, usable_cores
from triform.export.samples.batches import Array, Sample, padded
from triform.export.verify.encoder import compare_quantized, compare_with_reference, judged_output, measure, together
from triform.models.encoder.graph import reference_outputs
from triform.models.encoder.static import StaticConfig, StaticEncoder
from triform.runtime.bundle.export_record import EncoderParity
from triform.runtime.bundle.folder import Bundle
from triform.runtime.errors import ExportError


@dataclass(frozen=True)
class _Original:
    """One graph's source.

    Attributes:
        graph: its name.
        outputs: PyTorch's, for the arrays of a batch, in the order of the graph's.
        parity: inputs to compare.
        compared: inputs to measure a quantized graph with.
        pad: token id that pads.
        problem_type: of a classification.
    """

    graph: str
    outputs: Callable[[Mapping[str, Array]], Sequence[torch.Tensor]]
    parity: Sequence[Sample]
    compared: Sequence[Sample]
    pad: int
    problem_type: str | None = None


def verify_encoder(bundle: Bundle, found: Source, config: PretrainedConfig) -> EncoderParity:
    """Compare an encoder with the checkpoint it came from; see `recheck.verify_against`."""
    manifest, encoder = bundle.manifest, bundle.manifest.encoder
    keeps_states = encoder is not None and encoder.hidden_states > 0
    found = dataclasses.replace(found, task=manifest.task)
    options = ExportOptions(hidden_states=keeps_states)
    if isinstance(config, StaticConfig):
        originals = [_static_original(bundle, found, config)]
    elif encoder is not None and encoder.image is not None:
        with quiet():
            originals = _image_originals(bundle, found, config, options)
    else:
        options = dataclasses.replace(options, context_length=manifest.max_length)
        originals = [_text_original(found, config, options)]
    return together([_compare(bundle, original) for original in originals])


def _compare(bundle: Bundle, original: _Original) -> EncoderParity:
    path, info = bundle.graph(original.graph)
    runner, names = EncoderRunner(path, usable_cores()), [output.name for output in info.outputs]
    samples, pad = original.parity, original.pad
    expected = original.outputs(padded(samples, pad))
    if info.quantization.scheme == "none":
        return compare_with_reference(runner, names, expected, samples, pad)
    parity = measure(runner, names, expected, samples, pad)
    judged = judged_output(names)
    place = names.index(judged)
    quantized = compare_quantized(
        lambda one: original.outputs(one)[place].numpy(), runner, judged, original.compared, pad, original.problem_type
    )
    return dataclasses.replace(parity, quantized=quantized)


def _text_original(found: Source, config: PretrainedConfig, options: ExportOptions) -> _Original:
    subject = encoder_subject.subject_of(encoder_export.load(found, config, options), options)
    model, pad = subject.checkpoint.model, subject.checkpoint.tokenizer.pad_token_id or 0

    def outputs(arrays: Mapping[str, Array]) -> Sequence[torch.Tensor]:
        return reference_outputs(model, subject.traced, tuple(torch.from_numpy(arrays[name]) for name in subject.names))

    compared = encoder_subject.samples_of(subject, "evaluation", encoder_subject.COMPARED_ROWS)
    problem_type = encoder_subject.problem_type_of(subject)
    parity = encoder_subject.parity_batches(subject)[0]
    return _Original("encoder", outputs, parity, compared, pad, problem_type)


def _image_originals(
    bundle: Bundle, found: Source, config: PretrainedConfig, options: ExportOptions
) -> list[_Original]:
    subject = image_subject.subject_of(image_export.load(found, config, options), options)
    encoder = bundle.manifest.encoder
    if encoder is None or subject.image != encoder.image:
        raise ExportError(f"{found.name} makes other pixels of a picture than {bundle.folder} does")
    if subject.contrast != encoder.contrast:
        raise ExportError(f"{found.name} compares pictures with texts in another way than {bundle.folder} does")

    def original(tower: image_subject.Tower) -> _Original:
        samples = tower.samples
        return _Original(
            tower.name, lambda arrays: image_subject.reference(subject, tower, arrays), samples.parity,
            samples.compared, subject.pad, subject.problem_type,
        )  # fmt: skip

    return [original(tower) for tower in subject.towers]


def _static_original(bundle: Bundle, found: Source, config: PretrainedConfig) -> _Original:
    checkpoint = static_export.load(found, config, ExportOptions())
    table = checkpoint.table
    encoder = bundle.manifest.encoder
    known = encoder.embedding if encoder is not None else None
    shape = (bundle.manifest.vocab_size, 0 if known is None else known.dimension)
    if tuple(table.vectors.shape) != shape:
        raise ExportError(
            f"{found.name} is not what {bundle.folder} was exported from: it has {len(table.vectors)} vectors of "
            f"{table.vectors.shape[1]} numbers, not {shape[0]} of {shape[1]}"
        )
    model = StaticEncoder(table.vectors, shape[1], table.unknown, table.normalize)

    def outputs(arrays: Mapping[str, Array]) -> Sequence[torch.Tensor]:
        return [model(**{name: torch.from_numpy(value) for name, value in arrays.items()})]

    compared = static_export.samples_of(table)
    return _Original("encoder", outputs, compared[: static_export.PARITY_ROWS], compared, table.unknown or 0)
