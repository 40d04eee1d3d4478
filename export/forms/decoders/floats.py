"""Stores a decoder whose weights are floats: in float32, in 8 or 4 bits, or to a goal; and for GPUs."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir
import torch

from triform.export.checkpoint.files.weights import open_weights
from triform.export.checkpoint.source import Checkpoint
from triform.export.forms.decoders.gpu import FloatDecoder, build_decoder_for_gpu
from triform.export.forms.decoders.graph import (
    GPU_GRAPH_FILE,
    GRAPH_FILE,
    StoredDecoder,
    drop_weights,
    rotary_frequencies,
    traced_decoder,
)
from triform.export.forms.decoders.measured import Measured, Reference, measure_decoder
from triform.export.forms.decoders.prompts import PromptsFile
from triform.export.graph.position_tables import compute_rotary_tables
from triform.export.options import BITS, KEEP, MIXED, ExportOptions
from triform.export.quantize.blocks import SENSITIVE_BLOCK_SIZE, Scheme, lower_to_blocks, lower_to_float
from triform.export.quantize.kernels_and_tables import narrow_kernels_and_tables
from triform.export.quantize.mixed.lowering import lower_decoder_to_goal
from triform.export.quantize.mixed.moments import Differentiable, predictions
from triform.export.quantize.smoothing import smooth_channels
from triform.export.quantize.stored.packed import KeptBlocks
from triform.export.report import Clock
from triform.export.runners import DecoderRunner, usable_cores
from triform.export.samples import texts
from triform.export.samples.own import calibration_text
from triform.export.samples.texts import TokenWindows
from triform.export.verify.decoder import (
    quantized_decoder_parity,
    reference_logits,
    reference_states,
    verify_decoder,
    verify_states,
)
from triform.export.write import GraphFile, Stored, write_graph
from triform.runtime.bundle.export_record import QuantizedParity
from triform.runtime.bundle.manifest import CacheInfo, Quantization

# For matrices that are no blocks in a checkpoint whose blocks are kept.
_OTHER_BITS = 8
_DEFAULT_BLOCK_SIZE = {"int8": 128, "int4": 64}
# Tokens for parity, for energies, for the moments that a goal needs, for comparing the quantized graph, and per window
# of these texts; and what a fast export has of them. More energies left what SmolLM2-135M loses in 4 bits as it was: on
# ten texts that nothing is calibrated on +39.2 % of perplexity with 3,072, +37.5 % with 1,536 and +38.1 % with 768.
# More tokens for moments help: 3,072 of them left a divergence of .062 in 104 MB, twice as many .059.
_PARITY_TOKENS, _ENERGY_TOKENS, _MOMENT_TOKENS, _COMPARED_TOKENS, _WINDOW = 192, 1024, 6144, 1024, 512
_FAST_PARITY_TOKENS, _FAST_COMPARED_TOKENS = 48, 128


@dataclass(frozen=True)
class _Traced:
    """A decoder's float graph, and what it is compared with.

    Attributes:
        checkpoint: its source.
        graph: fused, not lowered yet.
        cache: what it keeps of a text.
        reference: PyTorch's results for the beginning of `text`.
        text: that quantized graphs are compared on.
        notes: for the manifest.
        frequencies: see `rotary_frequencies`.
    """

    checkpoint: Checkpoint
    graph: ir.Model
    cache: CacheInfo
    reference: Reference
    text: TokenWindows
    notes: dict[str, str]
    frequencies: list[torch.Tensor]


def build_from_floats(
    checkpoint: Checkpoint, folder: Path, max_length: int, options: ExportOptions, clock: Clock
) -> list[StoredDecoder]:
    """Trace a decoder, verify it in float32, and store it for each target, the CPU first.

    Args:
        checkpoint: loaded; its weights are given away.
        folder: to write into.
        max_length: most positions the graph must reach.
        options: of the export.
        clock: times the steps.

    Raises:
        ExportError: the graph does not compute what PyTorch does.
        UnsupportedError: the architecture cannot be traced.
    """
    traced = _traced(checkpoint, max_length, options, clock)
    if options.quantize == "none" and not options.for_gpu:
        with clock.step("verify"):
            return [_stored_in_float32(traced, folder)]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with clock.step("verify"):
            calibrated = options.quantize not in ("none", MIXED, KEEP) and not options.fast
            calibrated |= options.quantize == KEEP and options.fast_prompts
            measured = measure_decoder(
                traced.graph, traced.cache, Path(scratch), traced.reference,
                _calibration(traced, options, _ENERGY_TOKENS) if calibrated else None, traced.text, clock.counted,
            )  # fmt: skip
        with clock.step("quantize"):
            others = [_stored_for_gpu(traced, measured, folder, Path(scratch), options)] if options.for_gpu else []
            if not options.for_cpu:
                return others
            if options.quantize in BITS and not options.fast:
                measured = dataclasses.replace(measured, importance=smooth_channels(traced.graph, measured.importance))
            if options.quantize != "none":
                # Beside weights of 4 bytes they are small, and are opened faster than they are computed.
                compute_rotary_tables(traced.graph, traced.frequencies)
            if options.quantize not in ("none", KEEP):
                narrow_kernels_and_tables(traced.graph)
            stored: Stored = {}
            prompts = _products_for_prompts(traced, measured, folder, stored, clock) if options.fast_prompts else None
            quantization = _quantize(traced, measured, folder, stored, Path(scratch), options, clock)
            drop_weights(checkpoint.model)
            if prompts is not None:
                # The decoder's own head and embedding.
                lower_to_blocks(prompts.graph, scheme_of(options), measured.importance)
        with clock.step("compare"):
            compare = partial(_compare, traced, measured)
            parity = dataclasses.replace(measured.parity, quantized=compare(folder / GRAPH_FILE))
            of_prompts = None if prompts is None else prompts.finish(compare)
    decoder = StoredDecoder(traced.graph, traced.cache, quantization, parity, traced.notes, prompts=of_prompts)
    return [decoder, *others]


def scheme_of(options: ExportOptions) -> Scheme:
    """The scheme that int8 or int4 stands for, or with keep that of the matrices without blocks."""
    name = options.quantize
    if name == KEEP:
        return Scheme(_OTHER_BITS, SENSITIVE_BLOCK_SIZE, options.accuracy_level)
    return Scheme(BITS[name], options.block_size or _DEFAULT_BLOCK_SIZE[name], options.accuracy_level)


def _traced(checkpoint: Checkpoint, max_length: int, options: ExportOptions, clock: Clock) -> _Traced:
    window = min(_WINDOW, max_length)
    count = _FAST_COMPARED_TOKENS if options.fast else _COMPARED_TOKENS
    ids = texts.text_ids(checkpoint.tokenizer, texts.read_text("evaluation"), count, checkpoint.model, window=window)
    with clock.step("reference"):
        count = _FAST_PARITY_TOKENS if options.fast else _PARITY_TOKENS
        reference = _reference(checkpoint, ids[: min(count, max_length - 8)], options)
    graph, spec, cache = traced_decoder(checkpoint, max_length, options.hidden_states, clock)
    frequencies = rotary_frequencies(checkpoint)
    if options.quantize != MIXED:
        # A goal is met by what PyTorch computes with them.
        drop_weights(checkpoint.model)
    notes = dict(spec.notes) | (_fast_notes(reference.ids, ids, options) if options.fast else {})
    return _Traced(checkpoint, graph, cache, reference, TokenWindows(ids, window), notes, frequencies)


def _calibration(traced: _Traced, options: ExportOptions, count: int) -> TokenWindows:
    """The text for calibration."""
    checkpoint, window = traced.checkpoint, traced.text.window
    text = calibration_text(options.calibrate)
    ids = texts.spread_ids(checkpoint.tokenizer, text, count, checkpoint.model, window=window)
    return TokenWindows(ids, window)


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


def _stored_in_float32(traced: _Traced, folder: Path) -> StoredDecoder:
    """Write the graph as it is, and compare it with PyTorch. Errors as `verify_decoder`."""
    path, reference = folder / GRAPH_FILE, traced.reference
    lower_to_float(traced.graph)
    write_graph(traced.graph, path)
    runner = DecoderRunner(path, traced.cache, usable_cores())
    parity = verify_decoder(runner, reference.logits, reference.ids)
    if reference.states is not None:
        verify_states(runner, reference.states, reference.ids)
    return StoredDecoder(traced.graph, traced.cache, Quantization("none"), parity, traced.notes)


def _stored_for_gpu(
    traced: _Traced, measured: Measured, folder: Path, scratch: Path, options: ExportOptions
) -> StoredDecoder:
    graph = traced.graph.clone() if options.for_cpu else traced.graph
    path = folder / (GPU_GRAPH_FILE if options.for_cpu else GRAPH_FILE)
    floats = FloatDecoder(
        traced.checkpoint.source.name, graph, traced.cache, measured.importance, traced.reference.logits,
        measured.expected, traced.text.ids, traced.text.window, traced.notes,
    )  # fmt: skip
    return build_decoder_for_gpu(floats, options, path, scratch)


def _compare(traced: _Traced, measured: Measured, path: Path) -> QuantizedParity:
    """Compare a quantized graph on disk with the float graph."""
    windows = iter(measured.expected)
    runner = DecoderRunner(path, traced.cache, usable_cores())
    return quantized_decoder_parity(lambda _: next(windows), runner, traced.text.ids, traced.text.window)


def _products_for_prompts(
    traced: _Traced, measured: Measured, folder: Path, stored: Stored, clock: Clock
) -> PromptsFile:
    """Begin the graph for prompts, while the decoder's graph has its weights."""
    prompts = PromptsFile(traced.graph, folder, stored)
    prompts.lower_products(measured.importance, clock.counted)
    return prompts


def _quantize(
    traced: _Traced,
    measured: Measured,
    folder: Path,
    stored: Stored,
    scratch: Path,
    options: ExportOptions,
    clock: Clock,
) -> Quantization:
    """Store the weights as the options say, and write the graph.

    Args:
        traced: its graph is changed in place.
        measured: of that graph.
        folder: of the bundle, with all files but the graph and the manifest.
        stored: the constants that are in the folder already; those of this graph are added.
        scratch: a folder for graphs that are tried.
        options: of the export.
        clock: gets notes of what was measured.
    """
    graph = traced.graph
    with GraphFile(folder / GRAPH_FILE, stored) as file:
        if options.quantize == "none":
            lower_to_float(graph)
            quantization = Quantization("none")
        elif options.quantize == KEEP:
            quantization = _quantize_with_blocks(traced, measured, file, options, clock)
        elif options.quantize == MIXED:
            quantization = _quantize_to_goal(traced, measured, folder, scratch, options, clock)
        else:
            scheme = scheme_of(options)
            count = lower_to_blocks(graph, scheme, measured.importance, file.store, clock.counted)
            quantization = _describe_scheme(scheme, count)
        file.finish(graph)
    return quantization


def _quantize_with_blocks(
    traced: _Traced, measured: Measured, file: GraphFile, options: ExportOptions, clock: Clock
) -> Quantization:
    """Keep the integers of the checkpoint, and round what is not stored in them to 8 bits."""
    source, scheme = traced.checkpoint.source, scheme_of(options)
    if source.weights is None:
        raise ValueError(f"{source.name} has no weights")
    with open_weights(source.weights) as tensors:
        blocks = KeptBlocks(tensors)
        count = lower_to_blocks(traced.graph, scheme, measured.importance, file.store, clock.counted, blocks.of)
    others = count - blocks.formats.total()
    formats = {**blocks.formats, **({f"int{_OTHER_BITS}": others} if others else {})}
    return Quantization(KEEP, accuracy_level=options.accuracy_level, matrices=count, formats=formats)


def _quantize_to_goal(
    traced: _Traced, measured: Measured, folder: Path, scratch: Path, options: ExportOptions, clock: Clock
) -> Quantization:
    model, sample = traced.checkpoint.model, _calibration(traced, options, _MOMENT_TOKENS)
    subject = Differentiable(model, partial(predictions, model, sample), len(sample.ids))

    def compare(quantized: ir.Model) -> QuantizedParity:
        path = scratch / GRAPH_FILE
        write_graph(quantized, path)
        return _compare(traced, measured, path)

    with tempfile.TemporaryDirectory(dir=folder.parent) as moments:
        return lower_decoder_to_goal(traced.graph, subject, compare, options, folder, Path(moments), clock)


def _describe_scheme(scheme: Scheme, count: int) -> Quantization:
    return Quantization(
        scheme=f"int{scheme.bits}",
        bits=scheme.bits,
        block_size=scheme.block_size,
        sensitive_block_size=min(scheme.block_size, SENSITIVE_BLOCK_SIZE),
        accuracy_level=scheme.accuracy_level,
        matrices=count,
    )
