"""An encoder becomes a bundle: trace, fuse, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import importlib.metadata
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
from triform.export.describe.normal_config import normal_config
from triform.export.forms.encoder_graph import Trial, finish
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
from triform.export.report import Clock, Report, versions
from triform.export.samples.batches import Sample, padded
from triform.export.tokenization.clean_up import clean_up_decoding
from triform.export.tokenization.code_points import describe
from triform.export.write import describe_files, describe_graph, staged
from triform.models.encoder.graph import encoder_spec, reference_outputs
from triform.models.encoder.tasks import head_of, task_of
from triform.models.spec import GraphSpec
from triform.runtime.bundle import manifest as contract
from triform.runtime.bundle.export_record import ExportInfo
from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import ExportError

_CALIBRATION_ROWS = 48


def plan(found: Source, config: PretrainedConfig, options: ExportOptions) -> list[tuple[str, str]]:
    """What `export` would do, from the config alone: rows of (what, value)."""
    normal = normal_config(config)
    name = options.quantize or "int8"
    return [
        ("model", found.name),
        ("form", "encoder"),
        ("task", options.task or task_of(config)),
        ("model type", config.model_type),
        ("layers", str(normal.get("num_layers", "?"))),
        ("hidden size", str(normal.get("hidden_size", "?"))),
        ("vocabulary", str(normal.get("vocab_size", "?"))),
        ("weights", "float32" if name == "none" else name),
        ("steps", "load, trace, fuse, verify against PyTorch, quantize, compare, write"),
    ]


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
        quantization, parity = finish(graph, spec.outputs, trial, path, Path(scratch), options, clock)
        with clock.step("write"):
            tokenizer = _write_tokenizer(checkpoint.tokenizer, folder)
            info = describe_graph(graph, path, quantization, encoder_notes(graph))
            record = _manifest(subject, spec, info, tokenizer, folder)
            times = ExportInfo(versions(), dict(clock.seconds), encoder_parity=parity)
            record = dataclasses.replace(record, export=times)
            (folder / contract.MANIFEST).write_text(record.to_json(), encoding="utf-8")
    size_after = sum(file.stat().st_size for file in bundle.iterdir())
    return Report(bundle, clock.seconds, checkpoint.weights_size, size_after, parity)


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
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    points = describe(tokenizer)
    if points is not None:
        return TokenizerInfo(None, None, special, points)
    save_tokenizer(tokenizer, folder)
    clean_up_decoding(tokenizer, folder)
    return TokenizerInfo("tokenizer.json", None, special)


def _manifest(
    subject: Subject, spec: GraphSpec, graph: contract.GraphInfo, info: TokenizerInfo, folder: Path
) -> contract.Manifest:
    model, tokenizer = subject.checkpoint.model, subject.checkpoint.tokenizer
    config = model.config
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return contract.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        triform_version=importlib.metadata.version("triform"),
        form="encoder",
        task=subject.task,
        model_type=config.model_type,
        model_name=subject.checkpoint.source.name,
        graphs={"encoder": graph},
        cache=None,
        max_length=subject.max_length,
        vocab_size=vocab_size(subject.checkpoint),
        parameters=model.num_parameters(),
        tokens=contract.Tokens(tokenizer.bos_token_id, eos, tokenizer.pad_token_id, tokenizer.mask_token_id),
        generation=GenerationDefaults(),
        tokenizer=info,
        files=describe_files(folder),
        export=ExportInfo({}, {}),
        encoder=_encoder_info(subject, spec, graph),
        encoder_decoder=None,
    )


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
