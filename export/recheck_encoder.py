"""Parity of a finished text encoder with its source, again."""

from __future__ import annotations

import dataclasses

import torch
from transformers import PretrainedConfig

from triform.export import encoder_export
from triform.export.cores import usable_cores
from triform.export.options import ExportOptions
from triform.export.source import Source
from triform.export.verify_encoder import (
    Array,
    EncoderRunner,
    compare_quantized,
    compare_with_reference,
    measure,
    padded,
)
from triform.models.encoder import reference_outputs
from triform.runtime.bundle import Bundle
from triform.runtime.manifest import EncoderParity


def verify_encoder(bundle: Bundle, found: Source, config: PretrainedConfig) -> EncoderParity:
    """Compare a text encoder with the checkpoint it came from; see `recheck.verify_against`."""
    manifest = bundle.manifest
    keeps_states = manifest.encoder is not None and manifest.encoder.hidden_states > 0
    options = ExportOptions(task=manifest.task, hidden_states=keeps_states)
    subject = encoder_export.subject_of(encoder_export.load(found, config, options), options)
    model, pad = subject.checkpoint.model, subject.checkpoint.tokenizer.pad_token_id or 0
    path, info = bundle.graph("encoder")
    runner, names = EncoderRunner(path, usable_cores()), [output.name for output in info.outputs]

    def reference(arrays: dict[str, Array]) -> tuple[torch.Tensor, ...]:
        return reference_outputs(model, subject.traced, tuple(torch.from_numpy(arrays[name]) for name in subject.names))

    samples = encoder_export.samples_of(subject, "evaluation", encoder_export.PARITY_ROWS)
    expected = reference(padded(samples, pad))
    if info.quantization.scheme == "none":
        return compare_with_reference(runner, names, expected, samples, pad)
    parity = measure(runner, names, expected, samples, pad)
    compared = encoder_export.samples_of(subject, "evaluation", encoder_export.COMPARED_ROWS)
    quantized = compare_quantized(lambda one: reference(dict(one))[-1].numpy(), runner, names[-1], compared, pad)
    return dataclasses.replace(parity, quantized=quantized)
