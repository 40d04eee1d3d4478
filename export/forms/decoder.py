"""Exports a decoder: trace, fuse, verify, calibrate, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import transformers
from transformers import PretrainedConfig

from triform.export.checkpoint import loading
from triform.export.checkpoint.gguf.loading import is_quantized
from triform.export.checkpoint.processors import save_tokenizer
from triform.export.checkpoint.source import Checkpoint, Source
from triform.export.describe.chat_templates import DEFAULT, chat_templates, write_chat_templates
from triform.export.describe.end_tokens import end_tokens
from triform.export.describe.generation_defaults import generation_defaults
from triform.export.describe.manifest import VocabularyInfo, form_manifest, model_info, write_manifest
from triform.export.describe.plan import Row, plan_rows, size_rows, vocabulary_row
from triform.export.describe.special_tokens import special_strings, tokens_of
from triform.export.describe.template_engine import choose_engine
from triform.export.forms.decoders.blocks import build_from_blocks
from triform.export.forms.decoders.gpu import FloatDecoder, build_decoder_for_gpu
from triform.export.forms.decoders.graph import (
    GPU_GRAPH_FILE,
    GRAPH_FILE,
    StoredDecoder,
    drop_weights,
    traced_decoder,
)
from triform.export.forms.decoders.measured import Reference, measure_decoder
from triform.export.options import BITS, KEEP, MIXED, ExportOptions
from triform.export.quantize.blocks import SENSITIVE_BLOCK_SIZE, Scheme, lower_to_blocks, lower_to_float
from triform.export.quantize.mixed.lowering import lower_decoder_to_goal
from triform.export.quantize.mixed.moments import Differentiable, predictions
from triform.export.report import Clock, Report, finish
from triform.export.runners import DecoderRunner, usable_cores
from triform.export.samples import texts
from triform.export.samples.own import calibration_text
from triform.export.verify.decoder import (
    quantized_decoder_parity,
    reference_logits,
    reference_states,
    verify_decoder,
    verify_states,
)
from triform.export.write import GraphFile, describe_graph, staged, write_graph
from triform.models import catalog
from triform.runtime.bundle.export_record import Parity, QuantizedParity
from triform.runtime.bundle.manifest import CacheInfo, GpuGraphs, GraphInfo, Manifest, Quantization
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import ExportError, InputError, option

_DEFAULT_BLOCK_SIZE = {"int8": 128, "int4": 64}
# Tokens for parity, for calibration, for comparing the quantized graph, and per window of these texts; and what a fast
# export has of them.
_PARITY_TOKENS, _CALIBRATION_TOKENS, _COMPARED_TOKENS, _WINDOW = 192, 3072, 1024, 512
_FAST_PARITY_TOKENS, _FAST_COMPARED_TOKENS = 48, 128


def plan(origin: Source, config: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """The rows that describe what `export` would do, from the config alone."""
    if _keeps_blocks(origin, options):
        return _rows(origin, config, options, "the blocks of the file")
    if options.quantize == MIXED:
        return _rows(origin, config, options, "4 to 8 bit, blocks of 16 to 128, matrix by matrix")
    if options.quantize == "none":
        return _rows(origin, config, options, "float32")
    scheme = _scheme(options)
    stored = f"{scheme.bits} bit, blocks of {scheme.block_size}"
    if scheme.block_size > SENSITIVE_BLOCK_SIZE:
        stored += f" ({SENSITIVE_BLOCK_SIZE} for attention inputs, head and embedding)"
    return _rows(origin, config, options, stored)


def _rows(origin: Source, config: PretrainedConfig, options: ExportOptions, stored: str) -> list[Row]:
    details = [*size_rows(config), vocabulary_row(config), ("context length", str(_max_length(config, options)))]
    return plan_rows(origin.name, "decoder", catalog.WRITE, config.model_type, details, stored)


def load(origin: Source, config: PretrainedConfig, options: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its language-model head.

    Raises:
        ExportError: see `loading.load_checkpoint`.
        InputError: the context length is beyond the model's.
    """
    _max_length(config, options)
    _keeps_blocks(origin, options)
    return loading.load_checkpoint(origin, config, transformers.AutoModelForCausalLM, as_stored=True)


def export(checkpoint: Checkpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn a loaded decoder into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph does not match PyTorch.
        UnsupportedError: the architecture cannot be traced.
    """
    max_length = _max_length(checkpoint.model.config, options)
    build = build_from_blocks if _keeps_blocks(checkpoint.source, options) else _build
    with staged(bundle, options.force) as folder:
        # First, because what it takes counts towards a target.
        tokenizer, notes = _write_tokenizer(checkpoint.tokenizer, folder)
        decoders = build(checkpoint, folder, max_length, options, clock)
        with clock.step("write"):
            manifest = _manifest(checkpoint, folder, decoders, options, tokenizer, notes)
            write_manifest(manifest, folder, decoders[0].parity, clock)
    report = finish(bundle, checkpoint.weights_size, decoders[0].parity, clock)
    return dataclasses.replace(report, end_tokens=tuple(manifest.export.end_tokens))


def _build(
    checkpoint: Checkpoint, folder: Path, max_length: int, options: ExportOptions, clock: Clock
) -> list[StoredDecoder]:
    """Trace a decoder, verify it in float32, and store it for each target."""
    window = min(_WINDOW, max_length)
    count = _FAST_COMPARED_TOKENS if options.fast else _COMPARED_TOKENS
    ids = texts.text_ids(checkpoint.tokenizer, texts.read_text("evaluation"), count, checkpoint.model, window=window)
    with clock.step("reference"):
        count = _FAST_PARITY_TOKENS if options.fast else _PARITY_TOKENS
        reference = _reference(checkpoint, ids[: min(count, max_length - 8)], options)
    graph, spec, cache = traced_decoder(checkpoint, max_length, options.hidden_states, clock)
    if options.quantize != MIXED:
        # A goal is met by what PyTorch computes with them.
        drop_weights(checkpoint.model)
    notes = dict(spec.notes) | (_fast_notes(reference.ids, ids, options) if options.fast else {})
    if options.quantize == "none" and not options.for_gpu:
        with clock.step("verify"):
            parity = _write_in_float32(graph, folder, cache, reference)
        return [StoredDecoder(graph, cache, Quantization("none"), parity, notes)]
    text = calibration_text(options.calibrate)
    sample_ids = texts.spread_ids(checkpoint.tokenizer, text, _CALIBRATION_TOKENS, checkpoint.model, window=window)
    sample = texts.TokenWindows(sample_ids, window)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with clock.step("verify"):
            calibrated = options.quantize not in ("none", MIXED) and not options.fast
            calibration = sample if calibrated else None
            measured = measure_decoder(
                graph, cache, Path(scratch), reference, calibration, texts.TokenWindows(ids, window)
            )
        stored = []
        with clock.step("quantize"):
            if options.for_gpu:
                own = graph.clone() if options.for_cpu else graph
                path = folder / (GPU_GRAPH_FILE if options.for_cpu else GRAPH_FILE)
                floats = FloatDecoder(
                    checkpoint.source.name, own, cache, measured.importance, reference.logits, measured.expected, ids,
                    window, notes,
                )  # fmt: skip
                stored = [build_decoder_for_gpu(floats, options, path, Path(scratch))]
                if not options.for_cpu:
                    return stored

            def compare(quantized: Path) -> QuantizedParity:
                windows = iter(measured.expected)
                runner = DecoderRunner(quantized, cache, usable_cores())
                return quantized_decoder_parity(lambda _: next(windows), runner, ids, window)

            subject = Differentiable(checkpoint.model, partial(predictions, checkpoint.model, sample), len(sample.ids))

            def measure(quantized: ir.Model) -> QuantizedParity:
                path = Path(scratch) / GRAPH_FILE
                write_graph(quantized, path)
                return compare(path)

            quantization = _quantize(graph, subject, measured.importance, measure, options, folder, clock)
            drop_weights(checkpoint.model)
        with clock.step("compare"):
            differences = compare(folder / GRAPH_FILE)
    parity = dataclasses.replace(measured.parity, quantized=differences)
    return [StoredDecoder(graph, cache, quantization, parity, notes), *stored]


def _fast_notes(verified: list[int], compared: list[int], options: ExportOptions) -> dict[str, str]:
    """What a fast export did less than others, for the manifest."""
    notes = {"parity": f"fast: the float32 graph against PyTorch on {len(verified)} tokens"}
    if options.quantize != "none":
        notes["parity"] += f"; the quantized graph against the float32 graph on {len(compared)}"
        notes["calibration"] = "none"
    return notes


def _reference(checkpoint: Checkpoint, ids: list[int], options: ExportOptions) -> Reference:
    logits = reference_logits(checkpoint.model, ids)
    return Reference(ids, logits, reference_states(checkpoint.model, ids) if options.hidden_states else None)


def _write_in_float32(graph: ir.Model, folder: Path, cache: CacheInfo, reference: Reference) -> Parity:
    """Write the graph as it is, and compare it with PyTorch. Errors as `verify_decoder`."""
    path = folder / GRAPH_FILE
    lower_to_float(graph)
    write_graph(graph, path)
    runner = DecoderRunner(path, cache, usable_cores())
    parity = verify_decoder(runner, reference.logits, reference.ids)
    if reference.states is not None:
        verify_states(runner, reference.states, reference.ids)
    return parity


def _quantize(
    graph: ir.Model,
    subject: Differentiable,
    importance: dict[str, torch.Tensor],
    compare: Callable[[ir.Model], QuantizedParity],
    options: ExportOptions,
    folder: Path,
    clock: Clock,
) -> Quantization:
    """Store the weights of a graph as the options say.

    Args:
        graph: changed in place.
        subject: see `lower_decoder_to_goal`.
        importance: see `Measured`.
        compare: see `lower_decoder_to_goal`.
        options: of the export.
        folder: of the bundle, with all files but the graph and the manifest.
        clock: gets notes of what was measured.
    """
    with GraphFile(folder / GRAPH_FILE) as file:
        if options.quantize == "none":
            lower_to_float(graph)
            quantization = Quantization("none")
        elif options.quantize == MIXED:
            with tempfile.TemporaryDirectory(dir=folder.parent) as moments:
                quantization = lower_decoder_to_goal(graph, subject, compare, options, folder, Path(moments), clock)
        else:
            scheme = _scheme(options)
            quantization = _describe_scheme(scheme, lower_to_blocks(graph, scheme, importance, file.store))
        file.finish(graph)
    return quantization


def _keeps_blocks(origin: Source, options: ExportOptions) -> bool:
    """Whether to keep the blocks of a GGUF file.

    Raises:
        InputError: there are no blocks to keep.
    """
    if options.quantize != KEEP:
        return False
    if origin.gguf is None or not is_quantized(origin.gguf):
        raise InputError(
            f"{option('quantize')} keep is for GGUF files with quantized weights, which {origin.name} is not"
        )
    return True


def _scheme(options: ExportOptions) -> Scheme:
    """The scheme that int8 or int4 stands for."""
    name = options.quantize
    return Scheme(BITS[name], options.block_size or _DEFAULT_BLOCK_SIZE[name], options.accuracy_level)


def _describe_scheme(scheme: Scheme, count: int) -> Quantization:
    return Quantization(
        scheme=f"int{scheme.bits}",
        bits=scheme.bits,
        block_size=scheme.block_size,
        sensitive_block_size=min(scheme.block_size, SENSITIVE_BLOCK_SIZE),
        accuracy_level=scheme.accuracy_level,
        matrices=count,
    )


def _max_length(config: Any, options: ExportOptions) -> int:
    text = config.get_text_config()
    own = getattr(text, "max_position_embeddings", getattr(text, "max_seq_len", None))
    # XLNet's -1 says that there is no limit.
    own = None if own is not None and own < 1 else own
    context_length = options.context_length
    if own is None and context_length is None:
        raise ExportError(f"{config.model_type} sets no limit to its context; give one with {option('context_length')}")
    if own is not None and context_length is not None and context_length > own:
        raise InputError(f"{option('context_length')} {context_length} is more than the model's own limit of {own}")
    limit = context_length if context_length is not None else own
    return int(limit or 0)


def _write_tokenizer(tokenizer: Any, folder: Path) -> tuple[TokenizerInfo, list[str]]:
    """Write the tokenizer and its chat templates; return their description and notes for the user."""
    save_tokenizer(tokenizer, folder)
    engine, notes = choose_engine(tokenizer)
    files = write_chat_templates(chat_templates(tokenizer), folder)
    default, special = files.pop(DEFAULT, None), special_strings(tokenizer)
    return TokenizerInfo("tokenizer.json", default, special, chat_templates=files, template_engine=engine), notes


def _described(decoder: StoredDecoder, folder: Path) -> dict[str, GraphInfo]:
    return {"decoder": describe_graph(decoder.graph, folder / decoder.file, decoder.quantization, decoder.notes)}


def _manifest(
    checkpoint: Checkpoint,
    folder: Path,
    decoders: list[StoredDecoder],
    options: ExportOptions,
    tokenizer: TokenizerInfo,
    notes: list[str],
) -> Manifest:
    model, ends = checkpoint.model, end_tokens(checkpoint)
    vocabulary = VocabularyInfo(
        tokenizer=tokenizer,
        tokens=dataclasses.replace(tokens_of(checkpoint), eos=[token.id for token in ends]),
        size=int(model.config.get_text_config().vocab_size),
        max_length=_max_length(model.config, options),
    )
    first, *others = decoders
    info = model_info(checkpoint, "decoder", catalog.WRITE)
    manifest = form_manifest(info, vocabulary, _described(first, folder))
    gpu = [GpuGraphs(options.gpu_dtype, _described(item, folder), item.parity) for item in others]
    return dataclasses.replace(
        manifest,
        cache=first.cache,
        target="cpu" if options.for_cpu else "gpu",
        gpu=gpu[0] if gpu else None,
        generation=generation_defaults(model.generation_config),
        export=dataclasses.replace(manifest.export, end_tokens=ends, notes=notes),
    )
