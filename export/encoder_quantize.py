"""Quantize an encoder graph by what flows through it on calibration inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from triform.export.activations import add_activation_outputs, catch
from triform.export.fuse_biases import fuse_biases
from triform.export.lower import Scheme, lower_embeddings, lower_to_float
from triform.export.lower_int4 import lower_to_int4
from triform.export.lower_int8 import lower_to_int8
from triform.export.options import ExportOptions
from triform.export.verify_encoder import EncoderRunner, Sample, padded
from triform.export.write import write_graph
from triform.runtime.manifest import Quantization

# Vectors kept of each Linear's input.
_ROWS = 1024
# Blocks of 4-bit weights. Embeddings are averages of all they read, and show every error.
_BLOCK_SIZE = 32


def quantize_encoder(
    graph: ir.Model, options: ExportOptions, samples: Sequence[Sample], scratch: Path, threads: int
) -> Quantization:
    """Replace the graph's Linear nodes and token embeddings by quantized ones.

    Args:
        graph: fused, not lowered yet; changed in place.
        options: says how; int8 when it does not.
        samples: calibration inputs.
        scratch: a folder for the graph that measures.
        threads: for running it.
    """
    twin = graph.clone()
    outputs = add_activation_outputs(twin)
    lower_to_float(twin)
    path = scratch / "activations.onnx"
    write_graph(twin, path)
    batches = (padded([sample], 0) for sample in samples)
    caught = catch(EncoderRunner(path, threads), batches, set(outputs.values()), _ROWS)
    inputs = {weight: caught[output] for weight, output in outputs.items()}
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
