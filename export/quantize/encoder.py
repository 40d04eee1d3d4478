"""Quantize an encoder graph by what flows through it on calibration inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from triform.export.graph.fusion_biases import fuse_biases
from triform.export.options import ExportOptions
from triform.export.quantize.activations import add_activation_outputs, catch
from triform.export.quantize.blocks import Scheme, lower_embeddings, lower_to_float
from triform.export.quantize.int4 import lower_to_int4
from triform.export.quantize.int8 import lower_to_int8
from triform.export.runners import EncoderRunner
from triform.export.samples.batches import Sample, padded
from triform.export.write import write_graph
from triform.runtime.bundle.manifest import Quantization

# Vectors kept of each Linear's input.
_ROWS = 1024
# Blocks of 4-bit weights. Embeddings are averages of all they read, and show every error.
_BLOCK_SIZE = 32


@dataclass(frozen=True)
class FloatGraph:
    """The float graph on disk, opened.

    Attributes:
        runner: runs it.
        activations: by weight, the extra output that holds what the weight multiplies; none in a graph to keep.
    """

    runner: EncoderRunner
    activations: dict[str, str]


def write_float(graph: ir.Model, path: Path, threads: int) -> FloatGraph:
    """Lower a fused graph in place, write it, and open it."""
    lower_to_float(graph)
    fuse_biases(graph)
    write_graph(graph, path)
    return FloatGraph(EncoderRunner(path, threads), {})


def write_twin(graph: ir.Model, path: Path, threads: int) -> FloatGraph:
    """As `write_float`, of a copy that also gives what quantizing must see; `graph` stays as it is."""
    twin = graph.clone()
    activations = add_activation_outputs(twin)
    return FloatGraph(write_float(twin, path, threads).runner, activations)


def quantize_encoder(
    graph: ir.Model, options: ExportOptions, twin: FloatGraph, samples: Sequence[Sample]
) -> Quantization:
    """Replace the graph's Linear nodes and token embeddings by quantized ones.

    Args:
        graph: fused, not lowered yet; changed in place.
        options: says how; int8 when it does not.
        twin: from `write_twin`.
        samples: calibration inputs.
    """
    inputs = _linear_inputs(twin, samples)
    name = options.quantize or "int8"
    if name == "int8":
        activations = lower_to_int8(graph, inputs)
        # 8-bit rows, which GatherBlockQuantized reads; see there for the block.
        tables = lower_embeddings(graph, Scheme(8, _BLOCK_SIZE, options.accuracy_level), {})
        fuse_biases(graph)
        return Quantization(name, 8, matrices=len(activations) + tables, activations=activations)
    scheme = Scheme(4, options.block_size or _BLOCK_SIZE, options.accuracy_level)
    count, activations = lower_to_int4(graph, scheme, inputs)
    matrices = count + len(activations) + lower_embeddings(graph, scheme, {})
    fuse_biases(graph)
    return Quantization(name, 4, scheme.block_size, None, scheme.accuracy_level, matrices, activations)


def _linear_inputs(twin: FloatGraph, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """By weight, some of the vectors it multiplies."""
    batches = (padded([sample], 0) for sample in samples)
    caught = catch(twin.runner, batches, set(twin.activations.values()), _ROWS)
    return {weight: caught[output] for weight, output in twin.activations.items()}
