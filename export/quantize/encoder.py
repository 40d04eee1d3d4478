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
from triform.export.quantize.blocks import Scheme, lower_embeddings, lower_to_float
from triform.export.quantize.experts import lower_experts
from triform.export.quantize.int4 import lower_to_int4
from triform.export.quantize.int8 import lower_to_int8
from triform.export.runners import EncoderRunner
from triform.export.samples.batches import Sample, padded
from triform.export.write import write_graph
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
        activations: of a graph for calibration, the name of the output that holds a weight's input, by weight name.
    """

    runner: EncoderRunner
    activations: dict[str, str]


def write_float_graph(graph: ir.Model, path: Path, threads: int) -> FloatGraph:
    """Lower a fused graph in place, write it, and open it."""
    lower_to_float(graph)
    fuse_biases(graph)
    write_graph(graph, path)
    return FloatGraph(EncoderRunner(path, threads), {})


def write_calibration_graph(graph: ir.Model, path: Path, threads: int) -> FloatGraph:
    """As `write_float_graph`, for a copy that has each Linear's input as an output too; `graph` stays as it is."""
    copy = graph.clone()
    activations = add_activation_outputs(copy)
    return FloatGraph(write_float_graph(copy, path, threads).runner, activations)


def quantize_encoder(
    graph: ir.Model, options: ExportOptions, original: FloatGraph, samples: Sequence[Sample]
) -> Quantization:
    """Replace the graph's Linear nodes and token embeddings by quantized ones.

    Args:
        graph: fused, not lowered yet; changed in place.
        options: the scheme; int8 when not given.
        original: from `write_calibration_graph`.
        samples: for calibration.
    """
    inputs = _linear_inputs(original, samples)
    name = options.quantize or "int8"
    experts = lower_experts(graph, BITS[name], _BLOCK_SIZE, options.accuracy_level, {})
    if name == "int8":
        activations = lower_to_int8(graph, inputs)
        # GatherBlockQuantized reads 8-bit rows in blocks too.
        tables = lower_embeddings(graph, Scheme(8, _BLOCK_SIZE, options.accuracy_level), {})
        fuse_biases(graph)
        return Quantization(name, 8, matrices=len(activations) + experts + tables, activations=activations)
    scheme = Scheme(4, options.block_size or _BLOCK_SIZE, options.accuracy_level)
    count, activations = lower_to_int4(graph, scheme, inputs)
    matrices = count + len(activations) + experts + lower_embeddings(graph, scheme, {})
    fuse_biases(graph)
    return Quantization(name, 4, scheme.block_size, None, scheme.accuracy_level, matrices, activations)


def _linear_inputs(original: FloatGraph, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """Some of the vectors that each weight multiplies, float32 (rows, in_features) by weight name."""
    batches = (padded([sample], 0) for sample in samples)
    collected = collect_activations(original.runner, batches, set(original.activations.values()), _ROWS)
    return {weight: collected[output] for weight, output in original.activations.items()}
