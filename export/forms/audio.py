"""Exports an encoder of audio: trace, fuse, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import onnx_ir as ir
from transformers import PretrainedConfig

from triform.export.checkpoint import loading
from triform.export.checkpoint.processors import load_original_tokenizer
from triform.export.checkpoint.source import Checkpoint, Source
from triform.export.describe.encoder import label_names
from triform.export.describe.manifest import VocabularyInfo, form_manifest, model_info, write_manifest
from triform.export.describe.plan import Row, plan_rows, size_rows, stored_for
from triform.export.describe.special_tokens import encoder_tokens
from triform.export.forms.encoders.audio_encoder import (
    AudioEncoder,
    audio_batches,
    audio_encoder,
    audio_reference,
    read_at_once,
)
from triform.export.forms.encoders.checks import EncoderChecks
from triform.export.forms.encoders.encoder_graph import bundle_graphs, float_stage, write_encoder_graphs
from triform.export.forms.encoders.projections import differentiable
from triform.export.graph.fused import fused_graph
from triform.export.graph.tracing import quiet_torch
from triform.export.options import ExportOptions
from triform.export.quantize.columns.search import ROWS_WORTH_OF_AUDIO
from triform.export.report import Clock, Report, finish
from triform.export.tokenization.ctc import save_ctc_tokenizer
from triform.export.write import staged
from triform.models.encoder.audio_tasks import AUDIO_HEADS, RECOGNITION
from triform.models.encoder.graph import encoder_spec
from triform.runtime.bundle.manifest import EncoderInfo, GraphInfo, Manifest
from triform.runtime.bundle.media_info import CtcInfo
from triform.runtime.bundle.text_info import TokenizerInfo

# Weights that only training uses.
_UNUSED = ("masked_spec_embed",)


def plan(origin: Source, config: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """The rows that describe what `export` would do, from the config alone."""
    details = size_rows(getattr(config, "encoder_config", config))
    return plan_rows(origin.name, "encoder", origin.task, config.model_type, details, stored_for(options))


def load(origin: Source, config: PretrainedConfig, options: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its task's head, and the tokenizer if it writes.

    Raises:
        ExportError: see `loading.load_model` and `load_original_tokenizer`.
    """
    loaded = loading.load_model(origin, config, AUDIO_HEADS[origin.task], unused=_UNUSED)
    tokenizer = load_original_tokenizer(origin) if origin.task == RECOGNITION else None
    return dataclasses.replace(loaded, tokenizer=tokenizer)


def export(checkpoint: Checkpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn a loaded model into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph, the features or the texts do not match PyTorch's.
        UnsupportedError: the architecture cannot be traced, or the feature extractor cannot be described.
    """
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with clock.step("reference"), quiet_torch():
            encoder = audio_encoder(checkpoint)
            reference = [audio_reference(encoder, samples) for samples in audio_batches(encoder)]
            samples = encoder.samples
            checks = EncoderChecks(
                reference,
                samples.calibration,
                samples.evaluation,
                encoder.problem_type,
                rows_worth=ROWS_WORTH_OF_AUDIO,
            )
        path = folder / "encoder.onnx"
        graph, names = _graph(encoder, clock)
        with clock.step("verify"):
            stage = float_stage(graph, path, Path(scratch), options)
            encoder = read_at_once(encoder, stage.original.runner)
            calibration = encoder.samples.calibration
            subject = differentiable(checkpoint.model, encoder.traced, calibration, names, 0)
            checks = dataclasses.replace(checks, calibration=calibration, subject=subject)
        # Before quantization, because what the tokenizer takes counts towards a target.
        ctc, vocabulary = _written_with(encoder, folder)
        checks = dataclasses.replace(checks, blank=None if ctc is None else ctc.blank)
        written = write_encoder_graphs(graph, stage, names, checks, path, Path(scratch), options, clock)
        graphs = bundle_graphs({"encoder": written}, options.gpu_dtype)
        with clock.step("write"):
            manifest = graphs.into(_manifest(encoder, graphs.graphs, ctc, vocabulary))
            write_manifest(manifest, folder, graphs.parity, clock)
    return finish(bundle, checkpoint.weights_size, graphs.parity, clock)


def _graph(encoder: AudioEncoder, clock: Clock) -> tuple[ir.Model, tuple[str, ...]]:
    checkpoint = encoder.checkpoint
    graph, spec = fused_graph(
        checkpoint.source.name, lambda: encoder_spec(checkpoint.model, encoder.traced, "encoder", None), clock
    )
    if encoder.traced.frames is not None:
        # torch.export writes the number of frames as an expression of the number of samples.
        logits = graph.graph.outputs[0]
        logits.shape = ir.Shape(["batch", "frames", int(checkpoint.model.config.vocab_size)])
    return graph, spec.outputs


def _written_with(encoder: AudioEncoder, folder: Path) -> tuple[CtcInfo | None, VocabularyInfo]:
    """Write the tokenizer of a model that writes, and describe how; nothing of any other."""
    checkpoint, frames = encoder.checkpoint, encoder.traced.frames
    if frames is None:
        return None, VocabularyInfo()
    tokenizer, size = checkpoint.tokenizer, int(checkpoint.model.config.vocab_size)
    blank = save_ctc_tokenizer(tokenizer, size, folder, checkpoint.source.name)
    vocabulary = VocabularyInfo(TokenizerInfo("tokenizer.json", None, {}), encoder_tokens(tokenizer), size)
    return CtcInfo(blank, frames.stride, frames.offset), vocabulary


def _manifest(
    encoder: AudioEncoder, graphs: dict[str, GraphInfo], ctc: CtcInfo | None, vocabulary: VocabularyInfo
) -> Manifest:
    checkpoint = encoder.checkpoint
    info = EncoderInfo(
        labels=[] if ctc is not None else label_names(checkpoint.model.config),
        problem_type=encoder.problem_type,
        equal_lengths=encoder.equal_lengths,
        min_length=encoder.min_length,
        audio=encoder.audio,
        ctc=ctc,
    )
    manifest = form_manifest(model_info(checkpoint, "encoder", checkpoint.source.task), vocabulary, graphs)
    return dataclasses.replace(manifest, encoder=info)
