"""Exports a decoder from a quantized GGUF file: its blocks are kept, so nothing is calibrated.

The graph must agree with PyTorch on the file's numbers as a float graph does, fed in all ways, before it has the
blocks; and so must a copy with the blocks that computes with float32 activations. Of the copy two runs suffice, because
only products change, and ONNX Runtime unpacks every 8-bit matrix in each of them. The graph itself rounds activations
to 8 bits; its differences are measured.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import onnx_ir as ir

from triform.export.checkpoint.gguf.placement import Placement
from triform.export.checkpoint.source import Checkpoint
from triform.export.forms.decoders.graph import (
    GRAPH_FILE,
    StoredDecoder,
    drop_weights,
    rotary_frequencies,
    traced_decoder,
)
from triform.export.forms.decoders.measured import Reference, measure_decoder
from triform.export.forms.decoders.prompts import PromptsFile
from triform.export.graph.nodes import nodes
from triform.export.graph.position_tables import compute_rotary_tables
from triform.export.graph.weights import MODEL_PREFIX
from triform.export.options import KEEP, ExportOptions
from triform.export.quantize.blocks import SENSITIVE_BLOCK_SIZE, Scheme, lower_to_blocks, lower_to_float
from triform.export.quantize.stored.blocks import StoredWeights, lower_to_stored_blocks
from triform.export.quantize.stored.experts import lower_stored_experts
from triform.export.report import Clock
from triform.export.runners import DecoderRunner, usable_cores
from triform.export.samples import texts
from triform.export.samples.batches import Array
from triform.export.samples.texts import TokenWindows
from triform.export.verify.decoder import (
    quantized_decoder_parity,
    reference_logits,
    reference_states,
    verify_rows,
)
from triform.export.write import GraphFile, Stored, write_graph
from triform.runtime.bundle.export_record import QuantizedParity
from triform.runtime.bundle.manifest import CacheInfo, Quantization
from triform.runtime.machine.memory import give_back_memory

# Tokens to compare exactly, and tokens to measure the final graph on.
_EXACT_TOKENS, _MEASURED_TOKENS = 48, 256
# To calibrate a graph for prompts on.
_CALIBRATION_TOKENS = 1024
# The operators' accuracy level for float32 activations, and the bits of weights that QMoE has it for.
_EXACT, _EXACT_BITS = 1, 4
# For matrices that are floats in the file, or in blocks that no operator supports.
_OTHER_BITS = 8


def build_from_blocks(
    checkpoint: Checkpoint, folder: Path, max_length: int, options: ExportOptions, clock: Clock
) -> list[StoredDecoder]:
    """Trace a decoder and write its graph with the file's blocks.

    Args:
        checkpoint: from a GGUF file.
        folder: to write into.
        max_length: most positions the graph must reach.
        options: of the export.
        clock: times the steps.

    Raises:
        ExportError: the graph does not compute what PyTorch does with the file's numbers.
        UnsupportedError: the architecture cannot be traced.
    """
    count = min(_MEASURED_TOKENS, max_length)
    ids = texts.text_ids(checkpoint.tokenizer, texts.read_text("evaluation"), count, checkpoint.model, window=count)
    exact_ids = ids[: min(_EXACT_TOKENS, max_length - 8)]
    with clock.step("reference"):
        logits = reference_logits(checkpoint.model, ids)
        states = reference_states(checkpoint.model, exact_ids) if options.hidden_states else None
    reference = Reference(exact_ids, logits[: len(exact_ids)], states)
    stored = StoredWeights(_by_initializer(checkpoint))
    graph, spec, cache = traced_decoder(checkpoint, max_length, options.hidden_states, clock, stored.kind_of)
    frequencies = rotary_frequencies(checkpoint)
    # The graph has them, until it has their blocks.
    drop_weights(checkpoint.model)
    with clock.step("verify"), tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        calibration = _calibration(checkpoint, max_length) if options.fast_prompts else None
        text = TokenWindows(exact_ids, len(exact_ids))
        measured = measure_decoder(graph, cache, Path(scratch), reference, calibration, text, clock.counted)
        # The copy that was run has the floats, and refers to itself.
        gc.collect()
    written: Stored = {}
    prompts = None
    compute_rotary_tables(graph, frequencies)
    with clock.step("quantize"):
        if options.fast_prompts:
            prompts = PromptsFile(graph, folder, written)
            prompts.lower_products(measured.importance, clock.counted)
        formats = Counter(lower_to_stored_blocks(graph, stored, options.accuracy_level))
        formats += Counter(lower_stored_experts(graph, stored, _EXACT_BITS, options.accuracy_level))
        # Otherwise what was freed, as large as the model in float32, stays with the process.
        give_back_memory()
    with clock.step("blocks"):
        verify_rows(_exact_runner(graph, folder, cache), reference.logits, exact_ids)
    with clock.step("compare"):
        scheme = Scheme(_OTHER_BITS, SENSITIVE_BLOCK_SIZE, options.accuracy_level)
        # With 8 bits the operator always rounds activations, so the exact copy has these experts as floats.
        formats += Counter(lower_stored_experts(graph, stored, _OTHER_BITS, options.accuracy_level))
        others = lower_to_blocks(graph, scheme, {})
        formats += Counter({f"int{_OTHER_BITS}": others} if others else {})
        with GraphFile(folder / GRAPH_FILE, written) as file:
            # One by one, so that none is in memory any more when the graph runs.
            for value in graph.graph.initializers.values():
                file.store(value)
            file.finish(graph)
        give_back_memory()
        compare = partial(_compare, cache, logits, ids)
        quantized = compare(folder / GRAPH_FILE)
        of_prompts = None
        if prompts is not None:
            others_of_file = stored.without(set(itertools.chain.from_iterable(prompts.weights.values())))
            lower_to_stored_blocks(prompts.graph, others_of_file, options.accuracy_level)
            lower_to_blocks(prompts.graph, scheme, {})
            of_prompts = prompts.finish(compare)
    notes = {
        **dict(spec.notes),
        "parity": f"against PyTorch with the file's numbers in float32, on {len(exact_ids)} tokens: the graph with "
        "them, and with the blocks and activations in float32 all tokens but the last at once, then this one; as it "
        f"runs on {len(ids)}",
    }
    quantization = Quantization(
        KEEP, accuracy_level=options.accuracy_level, matrices=sum(formats.values()), formats=dict(formats)
    )
    parity = dataclasses.replace(measured.parity, quantized=quantized)
    return [StoredDecoder(graph, cache, quantization, parity, notes, prompts=of_prompts)]


def _calibration(checkpoint: Checkpoint, max_length: int) -> TokenWindows:
    window = min(_MEASURED_TOKENS, max_length)
    text = texts.read_text("calibration")
    return TokenWindows(
        texts.spread_ids(checkpoint.tokenizer, text, _CALIBRATION_TOKENS, checkpoint.model, window=window), window
    )


def _compare(cache: CacheInfo, logits: Array, ids: list[int], path: Path) -> QuantizedParity:
    runner = DecoderRunner(path, cache, usable_cores())
    return quantized_decoder_parity(lambda _: logits, runner, ids, len(ids))


def _by_initializer(checkpoint: Checkpoint) -> dict[str, Placement]:
    """Where weights are in the file, by initializer name; a tied weight may have either of two names."""
    tied = dict(getattr(checkpoint.model, "all_tied_weights_keys", None) or {})
    named = dict(checkpoint.placements)
    named |= {target: named[origin] for target, origin in tied.items() if origin in named}
    return {f"{MODEL_PREFIX}{name}": placement for name, placement in named.items()}


def _exact_runner(graph: ir.Model, folder: Path, cache: CacheInfo) -> DecoderRunner:
    """A runner of a copy of the graph that rounds neither activations nor weights outside of blocks."""
    exact = graph.clone()
    lower_to_float(exact)
    for node in nodes(exact.graph, "MatMulNBits", "QMoE"):
        node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _EXACT)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        write_graph(exact, Path(scratch) / GRAPH_FILE)
        return DecoderRunner(Path(scratch) / GRAPH_FILE, cache, usable_cores())
