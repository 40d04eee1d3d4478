"""The graph of a decoder for GPUs: lowered, written, and compared on the CPU with what PyTorch computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from triform.export.forms.decoders.graph import StoredDecoder
from triform.export.forms.decoders.measured import SavedLogits
from triform.export.gpu.blocks import lower_to_gpu_blocks
from triform.export.gpu.decoder import check_gpu_decoder, to_gpu_decoder
from triform.export.gpu.twin import allowed_error, rounded_twin
from triform.export.options import ExportOptions
from triform.export.quantize.blocks import lower_to_float
from triform.export.runners import GpuDecoderRunner, usable_cores
from triform.export.samples.batches import Array
from triform.export.verify.decoder import decoder_parity, quantized_decoder_parity
from triform.export.verify.half import check_half, in_half
from triform.export.write import write_graph
from triform.models.errors import UnsupportedModelError
from triform.runtime.bundle.export_record import Parity
from triform.runtime.bundle.manifest import CacheInfo, GpuDtype, Quantization
from triform.runtime.errors import UnsupportedError, option


@dataclass(frozen=True)
class FloatDecoder:
    """What a graph for GPUs is made from and compared with.

    Attributes:
        name: of the checkpoint.
        graph: the traced graph, verified in float32.
        cache: what it keeps of a text.
        importance: by weight name, the energy of each input channel.
        logits: PyTorch's, float32 (parity_tokens, vocab_size), of the first of `ids`.
        expected: the float32 graph's logits of `ids`.
        ids: a text.
        window: tokens of a window.
        notes: for the manifest.
    """

    name: str
    graph: ir.Model
    cache: CacheInfo
    importance: Mapping[str, torch.Tensor]
    logits: Array
    expected: SavedLogits
    ids: list[int]
    window: int
    notes: dict[str, str]


def build_decoder_for_gpu(decoder: FloatDecoder, options: ExportOptions, path: Path, scratch: Path) -> StoredDecoder:
    """Write the graph for GPUs.

    Args:
        decoder: its graph is changed in place.
        options: of the export.
        path: the file to write.
        scratch: a folder for what is not kept.

    Raises:
        UnsupportedError: ONNX Runtime has no kernel for its attention.
        ExportError: it does not compute what PyTorch does, as closely as its numbers allow.
    """
    graph, dtype = decoder.graph, options.gpu_dtype
    try:
        check_gpu_decoder(graph)
        quantization = lower_products(graph, options, decoder.importance)
        to_gpu_decoder(graph, dtype)
    except UnsupportedModelError as error:
        raise UnsupportedError(
            f"{decoder.name} cannot be exported with {option('target')} {options.target}: {error}"
        ) from error
    write_graph(graph, path)
    cache = dataclasses.replace(decoder.cache, dtype=dtype)
    twin = scratch / path.name
    write_graph(rounded_twin(graph, dtype), twin)
    allowed = allowed_error(len(list(graph.graph)), dtype)
    parity = _compare(decoder, GpuDecoderRunner(twin, cache, usable_cores()), allowed, quantization, dtype)
    notes = {**decoder.notes, "dtype": dtype, "compared": f"in float32, each result rounded to {dtype}"}
    if dtype == "float16":
        # The CPU has kernels for it, or computes in float32.
        _parity(decoder, GpuDecoderRunner(path, cache, usable_cores()), allowed, quantization, dtype)
        notes["compared"] += "; and as it is, on the CPU"
    return StoredDecoder(graph, cache, quantization, parity, notes, path.name)


def lower_products(graph: ir.Model, options: ExportOptions, importance: Mapping[str, torch.Tensor]) -> Quantization:
    """Store the weights of a decoder's graph in 4 bits, if it is for GPUs alone and the options say so, or as floats.

    Args:
        graph: changed in place.
        options: of the export.
        importance: see `lower_to_gpu_blocks`.
    """
    if options.quantize == "int4" and not options.for_cpu:
        return lower_to_gpu_blocks(graph, importance)
    lower_to_float(graph)
    return Quantization("none")


def _compare(
    decoder: FloatDecoder, runner: GpuDecoderRunner, allowed: float, quantization: Quantization, dtype: GpuDtype
) -> Parity:
    """Compare a graph with PyTorch, and its predictions with those of the float32 graph. Errors as `check_half`."""
    parity = _parity(decoder, runner, allowed, quantization, dtype)
    windows = iter(decoder.expected)
    measured = quantized_decoder_parity(lambda _: next(windows), runner, decoder.ids, decoder.window)
    return dataclasses.replace(parity, quantized=measured)


def _parity(
    decoder: FloatDecoder, runner: GpuDecoderRunner, allowed: float, quantization: Quantization, dtype: GpuDtype
) -> Parity:
    parity = decoder_parity(runner, decoder.logits, decoder.ids[: len(decoder.logits)])
    parity = in_half(parity, allowed)
    check_half(parity, dtype, quantized=quantization.scheme != "none")
    return parity
