"""An encoder becomes a bundle: trace, fuse, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import transformers
from transformers import PretrainedConfig

from triform.export.checkpoint import source
from triform.export.checkpoint.sentence_transformers import relevance_of
from triform.export.checkpoint.source import Checkpoint, Source, save_tokenizer
from triform.export.describe.manifest import VocabularyInfo, form_manifest, model_info, write_manifest
from triform.export.describe.plan import Row, plan_rows, size_rows, stored_as, vocabulary_row
from triform.export.describe.special_tokens import encoder_tokens, special_strings
from triform.export.forms.encoder_graph import Trial, finish_graph
from triform.export.forms.encoder_subject import (
    COMPARED_ROWS,
    Subject,
    parity_batches,
    problem_type_of,
    samples_of,
    subject_of,
    vocab_size,
)
from triform.export.graph.fused import encoder_notes, fused_graph
from triform.export.options import ExportOptions
from triform.export.report import Clock, Report, finish
from triform.export.samples.batches import Sample, padded
from triform.export.tokenization.clean_up import clean_up_decoding
from triform.export.tokenization.code_points import describe
from triform.export.write import describe_graph, staged
from triform.models.encoder.graph import encoder_spec, reference_outputs
from triform.models.encoder.tasks import head_of, task_of
from triform.models.spec import GraphSpec
from triform.runtime.bundle import manifest as contract
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import ExportError

_CALIBRATION_ROWS = 48


def plan(found: Source, config: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """What `export` would do, from the config alone: rows of (what, value)."""
    details = [*size_rows(config), vocabulary_row(config)]
    task, weights = options.task or task_of(config), stored_as(options.quantize)
    return plan_rows(found.name, "encoder", task, config.model_type, details, weights)


def load(found: Source, config: PretrainedConfig, options: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its task's head.

    Raises:
        ExportError: see `source.load`.
    """
    task = options.task or task_of(config)
    auto_class = head_of(task).auto_class
    if task == "feature-extraction" and getattr(config, "is_encoder_decoder", False):
        auto_class = transformers.AutoModelForTextEncoding
    unused = ("pooler",) if task == "feature-extraction" else ()
    return source.load(found, config, auto_class, unused=unused)


def export(checkpoint: Checkpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn a loaded encoder into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph does not match PyTorch.
        UnsupportedError: the architecture cannot be traced.
    """
    subject = subject_of(checkpoint, options)
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with clock.step("reference"):
            trial = _trial(subject)
        graph, spec = _graph(subject, clock)
        path = folder / "encoder.onnx"
        quantization, parity = finish_graph(graph, spec.outputs, trial, path, Path(scratch), options, clock)
        with clock.step("write"):
            tokenizer = _write_tokenizer(checkpoint.tokenizer, folder)
            info = describe_graph(graph, path, quantization, encoder_notes(graph))
            write_manifest(_manifest(subject, spec, info, tokenizer), folder, parity, clock)
    return finish(bundle, checkpoint.weights_size, parity, clock)


def _trial(subject: Subject) -> Trial:
    pad = subject.checkpoint.tokenizer.pad_token_id or 0
    first, *others = [(batch, _expected(subject, batch, pad)) for batch in parity_batches(subject)]
    calibration = samples_of(subject, "calibration", _CALIBRATION_ROWS)
    compared = samples_of(subject, "evaluation", COMPARED_ROWS)
    return Trial(*first, calibration, compared, pad, problem_type_of(subject), others)


def _expected(subject: Subject, samples: list[Sample], pad: int) -> tuple[torch.Tensor, ...]:
    batch = padded(samples, pad)
    inputs = tuple(torch.from_numpy(batch[name]) for name in subject.names)
    return reference_outputs(subject.checkpoint.model, subject.traced, inputs)


def _graph(subject: Subject, clock: Clock) -> tuple[ir.Model, GraphSpec]:
    model = subject.checkpoint.model
    return fused_graph(
        subject.checkpoint.source.name,
        lambda: encoder_spec(model, subject.traced, "encoder", subject.max_length),
        clock,
    )


def _write_tokenizer(tokenizer: Any, folder: Path) -> TokenizerInfo:
    special = special_strings(tokenizer)
    points = describe(tokenizer)
    if points is not None:
        return TokenizerInfo(None, None, special, points)
    save_tokenizer(tokenizer, folder)
    clean_up_decoding(tokenizer, folder)
    return TokenizerInfo("tokenizer.json", None, special)


def _manifest(
    subject: Subject, spec: GraphSpec, graph: contract.GraphInfo, tokenizer: TokenizerInfo
) -> contract.Manifest:
    checkpoint = subject.checkpoint
    vocabulary = VocabularyInfo(
        tokenizer, encoder_tokens(checkpoint.tokenizer), vocab_size(checkpoint), subject.max_length
    )
    manifest = form_manifest(model_info(checkpoint, "encoder", subject.task), vocabulary, {"encoder": graph})
    return dataclasses.replace(manifest, encoder=_encoder_info(subject, spec, graph))


def _encoder_info(subject: Subject, spec: GraphSpec, graph: contract.GraphInfo) -> contract.EncoderInfo:
    config, modules = subject.checkpoint.model.config, subject.modules
    embedding = None
    for output in graph.outputs:
        if output.name == "sentence_embedding":
            width = output.shape[-1]
            if not isinstance(width, int):
                raise ExportError("the sentence embedding has no fixed width; please report this model")
            pooling = ", ".join(modules.pooling)
            embedding = contract.EmbeddingInfo(
                width,
                pooling,
                modules.normalize,
                modules.prompts,
                modules.default_prompt,
                modules.include_prompt,
            )
    labelled = subject.task in ("text-classification", "token-classification")
    labels = [str(config.id2label[index]) for index in range(config.num_labels)] if labelled else []
    kept = sum(name.startswith("hidden_states.") for name in spec.outputs)
    relevance = None
    if subject.task == "text-classification" and len(labels) == 1:
        relevance = relevance_of(config, Path(subject.checkpoint.source.location))
    return contract.EncoderInfo(
        embedding=embedding, labels=labels, problem_type=problem_type_of(subject), hidden_states=kept,
        relevance=relevance,
        equal_lengths=subject.equal_lengths, min_length=subject.min_length,
    )  # fmt: skip
