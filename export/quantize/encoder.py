"""Quantizes an encoder graph, calibrated on the activations of sample inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from triform.export.graph.fusion_biases import fuse_biases
from triform.export.options import BITS, ExportOptions
from triform.export.quantize.activations import add_activation_outputs, collect_activations
from triform.export.quantize.blocks import Scheme, lower_embeddings, lower_tied_heads, lower_to_float
from triform.export.quantize.columns.products import lower_to_int8
from triform.export.quantize.columns.search import ROWS_WORTH
from triform.export.quantize.experts import lower_experts
from triform.export.quantize.int4 import lower_to_int4
from triform.export.report import Counted, uncounted
from triform.export.runners import EncoderRunner
from triform.export.samples.batches import Sample, padded
from triform.export.write import Stored, write_graph
from triform.runtime.bundle.manifest import Quantization

# Vectors to keep of each Linear's input.
_ROWS = 1024
# 4-bit weights that share a scale: few, because every error shows in an embedding, the average of all tokens.
_BLOCK_SIZE = 32


@dataclass(frozen=True)
class FloatGraph:
    """A float graph on disk, ready to run.

    Attributes:
        runner: runs it.
        activations: of a graph for calibration, the names of the outputs that hold a weight's inputs, by weight name.
    """

    runner: EncoderRunner
    activations: dict[str, list[str]]


def write_lowered(graph: ir.Model, path: Path, stored: Stored | None = None) -> None:
    """Lower a fused graph to float32 in place, and write it; for `stored` see `write_graph`."""
    lower_to_float(graph)
    fuse_biases(graph)
    write_graph(graph, path, stored)


def write_float_graph(graph: ir.Model, path: Path, threads: int, stored: Stored | None = None) -> FloatGraph:
    """Lower a fused graph in place, write it, and open it; for `stored` see `write_graph`."""
    write_lowered(graph, path, stored)
    return FloatGraph(EncoderRunner(path, threads), {})


def write_calibration_graph(graph: ir.Model, path: Path, threads: int) -> FloatGraph:
    """As `write_float_graph`, for a copy that has each Linear's input as an output too; `graph` stays as it is."""
    copy = graph.clone()
    activations = add_activation_outputs(copy)
    return FloatGraph(write_float_graph(copy, path, threads).runner, activations)


def quantize_encoder(
    graph: ir.Model,
    options: ExportOptions,
    original: FloatGraph,
    samples: Sequence[Sample],
    rows_worth: float = ROWS_WORTH,
    counted: Counted = uncounted,
) -> Quantization:
    """Replace the graph's Linear nodes and token embeddings by quantized ones.

    Args:
        graph: fused, not lowered yet; changed in place.
        options: the scheme, int8 or int4.
        original: from `write_calibration_graph`.
        samples: for calibration.
        rows_worth: see `choose_quantization`.
        counted: reports how many weights are done.
    """
    inputs = linear_inputs_of(original, samples)
    name = options.quantize
    # Tables are looked up in blocks, by either scheme; a head that is tied to one reads the same blocks.
    scheme = Scheme(BITS[name], options.block_size or _BLOCK_SIZE, options.accuracy_level)
    heads = lower_tied_heads(graph, scheme)
    experts = lower_experts(graph, scheme.bits, scheme.block_size, scheme.accuracy_level, {})
    if name == "int8":
        activations = lower_to_int8(graph, inputs, rows_worth, counted)
        matrices = len(activations) + len(heads) + experts + lower_embeddings(graph, scheme, heads)
        fuse_biases(graph)
        return Quantization(name, 8, matrices=matrices, activations=activations)
    count, activations = lower_to_int4(graph, scheme, inputs, rows_worth, counted)
    matrices = count + len(activations) + len(heads) + experts + lower_embeddings(graph, scheme, heads)
    fuse_biases(graph)
    return Quantization(name, 4, scheme.block_size, None, scheme.accuracy_level, matrices, activations)


def linear_inputs_of(original: FloatGraph, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """Some of the vectors that each weight multiplies, float32 (rows, in_features) by weight name."""
    batches = [padded([sample], 0) for sample in samples]
    names = {name for outputs in original.activations.values() for name in outputs}
    collected = collect_activations(original.runner, batches, names, _ROWS)
    return {
        weight: torch.cat([collected[name] for name in outputs]) for weight, outputs in original.activations.items()
    }
