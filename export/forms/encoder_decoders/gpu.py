"""Both graphs of an encoder-decoder for GPUs: lowered, written, and compared on the CPU with what PyTorch computes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from triform.export.forms.decoders.gpu import lower_products
from triform.export.forms.encoder_decoders.graph import Graphs
from triform.export.gpu.decoder import check_gpu_decoder, to_gpu_decoder
from triform.export.gpu.half import to_half
from triform.export.gpu.skip_norms import fuse_skip_layer_norms
from triform.export.gpu.twin import allowed_error, rounded_twin
from triform.export.graph.fused import encoder_notes
from triform.export.graph.fusion_biases import fuse_biases
from triform.export.options import ExportOptions
from triform.export.quantize.blocks import lower_to_float
from triform.export.runners import EncoderDecoderRunner, EncoderRunner, GpuDecoderRunner, usable_cores
from triform.export.verify.encoder_decoder import (
    ReferenceAnswers,
    encoder_decoder_parity,
    quantized_encoder_decoder_parity,
)
from triform.export.verify.half import check_half, in_half
from triform.export.write import Stored, describe_graph, write_graph
from triform.models.errors import UnsupportedModelError
from triform.runtime.bundle.export_record import Parity
from triform.runtime.bundle.manifest import CacheInfo, GpuGraphs, Quantization
from triform.runtime.errors import UnsupportedError, option

_NAMES = ("encoder", "decoder")


@dataclass(frozen=True)
class FloatPair:
    """What graphs for GPUs are made from and compared with.

    Attributes:
        name: of the checkpoint.
        graphs: traced, and verified in float32.
        cache: of the decoder.
        runner: runs the float32 graphs.
        reference: PyTorch's answers.
    """

    name: str
    graphs: Graphs
    cache: CacheInfo
    runner: EncoderDecoderRunner
    reference: ReferenceAnswers


def build_pair_for_gpu(
    pair: FloatPair, options: ExportOptions, folder: Path, scratch: Path
) -> tuple[GpuGraphs, Parity]:
    """Write both graphs for GPUs.

    Args:
        pair: its graphs stay as they are.
        options: of the export.
        folder: to write into.
        scratch: a folder for what is not kept.

    Returns:
        the graphs' entry in the manifest, and how they compare, which is in it too.

    Raises:
        UnsupportedError: a GPU has no kernel for the decoder's attention.
        ExportError: they do not compute what PyTorch does, as closely as their numbers allow.
    """
    encoder, decoder = pair.graphs.encoder.clone(), pair.graphs.decoder.clone()
    notes, dtype = encoder_notes(encoder), options.gpu_dtype
    try:
        check_gpu_decoder(decoder)
        quantization = lower_products(decoder, options, {})
        to_gpu_decoder(decoder, dtype)
    except UnsupportedModelError as error:
        raise UnsupportedError(
            f"{pair.name} cannot be exported with {option('target')} {options.target}: {error}"
        ) from error
    lower_to_float(encoder)
    fuse_biases(encoder)
    fuse_skip_layer_norms(encoder)
    to_half(encoder, dtype)
    paths = _written(encoder, decoder, folder, "gpu-" if options.for_cpu else "")
    twins = _written(rounded_twin(encoder, dtype), rounded_twin(decoder, dtype), scratch, "twin-")
    runners = [_runner(twins, pair.cache, "float32")]
    if dtype == "float16":
        # The CPU has no kernels for bfloat16.
        runners.append(_runner(paths, pair.cache, dtype))
    parity = _compare(pair, runners, options, quantization)
    own = {"dtype": str(dtype), "compared": f"in float32 on a CPU, with each result rounded to {dtype}"}
    graphs = {
        "encoder": describe_graph(encoder, paths[0], Quantization("none"), {**notes, **own}),
        "decoder": describe_graph(decoder, paths[1], quantization, own),
    }
    return GpuGraphs(dtype, graphs, parity), parity


def _written(encoder: ir.Model, decoder: ir.Model, folder: Path, prefix: str) -> list[Path]:
    """Write both graphs, and what both look up, such as an embedding, once."""
    stored: Stored = {}
    paths = [folder / f"{prefix}{name}.onnx" for name in _NAMES]
    for graph, path in zip((encoder, decoder), paths, strict=True):
        write_graph(graph, path, stored)
    return paths


def _runner(paths: list[Path], cache: CacheInfo, dtype: str) -> EncoderDecoderRunner:
    cores, own = usable_cores(), dataclasses.replace(cache, dtype=dtype)
    return EncoderDecoderRunner(EncoderRunner(paths[0], cores), GpuDecoderRunner(paths[1], own, cores))


def _compare(
    pair: FloatPair, runners: list[EncoderDecoderRunner], options: ExportOptions, quantization: Quantization
) -> Parity:
    """Compare graphs with PyTorch, and the first ones' predictions with those of the float32 graphs."""
    dtype, quantized = options.gpu_dtype, quantization.scheme != "none"
    share = allowed_error(sum(len(list(graph.graph)) for graph in (pair.graphs.encoder, pair.graphs.decoder)), dtype)
    parities = [in_half(encoder_decoder_parity(runner, pair.reference), share) for runner in runners]
    for parity in parities:
        check_half(parity, dtype, quantized=quantized)
    measured = quantized_encoder_decoder_parity(pair.runner.read, runners[0], pair.reference)
    return dataclasses.replace(parities[0], quantized=measured)
