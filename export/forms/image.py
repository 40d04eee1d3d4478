"""A model that sees pictures becomes a bundle: trace, fuse, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import onnx_ir as ir
from transformers import PretrainedConfig

from triform.export.checkpoint import source
from triform.export.checkpoint.source import Checkpoint, Source, save_tokenizer
from triform.export.describe.manifest import VocabularyInfo, form_manifest, model_info, write_manifest
from triform.export.describe.plan import Row, plan_rows, size_rows, stored_as
from triform.export.describe.special_tokens import encoder_tokens, special_strings
from triform.export.forms.encoder_graph import finish_graph
from triform.export.forms.image_subject import Subject, Tower, subject_of, trials_of
from triform.export.graph.fused import encoder_notes, fused_graph
from triform.export.graph.tracing import quiet
from triform.export.options import ExportOptions
from triform.export.report import Clock, Report, finish
from triform.export.tokenization.clean_up import clean_up_decoding
from triform.export.verify.encoder import together
from triform.export.write import describe_graph, staged
from triform.models.encoder.graph import encoder_spec
from triform.models.encoder.image_tasks import CONTRAST, IMAGE_HEADS, LABELS, VECTORS, image_task_of
from triform.runtime.bundle import manifest as contract
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import ExportError, InputError, option
from triform.runtime.media.image import require_pillow


def plan(found: Source, config: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """What `export` would do, from the config alone: rows of (what, value)."""
    details = size_rows(getattr(config, "vision_config", config))
    task, weights = options.task or str(image_task_of(config)), stored_as(options.quantize)
    return plan_rows(found.name, "encoder", task, config.model_type, details, weights)


def load(found: Source, config: PretrainedConfig, options: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its task's head, its image processor, and the tokenizer of one that reads texts too.

    Raises:
        ExportError: see `source.load` and `source.load_image_processor`.
        UnsupportedError: Pillow is not installed.
    """
    require_pillow()
    task = options.task or image_task_of(config)
    if options.hidden_states and task == CONTRAST:
        raise InputError(f"{option('hidden_states')} is not for {CONTRAST}; export for {VECTORS} instead")
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
            subject = subject_of(checkpoint, options)
            trials = trials_of(subject)
        graphs, parities = {}, []
        for tower, trial in zip(subject.towers, trials, strict=True):
            path = folder / f"{tower.name}.onnx"
            graph, names = _graph(subject, tower, clock)
            quantization, parity = finish_graph(graph, names, trial, path, Path(scratch), options, clock)
            graphs[tower.name] = describe_graph(graph, path, quantization, encoder_notes(graph))
            parities.append(parity)
        with clock.step("write"):
            if checkpoint.tokenizer is not None:
                save_tokenizer(checkpoint.tokenizer, folder)
                clean_up_decoding(checkpoint.tokenizer, folder)
            parity = together(parities)
            write_manifest(_manifest(subject, graphs), folder, parity, clock)
    return finish(bundle, checkpoint.weights_size, parity, clock)


def _graph(subject: Subject, tower: Tower, clock: Clock) -> tuple[ir.Model, tuple[str, ...]]:
    model, max_length = subject.checkpoint.model, subject.max_length if "input_ids" in tower.traced.inputs else None
    graph, spec = fused_graph(
        subject.checkpoint.source.name, lambda: encoder_spec(model, tower.traced, tower.name, max_length), clock
    )
    return graph, spec.outputs


def _manifest(subject: Subject, graphs: dict[str, contract.GraphInfo]) -> contract.Manifest:
    checkpoint, tokenizer = subject.checkpoint, subject.checkpoint.tokenizer
    vocabulary = VocabularyInfo()
    if tokenizer is not None:
        vocabulary = VocabularyInfo(
            tokenizer=TokenizerInfo("tokenizer.json", None, special_strings(tokenizer)),
            tokens=encoder_tokens(tokenizer),
            size=int(checkpoint.model.config.get_text_config().vocab_size),
            max_length=subject.max_length,
        )
    manifest = form_manifest(model_info(checkpoint, "encoder", subject.task), vocabulary, graphs)
    return dataclasses.replace(manifest, encoder=_encoder_info(subject, graphs))


def _encoder_info(subject: Subject, graphs: dict[str, contract.GraphInfo]) -> contract.EncoderInfo:
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
        problem_type=subject.problem_type,
        hidden_states=sum(output.name.startswith("hidden_states.") for output in outputs),
        image=subject.image,
        contrast=subject.contrast,
    )
