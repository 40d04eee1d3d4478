"""Exports a decoder from a quantized GGUF file: its blocks are kept, so nothing is calibrated.

A copy of the graph that computes with float32 activations must agree with PyTorch on the file's numbers, as a float
graph does. The graph itself rounds activations to 8 bits; its differences are measured.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import onnx_ir as ir
import torch

from triform.export.checkpoint.gguf.placement import Placement
from triform.export.checkpoint.source import Checkpoint
from triform.export.forms.decoders.graph import GRAPH_FILE, StoredDecoder, traced_decoder
from triform.export.graph.nodes import nodes
from triform.export.graph.rotary_tables import compute_rotary_tables
from triform.export.options import KEEP, ExportOptions
from triform.export.quantize.blocks import SENSITIVE_BLOCK_SIZE, Scheme, lower_to_blocks, lower_to_float
from triform.export.quantize.stored_blocks import StoredWeights, lower_to_stored_blocks
from triform.export.report import Clock
from triform.export.runners import DecoderRunner, usable_cores
from triform.export.samples import texts
from triform.export.verify.decoder import (
    quantized_decoder_parity,
    reference_logits,
    reference_states,
    verify_decoder,
    verify_states,
)
from triform.export.write import write_graph
from triform.models.attention.rotary import rotary_modules
from triform.runtime.bundle.manifest import CacheInfo, Quantization

# Tokens to compare exactly, and tokens to measure the final graph on.
_EXACT_TOKENS, _MEASURED_TOKENS = 48, 256
# MatMulNBits' accuracy level for float32 activations.
_EXACT = 1
# For matrices that are floats in the file, or in blocks that no operator supports.
_OTHER_BITS = 8
# The traced module holds the model under this name.
_PREFIX = "model."


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
    with clock.step("reference"):
        logits = reference_logits(checkpoint.model, ids)
        exact_ids = ids[: min(_EXACT_TOKENS, max_length - 8)]
        states = reference_states(checkpoint.model, exact_ids) if options.hidden_states else None
    stored = StoredWeights(_by_initializer(checkpoint))
    graph, spec, cache = traced_decoder(checkpoint, max_length, options.hidden_states, clock, stored.kind_of)
    with clock.step("quantize"):
        compute_rotary_tables(graph, _frequencies(checkpoint))
        formats = lower_to_stored_blocks(graph, stored, options.accuracy_level)
    with clock.step("verify"):
        exact = _exact_runner(graph, folder, cache)
        parity = verify_decoder(exact, logits[: len(exact_ids)], exact_ids)
        if states is not None:
            verify_states(exact, states, exact_ids)
    with clock.step("compare"):
        others = lower_to_blocks(graph, Scheme(_OTHER_BITS, SENSITIVE_BLOCK_SIZE, options.accuracy_level), {})
        formats |= {f"int{_OTHER_BITS}": others} if others else {}
        write_graph(graph, folder / GRAPH_FILE)
        runner = DecoderRunner(folder / GRAPH_FILE, cache, usable_cores())
        measured = quantized_decoder_parity(lambda _: logits, runner, ids, len(ids))
    notes = {
        **dict(spec.notes),
        "parity": f"against PyTorch with the file's numbers in float32: exactly on {len(exact_ids)} tokens, with "
        f"activations in float32; as it runs on {len(ids)}",
    }
    quantization = Quantization(
        KEEP, accuracy_level=options.accuracy_level, matrices=sum(formats.values()), formats=formats
    )
    return [StoredDecoder(graph, cache, quantization, dataclasses.replace(parity, quantized=measured), notes)]


def _by_initializer(checkpoint: Checkpoint) -> dict[str, Placement]:
    """Where weights are in the file, by initializer name; a tied weight may have either of two names."""
    tied = dict(getattr(checkpoint.model, "all_tied_weights_keys", None) or {})
    named = dict(checkpoint.placements)
    named |= {target: named[origin] for target, origin in tied.items() if origin in named}
    return {f"{_PREFIX}{name}": placement for name, placement in named.items()}


def _frequencies(checkpoint: Checkpoint) -> list[torch.Tensor]:
    """The inverse frequencies of the model's rotary embeddings."""
    modules = rotary_modules(checkpoint.model)
    return [buffer for module in modules for name, buffer in module.named_buffers() if name.endswith("inv_freq")]


def _exact_runner(graph: ir.Model, folder: Path, cache: CacheInfo) -> DecoderRunner:
    """A runner of a copy of the graph that rounds neither activations nor weights outside of blocks."""
    exact = graph.clone()
    lower_to_float(exact)
    for node in nodes(exact.graph, "MatMulNBits"):
        node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _EXACT)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        write_graph(exact, Path(scratch) / GRAPH_FILE)
        return DecoderRunner(Path(scratch) / GRAPH_FILE, cache, usable_cores())
