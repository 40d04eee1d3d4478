"""Exports an encoder of texts: trace, fuse, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir
from transformers import PretrainedConfig

from triform.export.checkpoint import loading
from triform.export.checkpoint.processors import load_original_tokenizer, save_tokenizer
from triform.export.checkpoint.purpose import UNUSED
from triform.export.checkpoint.sentence.sentence_transformers import relevance_of
from triform.export.checkpoint.source import Checkpoint, Source
from triform.export.describe.encoder import hidden_state_count, label_names, vector_width
from triform.export.describe.manifest import VocabularyInfo, form_manifest, model_info, write_manifest
from triform.export.describe.plan import Row, plan_rows, size_rows, stored_for, vocabulary_row
from triform.export.describe.special_tokens import encoder_tokens, padding_of, special_strings
from triform.export.forms.encoders.checks import EncoderChecks
from triform.export.forms.encoders.encoder_graph import bundle_graphs, float_stage, write_encoder_graphs
from triform.export.forms.encoders.projections import differentiable
from triform.export.forms.encoders.text_encoder import (
    EVALUATION_ROWS,
    TextEncoder,
    parity_batches,
    text_encoder,
    text_reference,
    text_samples,
)
from triform.export.graph.fused import fused_graph
from triform.export.options import ExportOptions
from triform.export.quantize.mixed.moments import Differentiable
from triform.export.report import Clock, Report, finish
from triform.export.samples import texts
from triform.export.samples.own import calibration_text
from triform.export.tokenization.clean_up import clean_up_decoding
from triform.export.tokenization.code_points import code_points_info
from triform.export.tokenization.conversion import reads_pages
from triform.export.tokenization.token_tables import add_by_token, token_tables
from triform.export.write import staged
from triform.models import catalog
from triform.models.architectures import BOXES, BY_TOKEN, media_read, more_than_text, takes
from triform.models.encoder.graph import encoder_spec
from triform.models.spec import GraphSpec
from triform.runtime.bundle.manifest import EmbeddingInfo, EncoderInfo, GraphInfo, Manifest
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import UnsupportedError

_CALIBRATION_ROWS = 48


def plan(origin: Source, config: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """The rows that describe what `export` would do, from the config alone."""
    details = [*size_rows(config), vocabulary_row(config)]
    return plan_rows(origin.name, "encoder", origin.task, config.model_type, details, stored_for(options))


def load(origin: Source, config: PretrainedConfig, _: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its task's head.

    Raises:
        ExportError: see `loading.load_checkpoint`.
        UnsupportedError: the model reads more of each token than its tokenizer gives.
    """
    auto_class = catalog.auto_class(config, origin.task)
    checkpoint = loading.load_checkpoint(origin, config, auto_class, unused=UNUSED.get(origin.task, ()))
    if any(takes(type(checkpoint.model), name) for name in BY_TOKEN):
        _look_up_by_token(checkpoint)
    return loading.of_texts(checkpoint, "input_ids") if media_read(config) else checkpoint


def _look_up_by_token(checkpoint: Checkpoint) -> None:
    """Let the model look up what its tokenizer gives for each token besides the id."""
    model = checkpoint.model
    tables = token_tables(load_original_tokenizer(checkpoint.source), model)
    lacking = more_than_text(type(model), (*tables, BOXES))
    if lacking is not None:
        raise UnsupportedError(
            f"{type(model).__name__} reads {lacking} besides its texts, which its tokenizer does not give"
        )
    add_by_token(model, tables)


def export(checkpoint: Checkpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn a loaded encoder into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph does not match PyTorch.
        UnsupportedError: the architecture cannot be traced.
    """
    encoder = text_encoder(checkpoint, options)
    if encoder.boxes is not None and not reads_pages(checkpoint.tokenizer):
        clock.notes.append("the tokenizer gives no boxes: those of special tokens are as LayoutLM was trained with")
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with clock.step("reference"):
            checks = _checks(encoder, options)
        graph, spec = text_graph(encoder, clock)
        checks = dataclasses.replace(checks, subject=_subject(encoder, checks, spec))
        path = folder / "encoder.onnx"
        # First, because what it takes counts towards a target.
        tokenizer = _write_tokenizer(checkpoint.tokenizer, folder)
        with clock.step("verify"):
            stage = float_stage(graph, path, Path(scratch), options)
        written = write_encoder_graphs(graph, stage, spec.outputs, checks, path, Path(scratch), options, clock)
        graphs = bundle_graphs({"encoder": written}, options.gpu_dtype)
        with clock.step("write"):
            manifest = graphs.into(_manifest(encoder, graphs.graphs["encoder"], tokenizer))
            write_manifest(manifest, folder, graphs.parity, clock)
    return finish(bundle, checkpoint.weights_size, graphs.parity, clock)


def _subject(encoder: TextEncoder, checks: EncoderChecks, spec: GraphSpec) -> Differentiable:
    return differentiable(encoder.checkpoint.model, encoder.traced, checks.calibration, spec.outputs, encoder.pad)


def text_graph(encoder: TextEncoder, clock: Clock) -> tuple[ir.Model, GraphSpec]:
    """Trace and fuse an encoder's graph.

    Raises:
        UnsupportedError: the architecture cannot be traced.
    """
    checkpoint = encoder.checkpoint
    return fused_graph(
        checkpoint.source.name,
        lambda: encoder_spec(checkpoint.model, encoder.traced, "encoder", encoder.max_length),
        clock,
    )


def _checks(encoder: TextEncoder, options: ExportOptions) -> EncoderChecks:
    return EncoderChecks(
        [text_reference(encoder, samples) for samples in parity_batches(encoder)],
        text_samples(encoder, texts.spread_passages(calibration_text(options.calibrate), _CALIBRATION_ROWS)),
        text_samples(encoder, texts.passages("evaluation", EVALUATION_ROWS)),
        encoder.problem_type,
    )


def _write_tokenizer(tokenizer: Any, folder: Path) -> TokenizerInfo:
    special = special_strings(tokenizer)
    points = code_points_info(tokenizer)
    if points is not None:
        return TokenizerInfo(None, None, special, points, truncation_side=tokenizer.truncation_side)
    save_tokenizer(tokenizer, folder)
    clean_up_decoding(tokenizer, folder)
    return TokenizerInfo("tokenizer.json", None, special, truncation_side=tokenizer.truncation_side)


def _manifest(encoder: TextEncoder, graph: GraphInfo, tokenizer: TokenizerInfo) -> Manifest:
    checkpoint = encoder.checkpoint
    padding = padding_of(checkpoint, encoder.task)
    tokens = dataclasses.replace(encoder_tokens(checkpoint.tokenizer), pad=padding)
    vocabulary = VocabularyInfo(tokenizer, tokens, encoder.vocab_size, encoder.max_length)
    manifest = form_manifest(model_info(checkpoint, "encoder", encoder.task), vocabulary, {"encoder": graph})
    return dataclasses.replace(manifest, encoder=_encoder_info(encoder, graph))


def _encoder_info(encoder: TextEncoder, graph: GraphInfo) -> EncoderInfo:
    config = encoder.checkpoint.model.config
    labels = label_names(config) if encoder.task in ("text-classification", "token-classification") else []
    relevance = None
    if encoder.task == "text-classification" and len(labels) == 1:
        relevance = relevance_of(config, encoder.checkpoint.source.path)
    return EncoderInfo(
        embedding=_embedding_info(encoder, graph),
        labels=labels,
        problem_type=encoder.problem_type,
        relevance=relevance,
        hidden_states=hidden_state_count(graph.outputs),
        equal_lengths=encoder.equal_lengths,
        min_length=encoder.min_length,
        boxes=encoder.boxes,
        context_first=encoder.context_first,
    )


def _embedding_info(encoder: TextEncoder, graph: GraphInfo) -> EmbeddingInfo | None:
    width, modules = vector_width(graph.outputs, "sentence_embedding"), encoder.modules
    if width is None:
        return None
    return EmbeddingInfo(
        dimension=width,
        pooling=", ".join(modules.pooling),
        normalized=modules.normalize and modules.dimensions is None,
        prompts=modules.prompts,
        default_prompt=modules.default_prompt,
        include_prompt=modules.include_prompt,
    )
