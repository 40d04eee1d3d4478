"""The traced graph of a decoder, and its record once its weights are stored."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import dataclass

import onnx_ir as ir
import torch

from triform.export.checkpoint.source import Checkpoint
from triform.export.graph.cache import cache_info
from triform.export.graph.fused import fused_graph
from triform.export.report import Clock
from triform.models.attention.rotary import rotary_modules
from triform.models.decoder.graph import decoder_spec
from triform.models.decoder.hidden_states import with_hidden_states
from triform.models.spec import GraphSpec
from triform.runtime.bundle.export_record import Parity, QuantizedParity
from triform.runtime.bundle.manifest import CacheInfo, Quantization
from triform.runtime.machine.memory import give_back_memory

GRAPH_FILE = "decoder.onnx"
# Beside one for the CPU.
GPU_GRAPH_FILE = "gpu-decoder.onnx"
# Reads long prompts.
PROMPTS_FILE = "prompts.onnx"


@dataclass(frozen=True)
class StoredPrompts:
    """A decoder's graph for long prompts, as written to `PROMPTS_FILE`.

    Attributes:
        graph: in memory.
        quantization: how its weights are stored.
        parity: compared with the float graph.
    """

    graph: ir.Model
    quantization: Quantization
    parity: QuantizedParity


@dataclass(frozen=True)
class StoredDecoder:
    """A decoder's graph, as written.

    Attributes:
        graph: in memory.
        cache: what it keeps of a text.
        quantization: how its weights are stored.
        parity: its differences from PyTorch.
        notes: for the manifest.
        file: its name.
        prompts: the graph beside it that reads long prompts; None if there is none.
    """

    graph: ir.Model
    cache: CacheInfo
    quantization: Quantization
    parity: Parity
    notes: dict[str, str]
    file: str = GRAPH_FILE
    prompts: StoredPrompts | None = None


def rotary_frequencies(checkpoint: Checkpoint) -> list[torch.Tensor]:
    """The inverse frequencies of the model's rotary embeddings, float32 (rotary_dim / 2,) each."""
    modules = rotary_modules(checkpoint.model)
    return [buffer for module in modules for name, buffer in module.named_buffers() if name.endswith("inv_freq")]


def traced_decoder(
    checkpoint: Checkpoint,
    max_length: int,
    hidden_states: bool,
    clock: Clock,
    kind_of: Callable[[ir.Value], Hashable] = lambda _: None,
) -> tuple[ir.Model, GraphSpec, CacheInfo]:
    """Trace and fuse a decoder's graph.

    Args:
        checkpoint: the decoder.
        max_length: most positions the graph must reach.
        hidden_states: whether the last hidden states are an output.
        clock: times the steps.
        kind_of: see `fuse`.

    Raises:
        UnsupportedError: the architecture cannot be traced.
    """

    def prepare() -> tuple[GraphSpec, ExitStack]:
        spec, prepared = decoder_spec(checkpoint.model, max_length)
        with prepared:
            return (with_hidden_states(spec) if hidden_states else spec), prepared.pop_all()

    graph, spec = fused_graph(checkpoint.source.name, prepare, clock, kind_of)
    return graph, spec, cache_info(spec)


def drop_weights(model: torch.nn.Module) -> None:
    """Leave a traced model the shapes of its weights only: its graph has those it needs, and packed copies of some."""
    meta: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in meta:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
                meta[id(parameter)] = torch.nn.Parameter(empty, requires_grad=False)
            setattr(module, name, meta[id(parameter)])
    # Traced programs refer to themselves, and to the weights.
    gc.collect()
    give_back_memory()
