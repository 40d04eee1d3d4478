"""Exports an encoder of images: trace, fuse, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import onnx_ir as ir
from transformers import PretrainedConfig

from triform.export.checkpoint import loading
from triform.export.checkpoint.processors import load_image_processor, save_tokenizer
from triform.export.checkpoint.source import Checkpoint, Source
from triform.export.describe.encoder import hidden_state_count, label_names, vector_width
from triform.export.describe.manifest import VocabularyInfo, form_manifest, model_info, write_manifest
from triform.export.describe.plan import Row, plan_rows, size_rows, stored_for
from triform.export.describe.special_tokens import encoder_tokens, special_strings
from triform.export.forms.encoders.encoder_graph import bundle_graphs, float_stage, write_encoder_graphs
from triform.export.forms.encoders.image_encoder import ImageEncoder, Tower, image_checks, image_encoder
from triform.export.forms.encoders.projections import differentiable
from triform.export.graph.fused import fused_graph
from triform.export.graph.tracing import quiet_torch
from triform.export.options import ExportOptions
from triform.export.report import Clock, Report, finish
from triform.export.tokenization.clean_up import clean_up_decoding
from triform.export.write import staged
from triform.models.encoder.graph import encoder_spec
from triform.models.encoder.image_tasks import CONTRAST, IMAGE_HEADS, LABELS, VECTORS
from triform.runtime.bundle.manifest import EmbeddingInfo, EncoderInfo, GraphInfo, Manifest
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import InputError, option
from triform.runtime.media.image import require_pillow


def plan(origin: Source, config: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """The rows that describe what `export` would do, from the config alone."""
    _check_goals(origin.task, options)
    details = size_rows(getattr(config, "vision_config", config))
    return plan_rows(origin.name, "encoder", origin.task, config.model_type, details, stored_for(options))


def _check_goals(task: str, options: ExportOptions) -> None:
    """Refuse a goal for two graphs whose vectors are compared with each other.

    Raises:
        InputError: there is one.
    """
    if task == CONTRAST and options.goals:
        raise InputError(
            f"{option(options.goals[0])} is not for {CONTRAST}, which has two graphs; export with "
            f"{option('quantize')} int8 or int4"
        )


def load(origin: Source, config: PretrainedConfig, options: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its task's head and its image processor; also the tokenizer if it reads texts too.

    Raises:
        ExportError: see `loading.load_checkpoint` and `load_image_processor`.
        InputError: there is a goal, and two graphs.
        UnsupportedError: Pillow is not installed.
    """
    _check_goals(origin.task, options)
    require_pillow()
    task = origin.task
    processor = load_image_processor(origin)
    unused = ("pooler",) if task == VECTORS else ()
    loader = loading.load_checkpoint if task == CONTRAST else loading.load_model
    loaded = loader(origin, config, IMAGE_HEADS[task], unused=unused)
    return dataclasses.replace(loaded, image_processor=processor)


def export(checkpoint: Checkpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn a loaded model into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph or the pixels do not match PyTorch's.
        UnsupportedError: the architecture cannot be traced, or the image processor cannot be described.
    """
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with clock.step("reference"), quiet_torch():
            encoder = image_encoder(checkpoint, options)
            all_checks = image_checks(encoder)
        written = {}
        for tower, checks in zip(encoder.towers, all_checks, strict=True):
            path = folder / f"{tower.name}.onnx"
            graph, names = _tower_graph(encoder, tower, clock)
            if len(encoder.towers) == 1:
                subject = differentiable(checkpoint.model, tower.traced, checks.calibration, names, encoder.pad)
                checks = dataclasses.replace(checks, subject=subject)
            with clock.step("verify"):
                stage = float_stage(graph, path, Path(scratch), options)
            written[tower.name] = write_encoder_graphs(graph, stage, names, checks, path, Path(scratch), options, clock)
        graphs = bundle_graphs(written, options.gpu_dtype)
        with clock.step("write"):
            if checkpoint.tokenizer is not None:
                save_tokenizer(checkpoint.tokenizer, folder)
                clean_up_decoding(checkpoint.tokenizer, folder)
            write_manifest(graphs.into(_manifest(encoder, graphs.graphs)), folder, graphs.parity, clock)
    return finish(bundle, checkpoint.weights_size, graphs.parity, clock)


def _tower_graph(encoder: ImageEncoder, tower: Tower, clock: Clock) -> tuple[ir.Model, tuple[str, ...]]:
    checkpoint = encoder.checkpoint
    max_length = encoder.max_length if "input_ids" in tower.traced.inputs else None
    graph, spec = fused_graph(
        checkpoint.source.name, lambda: encoder_spec(checkpoint.model, tower.traced, tower.name, max_length), clock
    )
    return graph, spec.outputs


def _manifest(encoder: ImageEncoder, graphs: dict[str, GraphInfo]) -> Manifest:
    checkpoint, tokenizer = encoder.checkpoint, encoder.checkpoint.tokenizer
    vocabulary = VocabularyInfo()
    if tokenizer is not None:
        vocabulary = VocabularyInfo(
            tokenizer=TokenizerInfo(
                "tokenizer.json", None, special_strings(tokenizer), truncation_side=tokenizer.truncation_side
            ),
            tokens=encoder_tokens(tokenizer),
            size=int(checkpoint.model.config.get_text_config().vocab_size),
            max_length=encoder.max_length,
        )
    manifest = form_manifest(model_info(checkpoint, "encoder", encoder.task), vocabulary, graphs)
    return dataclasses.replace(manifest, encoder=_encoder_info(encoder, graphs))


def _encoder_info(encoder: ImageEncoder, graphs: dict[str, GraphInfo]) -> EncoderInfo:
    outputs = [output for graph in graphs.values() for output in graph.outputs]
    width = vector_width(outputs, "image_embedding")
    normalized = encoder.contrast is not None
    return EncoderInfo(
        embedding=None if width is None else EmbeddingInfo(width, encoder.pooling, normalized),
        labels=label_names(encoder.checkpoint.model.config) if encoder.task == LABELS else [],
        problem_type=encoder.problem_type,
        hidden_states=hidden_state_count(outputs),
        image=encoder.image,
        contrast=encoder.contrast,
    )
